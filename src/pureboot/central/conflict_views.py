"""Conflicts as people are shown them: the list, and one with both sides, both histories and what each way would do."""

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, func, or_, select

from pureboot.central import conflicts, node_rows, settlement, sites
from pureboot.central import tables as t
from pureboot.central.bodies import HistoryRow
from pureboot.central.conflict_bodies import (
    MOST_AT_ONCE,
    ChainLink,
    ConflictFilter,
    ConflictSummary,
    ConflictView,
    DecisionView,
    Preview,
    PreviewStep,
    ResolvedMany,
    ResolveMany,
    ResolveOutcome,
    StageView,
)
from pureboot.central.conflicts import Decision, Link, Status, StoredConflict
from pureboot.central.generation import SPAN
from pureboot.central.node_rows import StoredNode
from pureboot.central.settlement import Refused, Settled, Verdict
from pureboot.central.sql import page_by
from pureboot.core.errors import NotFound, PureBootError
from pureboot.core.lifecycle import Stage
from pureboot.core.reconcile import ABSENT, Resolution
from pureboot.wire.messages import ListPage

Which = Status | Literal["all"]

# Steps of central that are shown where the site's base is not known.
LAST_STEPS = 5
MOST_STEPS = 50

_NODE = (t.node.c.hostname, t.node.c.state, t.node.c.attempt, t.node.c.state_rev, t.node.c.deleted_at)
_NODE_COLUMNS = tuple(column.label(f"node_{column.name}") for column in _NODE)


_WITH_NODE = t.sync_conflict.join(t.node, t.node.c.id == t.sync_conflict.c.node_id)
_WITH_BOTH = _WITH_NODE.join(t.site, t.site.c.id == t.sync_conflict.c.site_id)
_SUMMARIES = select(t.sync_conflict, *_NODE_COLUMNS, t.site.c.name.label("site_name")).select_from(_WITH_BOTH)


def page(
    conn: Connection, status: Which, cursor: str | None, limit: int, wanted: ConflictFilter
) -> ListPage[ConflictSummary]:
    """Oldest first."""
    query = _chosen(conn, _SUMMARIES, status, wanted)
    rows, more = page_by(conn, query, t.sync_conflict.c.id, cursor, limit)
    items = [_summary(row, _conflict_of(row)) for row in rows]
    return ListPage(items=items, next_cursor=items[-1].id if more else None)


def count(conn: Connection, status: Which, wanted: ConflictFilter) -> int:
    query = _chosen(conn, select(func.count()).select_from(_WITH_NODE), status, wanted)
    return int(conn.execute(query).scalar_one())


def _chosen(conn: Connection, query: Select[Any], status: Which, wanted: ConflictFilter) -> Select[Any]:
    rows = t.sync_conflict.c
    if wanted.site:
        query = query.where(rows.site_id == sites.find(conn, wanted.site).id)
    if status != "all":
        query = query.where(rows.status == status)
    if wanted.type is not None:
        query = query.where(rows.type == wanted.type.value)
    if wanted.q and (text := wanted.q.strip().lower()):
        texts = (rows.node_mac, func.lower(t.node.c.hostname), rows.local_state, rows.central_state)
        query = query.where(or_(*(column.contains(text, autoescape=True) for column in texts)))
    return query


def _conflict_of(row: Row[Any]) -> StoredConflict:
    values = row._asdict()
    return conflicts.from_values({column.name: values[column.name] for column in t.sync_conflict.c})


def _summary(row: Row[Any], conflict: StoredConflict) -> ConflictSummary:
    pending = conflict.status == "pending"
    fields = conflicts.document(conflict).model_dump()
    if pending:
        fields["central_state"] = ABSENT if row.node_deleted_at else row.node_state
    return ConflictSummary(
        **fields,
        site_id=conflict.site_id,
        site_name=row.site_name,
        hostname=row.node_hostname,
        central_attempt=row.node_attempt if pending else None,
        state_rev=row.node_state_rev,
        created_at=conflict.created_at,
    )


def view(conn: Connection, id: str, now: datetime, *, site: str | None = None) -> ConflictView:
    """Of that site, or of any. Raises NotFound."""
    query = _chosen(conn, _SUMMARIES.where(t.sync_conflict.c.id == id), "all", ConflictFilter(site=site))
    if (row := conn.execute(query).first()) is None:
        raise NotFound(f"There is no conflict {id[:64]!r} here.", code="unknown_conflict")
    conflict = _conflict_of(row)
    node = node_rows.load(conn, [conflict.node_id])[conflict.node_id]
    return ConflictView(
        **_summary(row, conflict).model_dump(),
        node=None if node.deleted_at else node_rows.document(node),
        base=_stage(conflict.edges[0][1].origin) if conflict.edges else None,
        chain=[_link(link) for link in conflict.chain],
        local_uncertainty_seconds=conflict.local_uncertainty_ms / 1000,
        central_history=_since_base(conn, conflict),
        previews=[_preview(conflict, node, how, now) for how in Resolution] if conflict.status == "pending" else [],
        decisions=[_decision(decision) for decision in conflict.decisions],
        final=settlement.why_final(conflict, node),
    )


def _decision(decision: Decision) -> DecisionView:
    return DecisionView(
        at=decision.at,
        by=decision.by,
        comment=decision.comment,
        resolution=decision.resolution,
        before=_stage(decision.before),
        after=_stage(decision.after),
    )


def _stage(stage: Stage) -> StageView:
    return StageView(state=stage.state, attempt=stage.attempt)


def _link(link: Link) -> ChainLink:
    return ChainLink(
        item_id=link.item_id,
        origin=_stage(link.edge.origin) if link.edge else None,
        target=_stage(link.edge.target) if link.edge else None,
        triggered_by=link.edge.by if link.edge else None,
        comment=link.comment,
        occurred_at=link.occurred_at,
    )


def _since_base(conn: Connection, conflict: StoredConflict) -> list[HistoryRow]:
    """Every step is one revision, so as many as lie between the base and where the site's change met central."""
    base, met = conflict.base_rev, conflict.central_rev
    known = base is not None and base // SPAN == met // SPAN and base <= met
    count = min(met - base, MOST_STEPS) if known and base is not None else LAST_STEPS
    steps = t.node_history.c
    query = select(t.node_history).where(steps.node_id == conflict.node_id, steps.recorded_at <= conflict.created_at)
    own = [link.item_id for link in conflict.chain]
    query = query.where(or_(steps.item_id.is_(None), steps.item_id.not_in(own))).order_by(steps.seq.desc()).limit(count)
    return [HistoryRow.model_validate(row._asdict()) for row in reversed(conn.execute(query).all())]


def _preview(conflict: StoredConflict, node: StoredNode, how: Resolution, now: datetime) -> Preview:
    try:
        settled = settlement.settle(conflict, node, Verdict(how, "", "", now))
    except PureBootError as error:
        return Preview(resolution=how, end=None, steps=[], left_out=len(conflict.edges), refused=error.message)
    steps = [
        PreviewStep(
            from_state=step.edge.origin.state,
            to_state=step.edge.target.state,
            attempt=step.edge.target.attempt,
            forced=step.forced,
        )
        for step in settled.steps
    ]
    taken = settlement.taken(conflict, node, how)
    end = None if node.deleted_at else _stage(settled.node.stage)
    return Preview(resolution=how, end=end, steps=steps, left_out=len(conflict.edges) - taken, refused=None)


def resolve_many(conn: Connection, body: ResolveMany, person: str, now: datetime) -> ResolvedMany:
    """At most MOST_AT_ONCE, the oldest first."""
    ids, left = (body.ids, 0) if body.ids else _pending_ids(conn, body)
    verdict = Verdict(body.resolution, person, body.comment, now)
    outcomes = settlement.resolve_many(conn, ids, verdict, preview=body.preview)
    items = [_outcome(id, outcome) for id, outcome in outcomes.items()]
    resolved = sum(item.outcome == "resolved" for item in items)
    return ResolvedMany(preview=body.preview, items=items, resolved=resolved, refused=len(items) - resolved, left=left)


def _outcome(id: str, outcome: Settled | Refused) -> ResolveOutcome:
    mac = outcome.conflict.node_mac if outcome.conflict else ""
    match outcome:
        case Settled():
            return ResolveOutcome(id=id, node_mac=mac, outcome="resolved")
        case Refused(_, error):
            return ResolveOutcome(id=id, node_mac=mac, outcome="refused", reason=error.message)


def _pending_ids(conn: Connection, wanted: ConflictFilter) -> tuple[list[str], int]:
    query = _chosen(conn, select(t.sync_conflict.c.id).select_from(_WITH_NODE), "pending", wanted)
    ids = list(conn.execute(query.order_by(t.sync_conflict.c.id)).scalars())
    return ids[:MOST_AT_ONCE], max(0, len(ids) - MOST_AT_ONCE)
