"""What an agent is told: everything its site is concerned with, each thing once, at the position of its last change."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, Row, and_, or_, select

from pureboot.central import conflicts, content, node_rows, sites, workflows
from pureboot.central import tables as t
from pureboot.central.db import Database
from pureboot.central.generation import generation_of
from pureboot.central.positions import EVERYWHERE
from pureboot.core.errors import Malformed
from pureboot.wire.messages import FeedItem, FeedPage


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an agent has read: its site's changes, and those that concern every site."""

    site: int
    everywhere: int

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        if text in ("", "0"):
            return cls(0, 0)
        site, _, everywhere = text.partition(".")
        if all(part.isascii() and part.isdigit() and len(part) <= 18 for part in (site, everywhere)):
            return cls(int(site), int(everywhere))
        raise Malformed("This cursor is not one that the feed gave out.", code="malformed_cursor", hint="Start at 0.")

    def __str__(self) -> str:
        return f"{self.site}.{self.everywhere}"


async def follow(db: Database, site_id: str, since: Cursor, limit: int, wait: float) -> FeedPage:
    """The next page; where there is none yet, the first that comes within `wait` seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    with db.bell.listen(site_id, EVERYWHERE) as news:
        while True:
            news.clear()
            found = await db.read(lambda conn: page(conn, site_id, since, limit))
            left = end - loop.time()
            if found.items or left <= 0 or db.bell.closed:
                return found
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), left)


def page(conn: Connection, site_id: str, since: Cursor, limit: int) -> FeedPage:
    """What every site gets comes first, so that a node's workflow is there before the node."""
    shared = _rows(conn, EVERYWHERE, since.everywhere, limit + 1)
    own = _rows(conn, site_id, since.site, limit + 1 - min(len(shared), limit))
    rows = (shared + own)[:limit]
    end = Cursor(
        max((row.pos for row in rows if row.site == site_id), default=since.site),
        max((row.pos for row in rows if row.site == EVERYWHERE), default=since.everywhere),
    )
    return FeedPage(
        generation=generation_of(conn),
        items=_items(conn, rows),
        next=str(end),
        more=len(shared) + len(own) > len(rows),
    )


def _rows(conn: Connection, scope: str, since: int, limit: int) -> list[Row[Any]]:
    query = select(t.feed).where(t.feed.c.site == scope, t.feed.c.pos > since)
    return list(conn.execute(query.order_by(t.feed.c.pos).limit(limit)))


def _items(conn: Connection, rows: Collection[Row[Any]]) -> list[FeedItem]:
    documents = {
        kind: find(conn, [row.id for row in rows if row.type == kind and row.op == "upsert"])
        for kind, find in _DOCUMENTS.items()
        if any(row.type == kind for row in rows)
    }
    return [
        FeedItem(
            pos=row.pos,
            type=row.type,
            op=row.op,
            id=row.id,
            version=row.version,
            doc=documents[row.type][row.id] if row.op == "upsert" else {},
        )
        for row in rows
    ]


_Documents = dict[str, dict[str, Any]]


def _dumped(documents: dict[str, BaseModel]) -> _Documents:
    return {id: document.model_dump(mode="json") for id, document in documents.items()}


def _nodes(conn: Connection, ids: Collection[str]) -> _Documents:
    return _dumped({node.id: node_rows.document(node) for node in node_rows.load(conn, ids).values()})


def _conflicts(conn: Connection, ids: Collection[str]) -> _Documents:
    found = conflicts.load(conn, t.sync_conflict.c.id.in_(ids))
    return _dumped({conflict.id: conflicts.document(conflict) for conflict in found.values()})


def _sites(conn: Connection, ids: Collection[str]) -> _Documents:
    rows = conn.execute(select(t.site).where(t.site.c.id.in_(ids)))
    return _dumped({row.id: sites.document(row) for row in rows})


def _workflows(conn: Connection, ids: Collection[str]) -> _Documents:
    rows = conn.execute(select(t.workflow).where(t.workflow.c.id.in_(ids)))
    return _dumped({row.id: workflows.document(row) for row in rows})


def _content(conn: Connection, ids: Collection[str]) -> _Documents:
    names = [and_(t.content.c.category == category, t.content.c.path == path) for category, path in map(_split, ids)]
    rows = conn.execute(select(t.content).where(or_(*names))) if names else ()
    return _dumped({document.name: document for document in map(content.document, rows)})


def _split(name: str) -> tuple[str, str]:
    category, _, path = name.partition("/")
    return category, path


def _aliases(conn: Connection, ids: Collection[str]) -> _Documents:
    return {alias: {"node_id": node_id} for alias, node_id in node_rows.canonical(conn, ids).items()}


_DOCUMENTS = {
    "node": _nodes,
    "workflow": _workflows,
    "content": _content,
    "site": _sites,
    "conflict": _conflicts,
    "alias": _aliases,
}
