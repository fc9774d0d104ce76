"""Nodes, as administrators see and move them. A node is named by its id or any alias of it."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from pureboot.central import bulk, node_list, node_log, nodes, steps, timeline
from pureboot.central.bodies import (
    AdminRegisterBody,
    AdminStateBody,
    BulkAssign,
    BulkMove,
    BulkOutcome,
    EventAnswer,
    EventRow,
    HistoryRow,
    NodeCreate,
    NodeFilter,
    NodePatch,
    RegisteredNode,
    TimelineEntry,
)
from pureboot.central.edge import AsOperator, AsViewer, Central, Cursor, GuardedRoute, Limit, check_role
from pureboot.central.node_rows import document
from pureboot.core.roles import Role
from pureboot.wire.messages import EventBody, ListPage, NodeDocument, ReportBody

routes = APIRouter(route_class=GuardedRoute, tags=["nodes"])


@routes.get("/nodes")
async def list_nodes(
    central: Central,
    _: AsViewer,
    mac: str | None = None,
    state: str | None = None,
    site: str | None = None,
    workflow: str | None = None,
    q: Annotated[str, Query(max_length=200, description="text in the hostname, or a part of a MAC")] = "",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ListPage[NodeDocument]:
    wanted = NodeFilter(mac=mac, state=state, site=site, workflow=workflow, q=q)
    return await central.db.read(lambda conn: node_list.page(conn, wanted, cursor, limit))


@routes.post("/nodes/assign")
async def assign_workflow(central: Central, _: AsOperator, body: BulkAssign) -> BulkOutcome:
    """To many nodes; each is changed or refused on its own."""
    return await bulk.assign(central.db, body, central.clock.now())


@routes.post("/nodes/move")
async def move_nodes(central: Central, person: AsOperator, body: BulkMove) -> BulkOutcome:
    """Many nodes into one state; each is moved or refused on its own."""
    return await bulk.move(central.db, body, person.name, central.clock.now())


@routes.post("/nodes", status_code=201)
async def create_node(central: Central, _: AsOperator, body: NodeCreate) -> NodeDocument:
    now = central.clock.now()
    return await central.db.write(lambda conn: nodes.create(conn, body, now))


@routes.post("/nodes/register", responses={201: {"model": RegisteredNode}})
async def register_node(central: Central, _: AsOperator, body: AdminRegisterBody, response: Response) -> RegisteredNode:
    now = central.clock.now()
    node, is_new = await central.db.write(lambda conn: nodes.register(conn, body, now))
    response.status_code = 201 if is_new else 200
    return node


@routes.get("/nodes/{node}")
async def get_node(central: Central, _: AsViewer, node: str) -> NodeDocument:
    return await central.db.read(lambda conn: document(nodes.find(conn, node)))


@routes.patch("/nodes/{node}")
async def change_node(central: Central, _: AsOperator, node: str, patch: NodePatch) -> NodeDocument:
    now = central.clock.now()
    return await central.db.write(lambda conn: nodes.edit(conn, node, patch, now))


@routes.delete("/nodes/{node}", status_code=204)
async def delete_node(central: Central, _: AsOperator, node: str) -> None:
    now = central.clock.now()
    await central.db.write(lambda conn: nodes.remove(conn, node, now))


@routes.patch("/nodes/{node}/state")
async def set_state(central: Central, person: AsOperator, node: str, body: AdminStateBody) -> NodeDocument:
    """By force only for administrators."""
    if body.force:
        check_role(person, Role.ADMIN)
    now = central.clock.now()
    return await central.db.write(lambda conn: steps.set_state(conn, node, body, person.name, now))


@routes.post("/nodes/{node}/event")
async def node_event(central: Central, _: AsOperator, node: str, body: EventBody) -> EventAnswer:
    now = central.clock.now()
    return await central.db.write(lambda conn: steps.event(conn, node, body, now))


@routes.post("/report")
async def report(central: Central, _: AsOperator, body: ReportBody) -> EventAnswer:
    now = central.clock.now()
    return await central.db.write(lambda conn: steps.report(conn, body, now))


@routes.get("/nodes/{node}/history")
async def node_history(
    central: Central, _: AsViewer, node: str, limit: Limit = 100, cursor: Cursor = None
) -> ListPage[HistoryRow]:
    return await central.db.read(
        lambda conn: node_log.history(conn, nodes.canonical_id(conn, node), cursor, limit),
    )


@routes.get("/nodes/{node}/events")
async def node_events(
    central: Central, _: AsViewer, node: str, limit: Limit = 100, cursor: Cursor = None
) -> ListPage[EventRow]:
    return await central.db.read(
        lambda conn: node_log.events(conn, nodes.canonical_id(conn, node), cursor, limit),
    )


@routes.get("/nodes/{node}/timeline")
async def node_timeline(
    central: Central, _: AsViewer, node: str, limit: Limit = 100, cursor: Cursor = None
) -> ListPage[TimelineEntry]:
    """History and events on one line, the newest first, with when central learned of each."""
    return await central.db.read(
        lambda conn: timeline.page(conn, nodes.canonical_id(conn, node), cursor, limit),
    )
