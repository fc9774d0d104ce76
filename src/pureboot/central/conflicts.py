"""Conflicts: where a site's change met what central did meanwhile, and how a person settles it.

Nothing is dropped: the site's chain of edges stays in the row, whoever wins.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, or_, select

from pureboot.central import node_rows
from pureboot.central import tables as t
from pureboot.central.node_log import Step, record_steps
from pureboot.central.node_rows import StoredNode
from pureboot.central.positions import publish
from pureboot.central.sql import many, one, page_by, rows_of, upsert
from pureboot.core.errors import Clash, NotFound
from pureboot.core.lifecycle import By, Edge, NodeState, Stage
from pureboot.core.reconcile import ConflictType, Resolution, Strategy, may_keep_local, replay
from pureboot.wire.messages import ConflictDocument, ListPage

Status = Literal["pending", "resolved"]

# Settling these moves a node between sites or makes one of two; edges alone cannot.
CLAIMS = (ConflictType.SITE_CLAIM, ConflictType.MAC_COLLISION)


@dataclass(frozen=True, slots=True)
class Link:
    """One item of a site's chain; a registration brings no edge."""

    item_id: str
    edge: Edge | None
    comment: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredConflict:
    """`expected_rev`: after keep_local, the revision that later items of the chain are made on."""

    id: str
    site_id: str
    node_id: str
    node_mac: str
    agent_id: str
    type: ConflictType
    base_state: str | None
    local_state: str
    central_state: str
    chain: tuple[Link, ...]
    strategy: Strategy
    status: Status
    resolution: Resolution | None = None
    resolved_by: str | None = None
    resolved_at: datetime | None = None
    comment: str = ""
    expected_rev: int | None = None
    version: int = 1
    local_updated_at: datetime
    central_updated_at: datetime
    created_at: datetime
    updated_at: datetime

    @property
    def takes_part(self) -> bool:
        """Whether further items of the chain share this conflict's outcome; after keep_local they count again."""
        return self.resolution is not Resolution.KEEP_LOCAL

    def joined(self, link: Link, now: datetime) -> "StoredConflict":
        local = link.edge.target.state.value if link.edge else self.local_state
        return replace(
            self,
            chain=(*self.chain, link),
            local_state=local,
            local_updated_at=link.occurred_at,
            version=self.version + 1,
            updated_at=now,
        )

    def resolved(self, how: Resolution, by: str, now: datetime, **fields: Any) -> "StoredConflict":
        return replace(
            self,
            status="resolved",
            resolution=how,
            resolved_by=by,
            resolved_at=now,
            version=self.version + 1,
            updated_at=now,
            **fields,
        )


def load(conn: Connection, *where: ColumnElement[bool]) -> dict[str, StoredConflict]:
    return {row.id: _from_row(row) for row in conn.execute(select(t.sync_conflict).where(*where))}


_SITE, _NODES, _IDS = one("site"), many("nodes"), many("ids")
_OPEN = t.sync_conflict.c.node_id.in_(_NODES) & (t.sync_conflict.c.status == "pending")
_CONCERNING = select(t.sync_conflict).where(
    t.sync_conflict.c.site_id == _SITE, or_(t.sync_conflict.c.id.in_(_IDS), _OPEN)
)


def concerning(
    conn: Connection, site_id: str, nodes: Collection[str], ids: Collection[str]
) -> dict[str, StoredConflict]:
    """Of a site: those that are open about `nodes`, and those of `ids`, settled or not."""
    rows = rows_of(conn, _CONCERNING, site=site_id, nodes=nodes, ids=ids)
    return {row.id: _from_row(row) for row in rows}


def _from_row(row: Row[Any]) -> StoredConflict:
    values = row._asdict()
    return StoredConflict(
        **values
        | {
            "type": ConflictType(row.type),
            "strategy": Strategy(row.strategy),
            "resolution": Resolution(row.resolution) if row.resolution else None,
            "chain": tuple(_link_from(link) for link in row.chain),
        }
    )


def save(conn: Connection, conflicts: Collection[StoredConflict]) -> None:
    """And tell the agent of the site."""
    upsert(conn, t.sync_conflict, [_values(conflict) for conflict in conflicts])
    for conflict in conflicts:
        publish(conn, conflict.site_id, "conflict", conflict.id, conflict.version)


def _values(conflict: StoredConflict) -> dict[str, Any]:
    columns = {column.name: getattr(conflict, column.name) for column in t.sync_conflict.c}
    return columns | {"chain": [_link_to(link) for link in conflict.chain]}


def _link_to(link: Link) -> dict[str, Any]:
    values: dict[str, Any] = {"item_id": link.item_id, "comment": link.comment, "at": link.occurred_at.isoformat()}
    if edge := link.edge:
        values["from"] = [edge.origin.state, edge.origin.attempt]
        values["to"] = [edge.target.state, edge.target.attempt]
        values["by"] = edge.by
    return values


def _link_from(values: dict[str, Any]) -> Link:
    edge = Edge(_stage(values["from"]), _stage(values["to"]), By(values["by"])) if "by" in values else None
    return Link(values["item_id"], edge, values["comment"], datetime.fromisoformat(values["at"]))


def _stage(pair: list[Any]) -> Stage:
    return Stage(NodeState(pair[0]), pair[1])


def document(conflict: StoredConflict) -> ConflictDocument:
    return ConflictDocument(
        id=conflict.id,
        node_id=conflict.node_id,
        node_mac=conflict.node_mac,
        conflict_type=conflict.type.value,
        base_state=conflict.base_state,
        local_state=conflict.local_state,
        central_state=conflict.central_state,
        local_chain=[link.item_id for link in conflict.chain],
        local_updated_at=conflict.local_updated_at,
        central_updated_at=conflict.central_updated_at,
        strategy=conflict.strategy,
        status=conflict.status,
        resolved=conflict.status == "resolved",
        resolution=conflict.resolution,
        resolved_by=conflict.resolved_by,
        resolved_at=conflict.resolved_at,
    )


def page(
    conn: Connection, site_id: str, status: Status | Literal["all"], cursor: str | None, limit: int
) -> ListPage[ConflictDocument]:
    query = select(t.sync_conflict).where(t.sync_conflict.c.site_id == site_id)
    if status != "all":
        query = query.where(t.sync_conflict.c.status == status)
    rows, more = page_by(conn, query, t.sync_conflict.c.id, cursor, limit)
    items = [document(_from_row(row)) for row in rows]
    return ListPage(items=items, next_cursor=items[-1].id if more else None)


def resolve(
    conn: Connection, site_id: str, id: str, how: Resolution, person: str, comment: str, now: datetime
) -> ConflictDocument:
    """A person's word. It is an ordinary change of the node and comes to its site by the feed, whichever side wins."""
    node_id = _pending(conn, site_id, id).node_id
    node = node_rows.load(conn, [node_id], lock=True)[node_id]
    # Again, under the node's lock: somebody else may have been quicker.
    conflict = _pending(conn, site_id, id)
    after, steps = _outcome(conflict, node, how, person, comment, now)
    node_rows.save(conn, [after])
    record_steps(conn, steps)
    if after.deleted_at is None:
        node_rows.announce(conn, after)
    settled = conflict.resolved(
        how, person, now, comment=comment, expected_rev=after.state_rev if how is Resolution.KEEP_LOCAL else None
    )
    save(conn, [settled])
    return document(settled)


def _pending(conn: Connection, site_id: str, id: str) -> StoredConflict:
    mine = (t.sync_conflict.c.id == id, t.sync_conflict.c.site_id == site_id)
    conflict = load(conn, *mine).get(id)
    if conflict is None:
        raise NotFound(f"This site has no conflict {id[:64]!r}.", code="unknown_conflict")
    if conflict.status == "resolved":
        raise Clash(
            f"This conflict is resolved already: {conflict.resolution}, by {conflict.resolved_by}.",
            code="already_resolved",
        )
    return conflict


def _outcome(
    conflict: StoredConflict, node: StoredNode, how: Resolution, person: str, comment: str, now: datetime
) -> tuple[StoredNode, list[Step]]:
    if how is Resolution.MERGE:
        raise Clash("merge is not available yet.", code="not_available", hint="Use keep_local or keep_central.")
    if how is Resolution.KEEP_LOCAL:
        _check_local_can_win(conflict, node)
        node, steps = _replayed(conflict, node, person, comment, now)
        if steps:
            return node, steps
    return node.changed(now), []


def _check_local_can_win(conflict: StoredConflict, node: StoredNode) -> None:
    if conflict.type in CLAIMS:
        raise Clash(
            f"keep_local cannot settle a {conflict.type} yet.",
            code="not_available",
            hint="Use keep_central; move a node with PATCH /api/v1/nodes/{id}, field home_site_id.",
        )
    if node.deleted_at is not None:
        raise Clash("Central has deleted this node.", code="node_deleted", hint="Use keep_central; it registers anew.")
    if not may_keep_local(node.stage):
        raise Clash("This node is retired at central.", code="node_retired", hint="Use keep_central.")


def _replayed(
    conflict: StoredConflict, node: StoredNode, person: str, comment: str, now: datetime
) -> tuple[StoredNode, list[Step]]:
    steps: list[Step] = []
    for link in conflict.chain:
        for edge, forced in replay(node.stage, [link.edge] if link.edge else []):
            node = node.moved(edge.target, now)
            steps.append(
                Step(
                    node_id=node.id,
                    edge=edge,
                    actor=person,
                    comment=comment or link.comment,
                    occurred_at=link.occurred_at,
                    recorded_at=now,
                    site_id=conflict.site_id,
                    item_id=link.item_id,
                    forced=forced,
                )
            )
    return node, steps
