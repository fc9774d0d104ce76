"""Sites, their agents' tokens and their conflicts. A site is named by its id or its name."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from pureboot.central import accounts, conflicts, node_list, sites
from pureboot.central.bodies import NodeFilter, ResolveBody, SiteHealth, SitePatch, SiteView, SyncRequested, TokenAnswer
from pureboot.central.edge import AsAdmin, AsOperator, AsViewer, Central, Cursor, GuardedRoute, Limit
from pureboot.central.sites import SiteFilter
from pureboot.wire.messages import AgentStatus, ConflictDocument, ListPage, NodeDocument, SiteFields

routes = APIRouter(route_class=GuardedRoute, tags=["sites"])


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


@routes.post("/sites/{site}/sync", status_code=202)
async def ask_for_sync(central: Central, _: AsOperator, site: str) -> SyncRequested:
    """The agent is told with its next heartbeat."""
    await central.db.write(lambda conn: accounts.command(conn, sites.find(conn, site).id, "sync"))
    return SyncRequested()


@routes.get("/sites/{site}/conflicts")
async def site_conflicts(
    central: Central,
    _: AsViewer,
    site: str,
    status: Literal["pending", "resolved", "all"] = "pending",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ListPage[ConflictDocument]:
    return await central.db.read(
        lambda conn: conflicts.page(conn, sites.find(conn, site).id, status, cursor, limit),
    )


@routes.post("/sites/{site}/conflicts/{conflict}/resolve")
async def resolve_conflict(
    central: Central, admin: AsOperator, site: str, conflict: str, body: ResolveBody
) -> ConflictDocument:
    now = central.clock.now()
    return await central.db.write(
        lambda conn: conflicts.resolve(
            conn, sites.find(conn, site).id, conflict, body.resolution, admin.name, body.comment, now
        )
    )
