"""Nodes as they are stored: read as a set, changed as values, written as a set."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from pureboot.central import tables as t
from pureboot.central.positions import publish
from pureboot.central.sql import insert_all, locked, many, rows_of
from pureboot.core.lifecycle import NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.node import LocalBoot, Node
from pureboot.wire.messages import NodeDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNode(Node):
    """`stage_at`: when `stage` last changed here."""

    created_at: datetime
    updated_at: datetime
    stage_at: datetime
    last_seen: datetime | None = None
    deleted_at: datetime | None = None

    def changed(self, now: datetime, **fields: Any) -> "StoredNode":
        return replace(self, version=self.version + 1, updated_at=now, **fields)

    def moved(self, stage: Stage, now: datetime) -> "StoredNode":
        return self.changed(now, stage=stage, state_rev=self.state_rev + 1, stage_at=now)

    def lives_at(self, site_id: str) -> bool:
        return self.deleted_at is None and self.home_site_id == site_id


_ALIASES = select(t.node_alias.c.alias, t.node_alias.c.node_id).where(t.node_alias.c.alias.in_(many("refs")))
_OWNERS = select(t.node_mac.c.mac, t.node_mac.c.node_id).where(t.node_mac.c.mac.in_(many("macs")))
_NODES = select(t.node).where(t.node.c.id.in_(many("ids"))).order_by(t.node.c.id)
_NODES_LOCKED = locked(_NODES)
_MACS = select(t.node_mac.c.node_id, t.node_mac.c.mac).where(t.node_mac.c.node_id.in_(many("ids")))
_MACS = _MACS.order_by(t.node_mac.c.position)


def canonical(conn: Connection, refs: Collection[str]) -> dict[str, str]:
    """The node behind each alias among `refs`."""
    return {row.alias: row.node_id for row in rows_of(conn, _ALIASES, refs=refs)}


def owners(conn: Connection, macs: Collection[str]) -> dict[str, str]:
    """The node of each MAC among `macs` that has one."""
    return {row.mac: row.node_id for row in rows_of(conn, _OWNERS, macs=macs)} if macs else {}


def load(conn: Connection, ids: Collection[str], *, lock: bool = False) -> dict[str, StoredNode]:
    """Those of `ids` that exist, deleted ones too; locked in the order of their ids."""
    rows = rows_of(conn, _NODES_LOCKED if lock else _NODES, ids=ids)
    macs = macs_of(conn, [row.id for row in rows])
    return {row.id: from_row(row, macs[row.id]) for row in rows}


def macs_of(conn: Connection, ids: Collection[str]) -> defaultdict[str, list[MacAddress]]:
    found: defaultdict[str, list[MacAddress]] = defaultdict(list)
    for row in rows_of(conn, _MACS, ids=ids):
        found[row.node_id].append(MacAddress(row.mac))
    return found


def from_row(row: Row[Any], macs: list[MacAddress]) -> StoredNode:
    return StoredNode(
        id=row.id,
        # A deleted node has none any more, but people know it by its first.
        mac_addresses=tuple(macs) or (MacAddress(row.mac_address),),
        home_site_id=row.home_site_id,
        stage=Stage(NodeState(row.state), row.attempt),
        version=row.version,
        state_rev=row.state_rev,
        hostname=row.hostname,
        workflow_id=row.workflow_id,
        group_id=row.group_id,
        tags=tuple(row.tags),
        facts=row.facts,
        local_boot=LocalBoot(row.local_boot) if row.local_boot else None,
        created_at=row.created_at,
        updated_at=row.updated_at,
        stage_at=row.stage_at,
        last_seen=row.last_seen,
        deleted_at=row.deleted_at,
    )


def _values(node: StoredNode) -> dict[str, Any]:
    return {
        "id": node.id,
        "home_site_id": node.home_site_id,
        "mac_address": node.mac_addresses[0].value,
        "state": node.stage.state.value,
        "attempt": node.stage.attempt,
        "version": node.version,
        "state_rev": node.state_rev,
        "hostname": node.hostname,
        "workflow_id": node.workflow_id,
        "group_id": node.group_id,
        "tags": list(node.tags),
        "facts": node.facts,
        "local_boot": node.local_boot,
        "last_seen": node.last_seen,
        "stage_at": node.stage_at,
        "created_at": node.created_at,
        "updated_at": node.updated_at,
        "deleted_at": node.deleted_at,
    }


def add(conn: Connection, nodes: Collection[StoredNode]) -> None:
    insert_all(conn, insert(t.node), [_values(node) for node in nodes])
    insert_all(conn, insert(t.node_mac), [row for node in nodes for row in _mac_rows(node)])


def save(conn: Connection, nodes: Collection[StoredNode]) -> None:
    """Their MACs too; those of a deleted node are free again."""
    if not nodes:
        return
    rows = [_values(node) for node in nodes]
    columns: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name != "id"}
    conn.execute(
        update(t.node).where(t.node.c.id == bindparam("key")).values(columns),
        [{"key": row.pop("id"), **row} for row in rows],
    )
    _save_macs(conn, nodes)


def saw(conn: Connection, nodes: Collection[StoredNode]) -> None:
    """Nothing else of them changed."""
    if nodes:
        conn.execute(
            update(t.node).where(t.node.c.id == bindparam("key")).values(last_seen=bindparam("seen")),
            [{"key": node.id, "seen": node.last_seen} for node in nodes],
        )


def _save_macs(conn: Connection, nodes: Collection[StoredNode]) -> None:
    stored = macs_of(conn, [node.id for node in nodes])
    other = [node for node in nodes if tuple(stored[node.id]) != _held(node)]
    if other:
        conn.execute(delete(t.node_mac).where(t.node_mac.c.node_id.in_([node.id for node in other])))
        insert_all(conn, insert(t.node_mac), [row for node in other for row in _mac_rows(node)])


def _held(node: StoredNode) -> tuple[MacAddress, ...]:
    return () if node.deleted_at else node.mac_addresses


def _mac_rows(node: StoredNode) -> Iterable[dict[str, Any]]:
    return ({"mac": mac.value, "node_id": node.id, "position": i} for i, mac in enumerate(_held(node)))


def announce(conn: Connection, node: StoredNode) -> None:
    """Tell the agent of its site."""
    op: Any = "delete" if node.deleted_at else "upsert"
    publish(conn, node.home_site_id, "node", node.id, node.version, op)


def document(node: StoredNode) -> NodeDocument:
    return NodeDocument(
        id=node.id,
        mac_address=node.mac_addresses[0].value,
        mac_addresses=[mac.value for mac in node.mac_addresses],
        hostname=node.hostname,
        state=node.stage.state,
        attempt=node.stage.attempt,
        version=node.version,
        state_rev=node.state_rev,
        home_site_id=node.home_site_id,
        group_id=node.group_id,
        workflow_id=node.workflow_id,
        tags=list(node.tags),
        facts=node.facts,
        local_boot=node.local_boot,
        last_seen=node.last_seen,
        created_at=node.created_at,
        updated_at=node.updated_at,
    )
