"""Nodes: finding them, changing many at once, and one of them with its time line."""

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import Connection

from pureboot.central import bulk, node_list, nodes, sites, steps, timeline, workflows
from pureboot.central.bodies import AdminStateBody, BulkAssign, BulkMove, BulkOutcome, NodeFilter, NodePatch
from pureboot.central.edge import AsOperator, AsViewer, Central, Cursor, Services, check_role
from pureboot.central.node_rows import document
from pureboot.central.ui.form import Form
from pureboot.central.ui.page_route import PageRoute
from pureboot.central.ui.render import query
from pureboot.central.ui.view import Ui, View
from pureboot.central.ui.visit import PostedForm
from pureboot.core.errors import Invalid, PureBootError
from pureboot.core.lifecycle import NodeState
from pureboot.core.roles import Role

routes = APIRouter(route_class=PageRoute, include_in_schema=False)

ROWS = 50
# What happened to a node, a page.
MOMENTS = 50
# Sites and workflows to choose from; beyond, the address takes any id or name.
CHOICES = 1000

FILTERS = ("q", "state", "site", "workflow")


@routes.get("/nodes")
async def node_list_page(
    central: Central,
    view: Ui,
    _: AsViewer,
    q: str = "",
    state: str = "",
    site: str = "",
    workflow: str = "",
    cursor: Cursor = None,
) -> Response:
    wanted = NodeFilter(q=q[:200], state=state or None, site=site or None, workflow=workflow or None)
    return await _list(central, view, wanted, cursor)


async def _list(
    central: Services,
    view: View,
    wanted: NodeFilter,
    cursor: str | None,
    *,
    error: PureBootError | None = None,
    form: Form | None = None,
) -> Response:
    """`form`: what was to be done with many, and was not."""

    def look(conn: Connection) -> dict[str, object]:
        if cursor is None:
            found, total = node_list.first_page(conn, wanted, ROWS)
        else:
            found, total = node_list.page(conn, wanted, cursor, ROWS), 0
        return {"found": found, "total": total, "names": _names(conn)}

    seen = await central.db.read(look)
    return view.page(
        "nodes/list.html",
        **seen,
        wanted=wanted,
        states=list(NodeState),
        counted=node_list.COUNTED,
        cursor=cursor,
        error=error,
        form=form or Form(),
    )


def _names(conn: Connection) -> dict[str, dict[str, str]]:
    """Of all sites and workflows, by their ids: what a person calls them."""
    return {"sites": sites.names(conn, CHOICES), "workflows": workflows.names(conn, CHOICES)}


@routes.post("/nodes/bulk")
async def change_many(central: Central, view: Ui, person: AsOperator, form: PostedForm) -> Response:
    """First what it would do; then, confirmed, what it did. What is refused as a whole is kept, to be chosen again."""
    if form.has("again"):
        return await _again(central, view, form)
    try:
        outcome = await _change_many(central, view, form, person.name, preview=not form.has("confirmed"))
    except PureBootError as error:
        return await _again(central, view, form, error)
    if not outcome.preview and not outcome.refused:
        return view.go(_back(form), f"{outcome.changed} changed, {outcome.unchanged} were like that already.")
    names = await central.db.read(_names)
    return view.page("nodes/bulk.html", outcome=outcome, form=form, names=names, back=_back(form))


async def _again(central: Services, view: View, form: Form, error: PureBootError | None = None) -> Response:
    try:
        wanted = NodeFilter(**_filter(form))
        return await _list(central, view, wanted, form.get("cursor") or None, error=error, form=form)
    except PureBootError as wrong:
        # The filter itself, as of a site that is gone. What was for all that it finds is not for all there are.
        return await _list(central, view, NodeFilter(), None, error=error or wrong, form=form.without("scope"))


async def _change_many(central: Services, view: View, form: Form, person: str, *, preview: bool) -> BulkOutcome:
    chosen = {"preview": preview} | _selection(form)
    if form.get("do") == "move":
        body = BulkMove(**chosen, state=form.get("to_state"), comment=form.get("comment")[:2000])
        return await bulk.move(central.db, body, person, view.now)
    return await bulk.assign(central.db, BulkAssign(**chosen, workflow_id=form.get("to_workflow") or None), view.now)


def _selection(form: Form) -> dict[str, object]:
    """What is ticked, or all that the filter finds."""
    if form.get("scope") == "all":
        return {"filter": NodeFilter(**_filter(form))}
    if not form.all("id"):
        raise Invalid("No node is ticked.", hint="Tick some in the list, or choose all that the filter finds.")
    return {"ids": form.all("id")[: bulk.MOST]}


def _filter(form: Form) -> dict[str, str]:
    return {name: form.get(name)[:200] for name in FILTERS if form.get(name)}


def _back(form: Form) -> str:
    return f"/nodes{query(**_filter(form))}"


@routes.get("/nodes/{node}")
async def node_page(central: Central, view: Ui, _: AsViewer, node: str, cursor: Cursor = None) -> Response:
    return await _one(central, view, node, cursor=cursor)


@routes.post("/nodes/{node}")
async def edit(central: Central, view: Ui, _: AsOperator, node: str, form: PostedForm) -> Response:
    """A stale edit shows the node as it is now, and keeps what was typed."""
    try:
        patch = form.body(NodePatch, none=("workflow_id", "group_id", "local_boot"), many=("tags",))
        await central.db.write(lambda conn: nodes.edit(conn, node, patch, view.now))
    except PureBootError as error:
        return await _one(central, view, node, error=error, form=form)
    return view.go(f"/nodes/{node}", "The node is changed; its site learns of it now.")


@routes.post("/nodes/{node}/state")
async def move(central: Central, view: Ui, person: AsOperator, node: str, form: PostedForm) -> Response:
    try:
        body = form.body(AdminStateBody)
        if body.force:
            check_role(person, Role.ADMIN)
        moved = await central.db.write(lambda conn: steps.set_state(conn, node, body, person.name, view.now))
    except PureBootError as error:
        return await _one(central, view, node, error=error, move=form)
    return view.go(f"/nodes/{node}", f"The node is {moved.state.replace('_', ' ')} now.")


async def _one(
    central: Services,
    view: View,
    ref: str,
    *,
    cursor: str | None = None,
    error: PureBootError | None = None,
    form: Form | None = None,
    move: Form | None = None,
) -> Response:
    """`form` and `move`: what was typed into the one and the other, and refused."""

    def look(conn: Connection) -> dict[str, object]:
        node = nodes.find(conn, ref)
        return {
            "node": document(node),
            "ways": steps.ways(conn, node),
            "line": timeline.page(conn, node.id, cursor, MOMENTS),
            "names": _names(conn),
        }

    found = await central.db.read(look)
    return view.page(
        "nodes/node.html", **found, cursor=cursor, error=error, form=form, move=move or Form(), states=list(NodeState)
    )
