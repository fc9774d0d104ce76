"""The few shapes of SQL that every module needs."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Insert, Row, Select, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from pureboot.core.errors import Malformed


def upsert(conn: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert; where the primary key is there already, its other columns become those of the row."""
    if not rows:
        return
    insert = (postgresql if conn.dialect.name == "postgresql" else sqlite).insert(table)
    keys = {column.name for column in table.primary_key}
    new = {name: insert.excluded[name] for name in rows[0] if name not in keys}
    conn.execute(insert.on_conflict_do_update(index_elements=sorted(keys), set_=new), list(rows))


Q = TypeVar("Q", bound=Select[Any])


def locked(query: Q) -> Q:
    """The rows stay as read until the transaction ends; rows that only refer to them may be added meanwhile."""
    return query.with_for_update(key_share=True)


def insert_all(conn: Connection, insert: Insert, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        conn.execute(insert, list(rows))


def page_by(conn: Connection, query: Select[Any], column: Any, cursor: Any, limit: int) -> tuple[list[Row[Any]], bool]:
    """Rows in the order of `column` after `cursor`, at most `limit`, and whether more follow."""
    if cursor is not None:
        query = query.where(column > cursor)
    rows = list(conn.execute(query.order_by(column).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def number(cursor: str | None) -> int | None:
    """A cursor that is a number. Raises Malformed."""
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise Malformed("This cursor is not one that a list gave out.", code="malformed_cursor")
    return int(cursor)


def tally(conn: Connection, query: Select[Any]) -> dict[str, int]:
    """Of a query for a name and a count."""
    return {row[0]: row[1] for row in conn.execute(query)}


def count(conn: Connection, table: Table, *where: ColumnElement[bool]) -> int:
    return int(conn.execute(select(func.count()).select_from(table).where(*where)).scalar_one())
