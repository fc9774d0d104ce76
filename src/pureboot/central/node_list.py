"""Finding nodes: by where they are, how they are, and what they are called. It is fast at a hundred thousand."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, func, select

from pureboot.central import node_rows, sites, workflows
from pureboot.central import tables as t
from pureboot.central.bodies import NodeFilter
from pureboot.central.node_rows import document
from pureboot.central.sql import page_by, tally
from pureboot.core.lifecycle import NodeState
from pureboot.core.mac import MacAddress
from pureboot.wire.messages import ListPage, NodeDocument

# As people write a MAC, or the beginning of one.
_MAC_LIKE = re.compile(r"[0-9a-fA-F]{2}(?:[:.-]?[0-9a-fA-F]{1,2}){1,5}")


# Beyond, nobody asks how many there are exactly.
COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Found:
    """What a filter means in this database. Raises NotFound or Invalid while it is made."""

    where: tuple[ColumnElement[bool], ...]

    def ids(self) -> Select[Any]:
        return select(t.node.c.id).where(*self.where)


def find(conn: Connection, wanted: NodeFilter) -> Found:
    columns = t.node.c
    where: list[ColumnElement[bool]] = [columns.deleted_at.is_(None)]
    if wanted.mac is not None:
        where.append(columns.id.in_(_with_mac(t.node_mac.c.mac == MacAddress.parse(wanted.mac).value)))
    if wanted.state is not None:
        where.append(_of(wanted, columns.state) == NodeState.parse(wanted.state).value)
    if wanted.site is not None:
        where.append(columns.home_site_id == sites.find(conn, wanted.site).id)
    if wanted.workflow is not None:
        where.append(_of(wanted, columns.workflow_id) == workflows.find(conn, wanted.workflow).id)
    if wanted.q.strip():
        where.append(_says(conn, wanted.q.strip()))
    return Found(tuple(where))


def _of(wanted: NodeFilter, column: Column[str]) -> ColumnElement[str]:
    """A site has few nodes, so its index is the one to go by: written like this, SQLite sees no other."""
    return column if wanted.site is None else func.coalesce(column, "")


def _with_mac(condition: ColumnElement[bool]) -> Select[Any]:
    return select(t.node_mac.c.node_id).where(condition)


def _says(conn: Connection, text: str) -> ColumnElement[bool]:
    by_name = _contains(conn, t.node.c.hostname, text)
    if not _MAC_LIKE.fullmatch(text):
        return by_name
    digits = re.sub(r"[:.-]", "", text).lower()
    colons = ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))
    named = select(t.node.c.id).where(t.node.c.deleted_at.is_(None), by_name)
    return t.node.c.id.in_(named.union(_with_mac(t.node_mac.c.mac.contains(colons, autoescape=True))))


def _contains(conn: Connection, column: Column[str], text: str) -> ColumnElement[bool]:
    """In any case of its letters. SQLite's LIKE minds none by itself; to make them small first takes twice as long."""
    if conn.dialect.name == "sqlite":
        return column.contains(text, autoescape=True)
    return column.icontains(text, autoescape=True)


def page(conn: Connection, wanted: NodeFilter, cursor: str | None, limit: int) -> ListPage[NodeDocument]:
    """First the ids, which lie in an index, then the rows of one page."""
    rows, more = page_by(conn, find(conn, wanted).ids(), t.node.c.id, cursor, limit)
    ids = [row.id for row in rows]
    items = [document(node) for node in node_rows.load(conn, ids).values()]
    return ListPage(items=items, next_cursor=ids[-1] if more else None)


def first_page(conn: Connection, wanted: NodeFilter, limit: int) -> tuple[ListPage[NodeDocument], int]:
    """And how many there are, as far as `COUNTED` goes: one look through an index says both."""
    found = ids(conn, wanted, COUNTED + 1)
    shown = found[:limit]
    items = [document(node) for node in node_rows.load(conn, shown).values()]
    return ListPage(items=items, next_cursor=shown[-1] if len(found) > limit else None), len(found)


def states(conn: Connection, wanted: NodeFilter) -> dict[str, int]:
    """How many are in each state."""
    where = find(conn, wanted).where
    return tally(conn, select(t.node.c.state, func.count()).where(*where).group_by(t.node.c.state))


def ids(conn: Connection, wanted: NodeFilter, limit: int) -> Sequence[str]:
    return list(conn.execute(find(conn, wanted).ids().order_by(t.node.c.id).limit(limit)).scalars())


def among(conn: Connection, wanted: NodeFilter, some: Collection[str]) -> set[str]:
    """Those of the ids `some` that the filter finds."""
    return set(conn.execute(find(conn, wanted).ids().where(t.node.c.id.in_(some))).scalars())
