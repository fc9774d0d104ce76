"""Moving one node: by an administrator's word, or by what somebody reports of the machine."""

import uuid
from datetime import datetime

from sqlalchemy import Connection

from pureboot.central import node_log
from pureboot.central.bodies import AdminStateBody, EventAnswer
from pureboot.central.clock import new_id
from pureboot.central.node_log import Happening, Step
from pureboot.central.node_rows import StoredNode, document
from pureboot.central.nodes import by_mac, check_version, find, saved
from pureboot.core.changes import implied_edge
from pureboot.core.errors import IllegalEdge, NotFound
from pureboot.core.lifecycle import By, Edge, NodeState, check, check_forced, destination, is_legal
from pureboot.core.mac import MacAddress
from pureboot.wire.messages import EventBody, NodeDocument, ReportBody

_S = NodeState


def set_state(conn: Connection, ref: str, body: AdminStateBody, person: str, now: datetime) -> NodeDocument:
    """Raises IllegalEdge. Asked for the state the node has already, it changes nothing."""
    node = find(conn, ref, lock=True)
    check_version(node, body.version)
    return document(make(conn, node, body, person, now))


def make(conn: Connection, node: StoredNode, body: AdminStateBody, person: str, now: datetime) -> StoredNode:
    """The node as it is then. Raises IllegalEdge."""
    edge = edge_to(conn, node, body)
    if edge is None:
        return node
    return _moved(conn, node, edge, person, now, comment=body.comment, forced=not is_legal(edge))


def edge_to(conn: Connection, node: StoredNode, body: AdminStateBody) -> Edge | None:
    """None where the node is in that state already. Raises IllegalEdge."""
    state = NodeState.parse(body.state)
    if state is node.stage.state:
        return None
    edge = Edge(node.stage, destination(node.stage, state), By.ADMIN)
    if body.force:
        check_forced(edge.origin, body.comment)
    else:
        check(edge)
        _check_way_back(conn, node, edge)
    return edge


def ways(conn: Connection, node: StoredNode) -> list[NodeState]:
    """Where a person may move the node without force."""

    def is_open(state: NodeState) -> bool:
        try:
            return edge_to(conn, node, AdminStateBody(state=state)) is not None
        except IllegalEdge:
            return False

    return [state for state in NodeState if is_open(state)]


def _check_way_back(conn: Connection, node: StoredNode, edge: Edge) -> None:
    """A cancelled approval leads back to where it came from: a machine that never was installed is not active."""
    if edge.origin.state is not _S.PENDING or edge.target.state not in (_S.DISCOVERED, _S.ACTIVE):
        return
    came_from = node_log.last_origin(conn, node.id, _S.PENDING)
    back = _S.ACTIVE if came_from == _S.REPROVISION else _S.DISCOVERED
    if edge.target.state is not back:
        raise IllegalEdge(
            f"This approval came from {came_from or _S.DISCOVERED}; cancelled, the node becomes {back}.",
            hint=f"Set the state {back}.",
        )


def _moved(
    conn: Connection,
    node: StoredNode,
    edge: Edge,
    actor: str,
    now: datetime,
    *,
    comment: str = "",
    forced: bool = False,
) -> StoredNode:
    step = Step(
        node_id=node.id,
        edge=edge,
        actor=actor,
        comment=comment,
        occurred_at=now,
        recorded_at=now,
        site_id=node.home_site_id,
        forced=forced,
    )
    node_log.record_steps(conn, [step])
    return saved(conn, node.moved(edge.target, now))


def report(conn: Connection, body: ReportBody, now: datetime) -> EventAnswer:
    """By MAC. Raises NotFound."""
    mac = MacAddress.parse(body.mac_address)
    if (node := by_mac(conn, mac)) is None:
        raise NotFound(f"No node has the MAC address {mac}.", code="unknown_node", hint="Register it first.")
    return event(conn, node.id, body, now)


def event(conn: Connection, ref: str, body: EventBody, now: datetime) -> EventAnswer:
    """Kept whatever it says; the edge it stands for is made if there is one. Repeated, it is not kept again."""
    node = find(conn, ref, lock=True)
    id = _event_id(node, body)
    if node_log.event_exists(conn, id):
        return _answer(id, node, None)
    happening = Happening(
        id=id,
        node_id=node.id,
        event=body.event,
        message=body.message,
        metadata=body.metadata | ({"status": body.status} if body.status else {}),
        attempt=node.stage.attempt,
        occurred_at=now,
        recorded_at=now,
        site_id=node.home_site_id,
    )
    node_log.record_events(conn, [happening])
    edge = implied_edge(body.event, node.stage)
    if edge is None or not is_legal(edge):
        return _answer(id, node, edge)
    return _answer(id, _moved(conn, node, edge, "node", now, comment=body.message), edge)


def _event_id(node: StoredNode, body: EventBody) -> str:
    """The reporter's own name for the report makes the id, so that a repeat is recognised."""
    if body.report_id is None:
        return new_id()
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{node.id}/{node.stage.attempt}/{body.report_id}/{body.event}"))


def _answer(id: str, node: StoredNode, edge: Edge | None) -> EventAnswer:
    made = None if edge is None else "applied" if node.stage == edge.target else "refused"
    return EventAnswer(id=id, node_id=node.id, state=node.stage.state, attempt=node.stage.attempt, edge=made)
