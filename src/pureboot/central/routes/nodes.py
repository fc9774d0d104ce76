"""Nodes, as administrators see and move them. A node is named by its id or any alias of it."""

from fastapi import APIRouter, Response

from pureboot.central import node_log, nodes, steps
from pureboot.central.bodies import (
    AdminRegisterBody,
    AdminStateBody,
    EventAnswer,
    EventRow,
    HistoryRow,
    NodeCreate,
    NodePatch,
    RegisteredNode,
)
from pureboot.central.edge import AsAdmin, AsOperator, AsViewer, Central, Cursor, GuardedRoute, Limit
from pureboot.central.node_rows import document
from pureboot.wire.messages import EventBody, ListPage, NodeDocument, ReportBody

routes = APIRouter(route_class=GuardedRoute, tags=["nodes"])


@routes.get("/nodes")
async def list_nodes(
    central: Central,
    _: AsViewer,
    mac: str | None = None,
    state: str | None = None,
    site: str | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ListPage[NodeDocument]:
    return await central.db.read(lambda conn: nodes.page(conn, mac, state, site, cursor, limit))


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
async def delete_node(central: Central, _: AsAdmin, node: str) -> None:
    now = central.clock.now()
    await central.db.write(lambda conn: nodes.remove(conn, node, now))


@routes.patch("/nodes/{node}/state")
async def set_state(central: Central, admin: AsOperator, node: str, body: AdminStateBody) -> NodeDocument:
    now = central.clock.now()
    return await central.db.write(lambda conn: steps.set_state(conn, node, body, admin.name, now))


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
