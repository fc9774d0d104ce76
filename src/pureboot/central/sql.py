"""The few shapes of SQL that every module needs.

What a push or a page of the feed asks stands as a constant with parameters: to build a statement anew takes four times
as long as to execute it on SQLite.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import BindParameter, ColumnElement, Connection, Insert, Row, Select, Table, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from pureboot.core.errors import Malformed


def upsert(conn: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert; where the primary key is there already, its other columns become those of the row."""
    if rows:
        conn.execute(_upsert(conn.dialect.name, table, tuple(rows[0])), list(rows))


@cache
def _upsert(dialect: str, table: Table, names: tuple[str, ...]) -> Insert:
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    keys = {column.name for column in table.primary_key}
    new = {name: insert.excluded[name] for name in names if name not in keys}
    statement: Insert = insert.on_conflict_do_update(index_elements=sorted(keys), set_=new)
    return statement


def insert_new(conn: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Whether it is new. One of its key that somebody else is about to insert is waited for."""
    return conn.execute(_insert_new(conn.dialect.name, table), row).first() is not None


@cache
def _insert_new(dialect: str, table: Table) -> ReturningInsert[Any]:
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    # Not by the count of its rows, which is not told of an insert on PostgreSQL.
    statement: ReturningInsert[Any] = insert.on_conflict_do_nothing().returning(*table.primary_key)
    return statement


def one(name: str) -> BindParameter[Any]:
    """A parameter of a constant query."""
    return bindparam(name)


def many(name: str) -> BindParameter[Any]:
    """A parameter for `in_`, which takes a list."""
    return bindparam(name, expanding=True)


def rows_of(conn: Connection, query: Select[Any], **values: Any) -> Sequence[Row[Any]]:
    """Of a constant query; a collection among the values is for a parameter made by `many`."""
    return conn.execute(query, {name: _listed(value) for name, value in values.items()}).all()


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, Collection) and not isinstance(value, str) else value


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
    return None if cursor is None else digits(cursor)


def digits(text: str) -> int:
    """Of a cursor, as a database can hold it. Raises Malformed."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Malformed("This cursor is not one that a list gave out.", code="malformed_cursor")
    return int(text)


def tally(conn: Connection, query: Select[Any]) -> dict[str, int]:
    """Of a query for a name and a count."""
    return {row[0]: row[1] for row in conn.execute(query)}


def count(conn: Connection, table: Table, *where: ColumnElement[bool]) -> int:
    return int(conn.execute(select(func.count()).select_from(table).where(*where)).scalar_one())
