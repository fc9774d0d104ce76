"""Conflicts: of one site or of all, one with all that is known of it, and what is decided."""

from typing import Annotated

from fastapi import APIRouter, Query

from pureboot.central import conflict_views, settlement, sites
from pureboot.central.conflict_bodies import (
    ConflictFilter,
    ConflictSummary,
    ConflictView,
    ResolveBody,
    ResolvedMany,
    ResolveMany,
    UndoBody,
)
from pureboot.central.conflict_views import Which
from pureboot.central.edge import AsOperator, AsViewer, Central, Cursor, GuardedRoute, Limit
from pureboot.central.settlement import Seen, Verdict
from pureboot.core.reconcile import ConflictType
from pureboot.wire.messages import ListPage

routes = APIRouter(route_class=GuardedRoute, tags=["conflicts"])

Text = Annotated[str | None, Query(max_length=200, description="part of a MAC address, a hostname or a state")]


@routes.get("/conflicts")
async def list_conflicts(
    central: Central,
    _: AsViewer,
    site: str | None = None,
    status: Which = "pending",
    type: ConflictType | None = None,
    q: Text = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ListPage[ConflictSummary]:
    wanted = ConflictFilter(site=site, type=type, q=q)
    return await central.db.read(lambda conn: conflict_views.page(conn, status, cursor, limit, wanted))


@routes.post("/conflicts/resolve")
async def resolve_conflicts(central: Central, person: AsOperator, body: ResolveMany) -> ResolvedMany:
    """Many at once, each for itself: what cannot be settled this way is refused and says why."""
    now = central.clock.now()
    touch = central.db.read if body.preview else central.db.write
    return await touch(lambda conn: conflict_views.resolve_many(conn, body, person.name, now))


@routes.get("/sites/{site}/conflicts")
async def site_conflicts(
    central: Central,
    _: AsViewer,
    site: str,
    status: Which = "pending",
    type: ConflictType | None = None,
    q: Text = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ListPage[ConflictSummary]:
    wanted = ConflictFilter(site=site, type=type, q=q)
    return await central.db.read(lambda conn: conflict_views.page(conn, status, cursor, limit, wanted))


@routes.get("/sites/{site}/conflicts/{conflict}")
async def get_conflict(central: Central, _: AsViewer, site: str, conflict: str) -> ConflictView:
    now = central.clock.now()
    return await central.db.read(lambda conn: conflict_views.view(conn, conflict, now, site=site))


@routes.post("/sites/{site}/conflicts/{conflict}/resolve")
async def resolve_conflict(
    central: Central, person: AsOperator, site: str, conflict: str, body: ResolveBody
) -> ConflictView:
    now = central.clock.now()
    verdict, seen = Verdict(body.resolution, person.name, body.comment, now), Seen(body.version, body.state_rev)
    await central.db.write(
        lambda conn: settlement.resolve(conn, sites.find(conn, site).id, conflict, verdict, seen),
    )
    return await central.db.read(lambda conn: conflict_views.view(conn, conflict, now, site=site))


@routes.post("/sites/{site}/conflicts/{conflict}/undo")
async def undo_resolution(
    central: Central, person: AsOperator, site: str, conflict: str, body: UndoBody
) -> ConflictView:
    """Takes the last decision back, while nothing has happened since: the conflict is open again."""
    now, seen = central.clock.now(), Seen(body.version, body.state_rev)
    await central.db.write(
        lambda conn: settlement.undo(conn, sites.find(conn, site).id, conflict, person.name, body.comment, now, seen),
    )
    return await central.db.read(lambda conn: conflict_views.view(conn, conflict, now, site=site))
