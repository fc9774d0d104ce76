"""What happened to a node, its edges and its events on one line, with when central learned of each.

In the order in which things happened, the newest first: what a site did while it was cut off stands where it belongs,
between what central did meanwhile.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Table, and_, literal, or_, select

from pureboot.central import tables as t
from pureboot.central.bodies import TimelineEntry
from pureboot.central.sql import digits
from pureboot.core.errors import Malformed
from pureboot.wire.messages import ListPage

# Of what happened in the same moment, an event stands before the edge that it made.
_EVENT, _STEP = 0, 1


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    occurred_at: datetime
    kind: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> "_Place":
        try:
            first, kind, seq = text.split(".")
            micros = int(first)
            when = datetime.fromtimestamp(micros / 1_000_000, UTC).replace(microsecond=micros % 1_000_000)
            return cls(when, digits(kind), digits(seq))
        except (ValueError, OverflowError, OSError):
            raise Malformed("This cursor is not one that a list gave out.", code="malformed_cursor") from None

    def __str__(self) -> str:
        whole = int(self.occurred_at.replace(microsecond=0).timestamp())
        return f"{whole * 1_000_000 + self.occurred_at.microsecond}.{self.kind}.{self.seq}"


def page(conn: Connection, node_id: str, cursor: str | None, limit: int) -> ListPage[TimelineEntry]:
    before = _Place.parse(cursor) if cursor else None
    rows = [
        (_Place(row.occurred_at, kind, row.seq), row)
        for kind, table in ((_EVENT, t.node_event), (_STEP, t.node_history))
        for row in _newest(conn, table, kind, node_id, before, limit + 1)
    ]
    rows.sort(key=lambda each: each[0], reverse=True)
    shown = rows[:limit]
    items = [_entry(place.kind, row) for place, row in shown]
    return ListPage(items=items, next_cursor=str(shown[-1][0]) if len(rows) > limit else None)


def _newest(
    conn: Connection, table: Table, kind: int, node_id: str, before: _Place | None, limit: int
) -> Iterable[Row[Any]]:
    columns = table.c
    query = select(table).where(columns.node_id == node_id)
    if before is not None:
        same = columns.seq < before.seq if kind == before.kind else literal(kind < before.kind)
        query = query.where(
            or_(columns.occurred_at < before.occurred_at, and_(columns.occurred_at == before.occurred_at, same))
        )
    return conn.execute(query.order_by(columns.occurred_at.desc(), columns.seq.desc()).limit(limit))


def _entry(kind: int, row: Row[Any]) -> TimelineEntry:
    told = {
        "occurred_at": row.occurred_at,
        "recorded_at": row.recorded_at,
        "learned_after_seconds": max((row.recorded_at - row.occurred_at).total_seconds(), 0.0),
        "site_id": row.site_id,
        "item_id": row.item_id,
        "seq": row.seq,
        "attempt": row.attempt,
    }
    if kind == _EVENT:
        return TimelineEntry(kind="event", event=row.event, message=row.message, metadata=row.metadata, **told)
    return TimelineEntry(
        kind="step",
        from_state=row.from_state,
        to_state=row.to_state,
        triggered_by=row.triggered_by,
        actor=row.actor,
        message=row.comment,
        forced=row.forced,
        **told,
    )
