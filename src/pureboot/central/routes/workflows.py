"""Workflows. One is named by its id or its name."""

from fastapi import APIRouter

from pureboot.central import workflows
from pureboot.central.bodies import WorkflowPatch
from pureboot.central.edge import AsAdmin, AsViewer, Central, Cursor, GuardedRoute, Limit
from pureboot.wire.messages import ListPage, WorkflowDocument, WorkflowFields

routes = APIRouter(route_class=GuardedRoute, tags=["workflows"])


@routes.get("/workflows")
async def list_workflows(
    central: Central, _: AsViewer, limit: Limit = 100, cursor: Cursor = None
) -> ListPage[WorkflowDocument]:
    return await central.db.read(lambda conn: workflows.page(conn, cursor, limit))


@routes.post("/workflows", status_code=201)
async def create_workflow(central: Central, _: AsAdmin, fields: WorkflowFields) -> WorkflowDocument:
    now = central.clock.now()
    return await central.db.write(lambda conn: workflows.create(conn, fields, now))


@routes.get("/workflows/{workflow}")
async def get_workflow(central: Central, _: AsViewer, workflow: str) -> WorkflowDocument:
    return await central.db.read(lambda conn: workflows.find(conn, workflow))


@routes.patch("/workflows/{workflow}")
async def change_workflow(central: Central, _: AsAdmin, workflow: str, patch: WorkflowPatch) -> WorkflowDocument:
    now = central.clock.now()
    return await central.db.write(lambda conn: workflows.change(conn, workflow, patch, now))


@routes.delete("/workflows/{workflow}", status_code=204)
async def delete_workflow(central: Central, _: AsAdmin, workflow: str) -> None:
    await central.db.write(lambda conn: workflows.remove(conn, workflow))
