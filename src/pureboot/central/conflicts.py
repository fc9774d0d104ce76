"""Conflicts as they are stored: where a site's change met what central did meanwhile, and what was decided of it.

Nothing is dropped: the site's chain of edges and every decision stay in the row, whoever wins.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, or_, select

from pureboot.central import tables as t
from pureboot.central.positions import publish
from pureboot.central.sql import many, one, rows_of, upsert
from pureboot.core.lifecycle import By, Edge, NodeState, Stage
from pureboot.core.reconcile import ConflictType, Resolution, Strategy
from pureboot.wire.messages import ConflictDocument

Status = Literal["pending", "resolved"]


@dataclass(frozen=True, slots=True)
class Link:
    """One item of a site's chain; a registration brings no edge."""

    item_id: str
    edge: Edge | None
    comment: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who decided what, when and why. `before` and `after`: the node's stage; `state_rev` and `chain`, as they were
    after it: where either has moved on, something has happened since. `resolution` None: a decision was taken back."""

    at: datetime
    by: str
    comment: str
    resolution: Resolution | None
    before: Stage
    after: Stage
    state_rev: int
    chain: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredConflict:
    """`base_rev`: what the site's change was made on, where central knows that; `central_rev`: where the node stood.
    `expected_rev`: once the whole chain took effect, the revision that later items of it are made on."""

    id: str
    site_id: str
    node_id: str
    node_mac: str
    agent_id: str
    type: ConflictType
    base_state: str | None
    local_state: str
    central_state: str
    base_rev: int | None
    central_rev: int
    chain: tuple[Link, ...]
    decisions: tuple[Decision, ...] = ()
    strategy: Strategy
    status: Status
    resolution: Resolution | None = None
    resolved_by: str | None = None
    resolved_at: datetime | None = None
    comment: str = ""
    expected_rev: int | None = None
    version: int = 1
    local_updated_at: datetime
    local_uncertainty_ms: int
    central_updated_at: datetime
    created_at: datetime
    updated_at: datetime

    @property
    def takes_part(self) -> bool:
        """Whether further items of the chain share this conflict's outcome; where all of it took effect, they count
        again."""
        return self.expected_rev is None

    @property
    def edges(self) -> list[tuple[Link, Edge]]:
        return [(link, link.edge) for link in self.chain if link.edge is not None]

    @property
    def local_stage(self) -> Stage | None:
        """Where the site has the machine; None where its chain brought no edge."""
        return self.edges[-1][1].target if self.edges else None

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

    def decided(self, decision: Decision, expected_rev: int | None) -> "StoredConflict":
        """Settled, or (by a decision without a resolution) open again."""
        settled = decision.resolution is not None
        return replace(
            self,
            status="resolved" if settled else "pending",
            resolution=decision.resolution,
            resolved_by=decision.by if settled else None,
            resolved_at=decision.at if settled else None,
            comment=decision.comment,
            decisions=(*self.decisions, decision),
            expected_rev=expected_rev,
            version=self.version + 1,
            updated_at=decision.at,
        )


def load(conn: Connection, *where: ColumnElement[bool]) -> dict[str, StoredConflict]:
    return {row.id: from_values(row._asdict()) for row in conn.execute(select(t.sync_conflict).where(*where))}


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
    return {row.id: from_values(row._asdict()) for row in rows}


def from_values(values: Mapping[str, Any]) -> StoredConflict:
    """Of a row's columns."""
    return StoredConflict(
        **dict(values)
        | {
            "type": ConflictType(values["type"]),
            "strategy": Strategy(values["strategy"]),
            "resolution": Resolution(values["resolution"]) if values["resolution"] else None,
            "chain": tuple(_link_from(link) for link in values["chain"]),
            "decisions": tuple(_decision_from(decision) for decision in values["decisions"]),
        }
    )


def save(conn: Connection, conflicts: Collection[StoredConflict]) -> None:
    """And tell the agent of the site."""
    upsert(conn, t.sync_conflict, [_values(conflict) for conflict in conflicts])
    for conflict in conflicts:
        publish(conn, conflict.site_id, "conflict", conflict.id, conflict.version)


def _values(conflict: StoredConflict) -> dict[str, Any]:
    columns = {column.name: getattr(conflict, column.name) for column in t.sync_conflict.c}
    return columns | {
        "chain": [_link_to(link) for link in conflict.chain],
        "decisions": [_decision_to(decision) for decision in conflict.decisions],
    }


def _link_to(link: Link) -> dict[str, Any]:
    values: dict[str, Any] = {"item_id": link.item_id, "comment": link.comment, "at": link.occurred_at.isoformat()}
    if edge := link.edge:
        values["from"], values["to"] = _pair(edge.origin), _pair(edge.target)
        values["by"] = edge.by
    return values


def _link_from(values: dict[str, Any]) -> Link:
    edge = Edge(_stage(values["from"]), _stage(values["to"]), By(values["by"])) if "by" in values else None
    return Link(values["item_id"], edge, values["comment"], datetime.fromisoformat(values["at"]))


def _decision_to(decision: Decision) -> dict[str, Any]:
    return {
        "at": decision.at.isoformat(),
        "by": decision.by,
        "comment": decision.comment,
        "resolution": decision.resolution,
        "before": _pair(decision.before),
        "after": _pair(decision.after),
        "state_rev": decision.state_rev,
        "chain": decision.chain,
    }


def _decision_from(values: dict[str, Any]) -> Decision:
    resolution = values["resolution"]
    return Decision(
        **values
        | {
            "at": datetime.fromisoformat(values["at"]),
            "resolution": Resolution(resolution) if resolution else None,
            "before": _stage(values["before"]),
            "after": _stage(values["after"]),
        }
    )


def _pair(stage: Stage) -> list[Any]:
    return [stage.state.value, stage.attempt]


def _stage(pair: list[Any]) -> Stage:
    return Stage(NodeState(pair[0]), pair[1])


def document(conflict: StoredConflict) -> ConflictDocument:
    return ConflictDocument(
        id=conflict.id,
        version=conflict.version,
        node_id=conflict.node_id,
        node_mac=conflict.node_mac,
        conflict_type=conflict.type.value,
        base_state=conflict.base_state,
        local_state=conflict.local_state,
        local_attempt=stage.attempt if (stage := conflict.local_stage) else None,
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
        comment=conflict.comment,
    )
