"""Workflows: how machines are installed."""

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import Connection

from pureboot.central import node_list, workflows
from pureboot.central.bodies import NodeFilter, WorkflowPatch
from pureboot.central.edge import AsAdmin, AsViewer, Central, Cursor, Services
from pureboot.central.ui.form import Form
from pureboot.central.ui.page_route import PageRoute
from pureboot.central.ui.view import Ui, View
from pureboot.central.ui.visit import PostedForm
from pureboot.core.errors import Invalid, PureBootError
from pureboot.wire.messages import ListPage, WorkflowDocument, WorkflowFields, valid

routes = APIRouter(route_class=PageRoute, include_in_schema=False)

ROWS = 100
LISTS = ("initrd",)


@routes.get("/workflows")
async def workflow_list(central: Central, view: Ui, _: AsViewer, cursor: Cursor = None) -> Response:
    def look(conn: Connection) -> tuple[ListPage[WorkflowDocument], dict[str, int]]:
        found = workflows.page(conn, cursor, ROWS)
        return found, workflows.uses(conn, [each.id for each in found.items])

    found, used = await central.db.read(look)
    return view.page("workflows/list.html", found=found, used=used, cursor=cursor)


@routes.get("/workflows/new")
async def new(view: Ui, _: AsAdmin) -> Response:
    return view.page("workflows/new.html", form=Form())


@routes.post("/workflows/new")
async def create(central: Central, view: Ui, _: AsAdmin, form: PostedForm) -> Response:
    try:
        fields = valid(WorkflowFields, _patch(form).model_dump(exclude_unset=True, exclude={"version"}))
        made = await central.db.write(lambda conn: workflows.create(conn, fields, view.now))
    except PureBootError as error:
        return view.page("workflows/new.html", form=form, error=error)
    return view.go(f"/workflows/{made.id}", f"The workflow {made.name} is made; every site learns of it now.")


@routes.get("/workflows/{workflow}")
async def workflow_page(central: Central, view: Ui, _: AsViewer, workflow: str) -> Response:
    return await _one(central, view, workflow)


@routes.post("/workflows/{workflow}")
async def change(central: Central, view: Ui, _: AsAdmin, workflow: str, form: PostedForm) -> Response:
    try:
        patch = _patch(form)
        await central.db.write(lambda conn: workflows.change(conn, workflow, patch, view.now))
    except PureBootError as error:
        return await _one(central, view, workflow, error=error, form=form)
    return view.go(f"/workflows/{workflow}", "The workflow is changed; every site learns of it now.")


@routes.post("/workflows/{workflow}/delete")
async def delete(central: Central, view: Ui, _: AsAdmin, workflow: str) -> Response:
    try:
        await central.db.write(lambda conn: workflows.remove(conn, workflow))
    except PureBootError as error:
        return await _one(central, view, workflow, error=error)
    return view.go("/workflows", "The workflow is deleted.")


def _patch(form: Form) -> WorkflowPatch:
    """Raises Invalid."""
    patch = form.body(WorkflowPatch, none=("version",), many=LISTS, skip=("templates",))
    if not form.has("templates"):
        return patch
    return patch.model_copy(update={"templates": _templates(form.get("templates"))})


def _templates(text: str) -> dict[str, str]:
    """`NAME = category/path`, one a line. Raises Invalid."""
    lines = [line.partition("=") for line in text.splitlines() if line.strip()]
    if not all(equals for _, equals, _ in lines):
        raise Invalid("templates: a line names no content.", hint="Write preseed.cfg = templates/debian.cfg.")
    return {name.strip(): content.strip() for name, _, content in lines}


async def _one(
    central: Services, view: View, ref: str, error: PureBootError | None = None, form: Form | None = None
) -> Response:
    def look(conn: Connection) -> dict[str, object]:
        found = workflows.find(conn, ref)
        states = node_list.states(conn, NodeFilter(workflow=found.id))
        text = "\n".join(f"{name} = {content}" for name, content in found.templates.items())
        return {"found": found, "states": states, "nodes": sum(states.values()), "templates_text": text}

    seen = await central.db.read(look)
    return view.page("workflows/workflow.html", **seen, error=error, form=form)
