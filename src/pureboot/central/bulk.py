"""One change to many nodes. Each is changed or refused on its own, and every refusal is told."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol

from sqlalchemy import Connection

from pureboot.central import node_list, node_rows, steps, workflows
from pureboot.central.bodies import AdminStateBody, BulkAssign, BulkMove, BulkOutcome, BulkSelection, RefusedNode
from pureboot.central.db import Database
from pureboot.central.node_rows import StoredNode
from pureboot.central.nodes import saved
from pureboot.core.errors import Invalid, PureBootError

# Nodes of one request, and of one transaction: between two of them the sites' pushes get their turn.
MOST, AT_ONCE = 10_000, 200
MOVED_ON = "Somebody changed it meanwhile, and the filter finds it no more."


class Work(Protocol):
    def changes(self, conn: Connection, node: StoredNode) -> bool:
        """Whether there is anything to do. Raises what refuses it."""

    def do(self, conn: Connection, node: StoredNode) -> None: ...


@dataclass(frozen=True, slots=True)
class Assign:
    """`workflow_id` None takes the workflow away."""

    workflow_id: str | None
    now: datetime

    def changes(self, conn: Connection, node: StoredNode) -> bool:
        return node.workflow_id != self.workflow_id

    def do(self, conn: Connection, node: StoredNode) -> None:
        if self.workflow_id is not None:
            # It may have been removed since it was named.
            workflows.named(conn, self.workflow_id)
        saved(conn, node.changed(self.now, workflow_id=self.workflow_id))


@dataclass(frozen=True, slots=True)
class Move:
    body: AdminStateBody
    person: str
    now: datetime

    def changes(self, conn: Connection, node: StoredNode) -> bool:
        return steps.edge_to(conn, node, self.body) is not None

    def do(self, conn: Connection, node: StoredNode) -> None:
        steps.make(conn, node, self.body, self.person, self.now)


async def assign(db: Database, body: BulkAssign, now: datetime) -> BulkOutcome:
    workflow = body.workflow_id
    id = (await db.read(lambda conn: workflows.named(conn, workflow))).id if workflow else None
    return await _run(db, body, Assign(id, now))


async def move(db: Database, body: BulkMove, person: str, now: datetime) -> BulkOutcome:
    return await _run(db, body, Move(AdminStateBody(state=body.state, comment=body.comment), person, now))


async def _run(db: Database, chosen: BulkSelection, work: Work) -> BulkOutcome:
    """A preview looks, and changes nothing; meanwhile others may.

    Raises what keeps it from changing anything. What comes later is told of each node that it keeps from its turn.
    """
    ids = await db.read(lambda conn: _ids(conn, chosen))
    touch = db.read if chosen.preview else db.write
    tally = _Tally()
    for start in range(0, len(ids), AT_ONCE):
        some = ids[start : start + AT_ONCE]
        try:
            tally.add(await touch(partial(_each, ids=some, chosen=chosen, work=work)))
        except PureBootError as error:
            if chosen.preview or not tally.changed:
                raise
            tally.refused += _not_done(ids[start:], error)
            break
    return BulkOutcome(
        preview=chosen.preview,
        matched=len(ids),
        changed=tally.changed,
        unchanged=tally.unchanged,
        refused=tally.refused,
    )


@dataclass(slots=True)
class _Tally:
    changed: int = 0
    unchanged: int = 0
    refused: list[RefusedNode] = field(default_factory=list)

    def add(self, other: "_Tally") -> None:
        self.changed += other.changed
        self.unchanged += other.unchanged
        self.refused += other.refused


def _not_done(ids: Sequence[str], error: PureBootError) -> list[RefusedNode]:
    message = f"Nothing was done with it: {error.message}"
    return [RefusedNode(node_id=id, code=error.code, message=message) for id in ids]


def _ids(conn: Connection, chosen: BulkSelection) -> Sequence[str]:
    if chosen.filter is None:
        names = node_rows.canonical(conn, chosen.ids or ())
        return list(dict.fromkeys(names.get(id, id) for id in chosen.ids or ()))
    ids = node_list.ids(conn, chosen.filter, MOST + 1)
    if len(ids) > MOST:
        raise Invalid(
            f"These are more than {MOST} nodes.", code="too_many_nodes", hint="Narrow the filter, say to one site."
        )
    return ids


def _each(conn: Connection, ids: Sequence[str], chosen: BulkSelection, work: Work) -> _Tally:
    tally = _Tally()
    found = node_rows.load(conn, ids, lock=not chosen.preview)
    # Under the lock: since the ids were read, and while it was waited for, others may have changed these nodes.
    fitting: Collection[str] = ids if chosen.filter is None else node_list.among(conn, chosen.filter, ids)
    for id in ids:
        node = found.get(id)
        if node is None or node.deleted_at is not None:
            tally.refused.append(RefusedNode(node_id=id, code="unknown_node", message="There is no such node."))
            continue
        mac = node.mac_addresses[0].value
        if id not in fitting:
            tally.refused.append(RefusedNode(node_id=id, mac_address=mac, code="moved_on", message=MOVED_ON))
            continue
        try:
            if not work.changes(conn, node):
                tally.unchanged += 1
                continue
            if not chosen.preview:
                work.do(conn, node)
            tally.changed += 1
        except PureBootError as error:
            tally.refused.append(RefusedNode(node_id=id, mac_address=mac, code=error.code, message=error.message))
    return tally
