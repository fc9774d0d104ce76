"""Sites and their agents' tokens. A site is named by its id or its name."""

from fastapi import APIRouter

from pureboot.central import accounts, nodes, sites
from pureboot.central.bodies import SiteHealth, SitePatch, SiteView, SyncRequested, TokenAnswer
from pureboot.central.edge import AsAdmin, Central, Cursor, GuardedRoute, Limit
from pureboot.wire.messages import ListPage, NodeDocument, SiteFields

routes = APIRouter(route_class=GuardedRoute, tags=["sites"])


@routes.get("/sites")
async def list_sites(central: Central, _: AsAdmin, limit: Limit = 100, cursor: Cursor = None) -> ListPage[SiteView]:
    now = central.clock.now()
    return await central.db.read(lambda conn: sites.page(conn, cursor, limit, now))


@routes.post("/sites", status_code=201)
async def create_site(central: Central, _: AsAdmin, fields: SiteFields) -> SiteView:
    now = central.clock.now()
    site = await central.db.write(lambda conn: sites.create(conn, fields, now))
    return SiteView(**site.model_dump())


@routes.get("/sites/{site}")
async def get_site(central: Central, _: AsAdmin, site: str) -> SiteView:
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
    central: Central, _: AsAdmin, site: str, state: str | None = None, limit: Limit = 100, cursor: Cursor = None
) -> ListPage[NodeDocument]:
    return await central.db.read(lambda conn: nodes.page(conn, None, state, site, cursor, limit))


@routes.get("/sites/{site}/health")
async def site_health(central: Central, _: AsAdmin, site: str) -> SiteHealth:
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
async def ask_for_sync(central: Central, _: AsAdmin, site: str) -> SyncRequested:
    """The agent is told with its next heartbeat."""
    await central.db.write(lambda conn: accounts.command(conn, sites.find(conn, site).id, "sync"))
    return SyncRequested()
