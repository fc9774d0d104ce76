"""What happened to a node: its edges (history) and its events. Both only grow."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from pureboot.central import tables as t
from pureboot.central.bodies import EventRow, HistoryRow
from pureboot.central.sql import insert_all, number, page_by
from pureboot.core.lifecycle import Edge
from pureboot.wire.messages import ListPage


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One edge, as history keeps it. `item_id`: the site's item that brought it."""

    node_id: str
    edge: Edge
    actor: str
    occurred_at: datetime
    recorded_at: datetime
    site_id: str
    comment: str = ""
    item_id: str | None = None
    forced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    id: str
    node_id: str
    event: str
    message: str
    metadata: dict[str, Any]
    attempt: int
    occurred_at: datetime
    recorded_at: datetime
    site_id: str
    item_id: str | None = None


def record_steps(conn: Connection, steps: Collection[Step]) -> None:
    insert_all(conn, insert(t.node_history), [_values(step) for step in steps])


def _values(step: Step) -> dict[str, Any]:
    return {
        "node_id": step.node_id,
        "from_state": step.edge.origin.state.value,
        "to_state": step.edge.target.state.value,
        "attempt": step.edge.target.attempt,
        "triggered_by": step.edge.by.value,
        "actor": step.actor,
        "comment": step.comment,
        "occurred_at": step.occurred_at,
        "recorded_at": step.recorded_at,
        "site_id": step.site_id,
        "item_id": step.item_id,
        "forced": step.forced,
    }


def record_events(conn: Connection, events: Collection[Happening]) -> None:
    insert_all(conn, insert(t.node_event), [_event_values(event) for event in events])


def _event_values(event: Happening) -> dict[str, Any]:
    # Not asdict, which copies deeply and costs a fifth of a push.
    return {name: getattr(event, name) for name in Happening.__dataclass_fields__}


def event_exists(conn: Connection, id: str) -> bool:
    return conn.execute(select(t.node_event.c.seq).where(t.node_event.c.id == id)).first() is not None


def last_origin(conn: Connection, node_id: str, state: str) -> str | None:
    """The state from which the node last came into `state`."""
    rows = t.node_history.c
    query = select(rows.from_state).where(rows.node_id == node_id, rows.to_state == state)
    return conn.execute(query.order_by(rows.seq.desc()).limit(1)).scalar()


def history(conn: Connection, node_id: str, cursor: str | None, limit: int) -> ListPage[HistoryRow]:
    query = select(t.node_history).where(t.node_history.c.node_id == node_id)
    rows, more = page_by(conn, query, t.node_history.c.seq, number(cursor), limit)
    items = [HistoryRow.model_validate(row._asdict()) for row in rows]
    return ListPage(items=items, next_cursor=str(items[-1].seq) if more else None)


def events(conn: Connection, node_id: str, cursor: str | None, limit: int) -> ListPage[EventRow]:
    query = select(t.node_event).where(t.node_event.c.node_id == node_id)
    rows, more = page_by(conn, query, t.node_event.c.seq, number(cursor), limit)
    items = [EventRow.model_validate(row._asdict()) for row in rows]
    return ListPage(items=items, next_cursor=str(items[-1].seq) if more else None)
