"""Conflicts: which there are, one with both sides beside each other, and what is decided."""

from fastapi import APIRouter
from fastapi.responses import Response

from pureboot.central import conflict_views, settlement, sites
from pureboot.central.conflict_bodies import MOST_AT_ONCE, ConflictFilter, ResolveBody, ResolveMany, UndoBody
from pureboot.central.conflict_views import Which
from pureboot.central.edge import AsOperator, AsViewer, Central, Cursor, Services
from pureboot.central.settlement import Seen, Verdict
from pureboot.central.ui.form import Form
from pureboot.central.ui.page_route import PageRoute
from pureboot.central.ui.render import query
from pureboot.central.ui.view import Ui, View
from pureboot.central.ui.visit import PostedForm
from pureboot.core.errors import Invalid, PureBootError
from pureboot.core.reconcile import ConflictType
from pureboot.wire.messages import valid

routes = APIRouter(route_class=PageRoute, include_in_schema=False)

ROWS = 50
# Sites to choose from.
CHOICES = 1000

FILTERS = ("q", "site", "type")


@routes.get("/conflicts")
async def conflict_list(
    central: Central,
    view: Ui,
    _: AsViewer,
    q: str = "",
    site: str = "",
    type: str = "",
    status: Which = "pending",
    cursor: Cursor = None,
) -> Response:
    wanted = valid(ConflictFilter, {"q": q, "site": site, "type": type or None})
    found, total, names = await central.db.read(
        lambda conn: (
            conflict_views.page(conn, status, cursor, ROWS, wanted),
            conflict_views.count(conn, status, wanted),
            sites.names(conn, CHOICES),
        )
    )
    return view.page(
        "conflicts/list.html",
        found=found,
        total=total,
        names=names,
        wanted=wanted,
        status=status,
        types=list(ConflictType),
        cursor=cursor,
    )


@routes.post("/conflicts/bulk")
async def settle_many(central: Central, view: Ui, person: AsOperator, form: PostedForm) -> Response:
    """First what it would do; then, confirmed, what it did."""
    preview = not form.has("confirmed")
    try:
        body = _many(form, preview=preview)
        touch = central.db.read if preview else central.db.write
        outcome = await touch(lambda conn: conflict_views.resolve_many(conn, body, person.name, view.now))
    except PureBootError as error:
        return view.page("error.html", error=error)
    if not preview and not outcome.refused:
        return view.go(_back(form), f"{outcome.resolved} conflicts are settled: {body.resolution}.")
    return view.page("conflicts/bulk.html", outcome=outcome, form=form, back=_back(form))


def _many(form: Form, *, preview: bool) -> ResolveMany:
    chosen: dict[str, object] = {name: form.get(name) for name in FILTERS if form.get(name)}
    if form.get("scope") != "all":
        if not form.all("id"):
            raise Invalid("No conflict is ticked.", hint="Tick some in the list, or choose all that the filter finds.")
        chosen = {"ids": form.all("id")[:MOST_AT_ONCE]}
    said = {"resolution": form.get("resolution"), "comment": form.get("comment")}
    return valid(ResolveMany, chosen | said | {"preview": preview})


def _back(form: Form) -> str:
    return f"/conflicts{query(**{name: form.get(name) for name in FILTERS})}"


@routes.get("/conflicts/{conflict}")
async def conflict_page(central: Central, view: Ui, _: AsViewer, conflict: str) -> Response:
    return await _one(central, view, conflict)


@routes.post("/conflicts/{conflict}")
async def resolve(central: Central, view: Ui, person: AsOperator, conflict: str, form: PostedForm) -> Response:
    """A decision on what has moved on is refused: the page shows what is now, and keeps what was typed."""
    try:
        body = form.body(ResolveBody, none=("version", "state_rev"))
        verdict = Verdict(body.resolution, person.name, body.comment, view.now)
        seen = Seen(body.version, body.state_rev)
        await central.db.write(lambda conn: settlement.resolve(conn, None, conflict, verdict, seen))
    except PureBootError as error:
        return await _one(central, view, conflict, error=error, form=form)
    return view.go(f"/conflicts/{conflict}", f"Settled: {body.resolution}. The site learns of it now.")


@routes.post("/conflicts/{conflict}/undo")
async def undo(central: Central, view: Ui, person: AsOperator, conflict: str, form: PostedForm) -> Response:
    try:
        body = form.body(UndoBody, none=("version", "state_rev"))
        seen = Seen(body.version, body.state_rev)
        await central.db.write(
            lambda conn: settlement.undo(conn, None, conflict, person.name, body.comment, view.now, seen)
        )
    except PureBootError as error:
        return await _one(central, view, conflict, error=error, form=form)
    return view.go(f"/conflicts/{conflict}", "The decision is taken back; the conflict is open again.")


async def _one(
    central: Services, view: View, id: str, *, error: PureBootError | None = None, form: Form | None = None
) -> Response:
    found = await central.db.read(lambda conn: conflict_views.view(conn, id, view.now))
    return view.page("conflicts/conflict.html", conflict=found, error=error, form=form or Form())
