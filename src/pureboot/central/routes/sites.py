"""Sites and their agents' tokens. A site is named by its id or its name."""

import logging
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from pureboot.central import accounts, commands, heartbeats, node_list, outages, sites
from pureboot.central.accounts import Person
from pureboot.central.bodies import (
    CommandRequested,
    GiveUpBody,
    NodeFilter,
    Outage,
    Revoked,
    SiteHealth,
    SitePatch,
    SiteQueue,
    SiteView,
    TokenAnswer,
)
from pureboot.central.edge import AsAdmin, AsOperator, AsViewer, Central, Cursor, GuardedRoute, Limit, Services
from pureboot.central.sites import SiteFilter
from pureboot.wire.messages import AgentStatus, ListPage, NodeDocument, SiteFields

log = logging.getLogger(__name__)

routes = APIRouter(route_class=GuardedRoute, tags=["sites"])

ItemId = Annotated[str, Path(max_length=64)]


@routes.get("/sites", response_model=ListPage[SiteView])
async def list_sites(
    central: Central,
    _: AsViewer,
    q: Annotated[str, Query(max_length=200, description="text in the name or the description")] = "",
    status: AgentStatus | None = None,
    order: Annotated[Literal["name", "problems"], Query(description="`problems`: what needs a person first")] = "name",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    now, wanted = central.clock.now(), SiteFilter(q, status, order)
    found = await central.db.read(lambda conn: sites.page(conn, cursor, limit, now, wanted))
    # As it is: checking a thousand of our own answers again would show.
    return Response(found.model_dump_json(), media_type="application/json")


@routes.post("/sites", status_code=201)
async def create_site(central: Central, _: AsAdmin, fields: SiteFields) -> SiteView:
    now = central.clock.now()
    site = await central.db.write(lambda conn: sites.create(conn, fields, now))
    return SiteView(**site.model_dump())


@routes.get("/sites/{site}")
async def get_site(central: Central, _: AsViewer, site: str) -> SiteView:
    now = central.clock.now()
    return await central.db.read(lambda conn: sites.view(conn, site, now))


@routes.patch("/sites/{site}")
async def change_site(central: Central, _: AsAdmin, site: str, patch: SitePatch) -> SiteView:
    now = central.clock.now()
    changed = await central.db.write(lambda conn: sites.change(conn, site, patch, now))
    return await central.db.read(lambda conn: sites.view(conn, changed.id, now))


@routes.delete("/sites/{site}", status_code=204)
async def delete_site(central: Central, _: AsAdmin, site: str) -> None:
    await central.db.write(lambda conn: sites.remove(conn, site))


@routes.get("/sites/{site}/nodes")
async def site_nodes(
    central: Central, _: AsViewer, site: str, state: str | None = None, limit: Limit = 100, cursor: Cursor = None
) -> ListPage[NodeDocument]:
    return await central.db.read(lambda conn: node_list.page(conn, NodeFilter(state=state, site=site), cursor, limit))


@routes.get("/sites/{site}/health")
async def site_health(central: Central, _: AsViewer, site: str) -> SiteHealth:
    now = central.clock.now()
    return await central.db.read(lambda conn: sites.health(conn, site, now))


@routes.post("/sites/{site}/agent-token", status_code=201)
async def issue_token(central: Central, _: AsAdmin, site: str) -> TokenAnswer:
    """Good for one agent and 24 hours, and shown only here; the one before it is void."""
    now = central.clock.now()
    return await central.db.write(
        lambda conn: accounts.issue_agent_token(conn, sites.find(conn, site).id, now),
    )


@routes.post("/sites/{site}/agents/revoke")
async def revoke(central: Central, person: AsAdmin, site: str) -> Revoked:
    """Ends every credential of the site's agents, replaced ones too, and the one-time token: their host was stolen, or
    a copy of its files. The agents serve their machines from what they hold, and can tell central nothing."""
    now = central.clock.now()
    revoked = await central.db.write(lambda conn: accounts.revoke(conn, sites.find(conn, site).id, now))
    log.warning("the credentials of a site's agents are revoked: site=%s by=%s revoked=%d", site, person.name, revoked)
    return Revoked(revoked=revoked)


@routes.post("/sites/{site}/sync", status_code=202)
async def ask_for_sync(central: Central, person: AsOperator, site: str) -> CommandRequested:
    """The agent is told with its next heartbeat, which comes at once where it waits for news."""
    return await _ask(central, site, "sync", person)


@routes.get("/sites/{site}/queue")
async def site_queue(central: Central, _: AsViewer, site: str) -> SiteQueue:
    """What failed of its outbox, as its agent told it last, and what was asked of the agent."""
    return await central.db.read(lambda conn: heartbeats.queue(conn, site))


@routes.post("/sites/{site}/queue/{item}/requeue", status_code=202)
async def requeue(central: Central, person: AsOperator, site: str, item: ItemId) -> CommandRequested:
    """The agent is asked to offer the failed item again."""
    return await _ask(central, site, "requeue", person, item_id=item)


@routes.post("/sites/{site}/queue/{item}/discard", status_code=202)
async def discard(
    central: Central, person: AsOperator, site: str, item: ItemId, body: GiveUpBody | None = None
) -> CommandRequested:
    """The agent is asked to give the item up for good."""
    return await _ask(central, site, "discard", person, item_id=item, reason=body.reason if body else "")


@routes.post("/sites/{site}/cache/{name:path}/invalidate", status_code=202)
async def invalidate(
    central: Central, person: AsOperator, site: str, name: Annotated[str, Path(max_length=600)]
) -> CommandRequested:
    """The agent is asked to drop the file; what its policy asks for is fetched again."""
    return await _ask(central, site, "invalidate", person, name=name)


@routes.get("/sites/{site}/outages")
async def site_outages(
    central: Central, _: AsViewer, site: str, limit: Limit = 100, cursor: Cursor = None
) -> ListPage[Outage]:
    """When its agent was not heard, the newest first."""
    return await central.db.read(lambda conn: outages.page(conn, sites.find(conn, site).id, cursor, limit))


async def _ask(central: Services, ref: str, command: commands.Name, person: Person, **about: str) -> CommandRequested:
    asked = await commands.send(central.db, ref, command, central.clock.now(), person=person.name, **about)
    return CommandRequested(id=asked.id)
