"""What an agent is told: everything its site is concerned with, each thing once, at the position of its last change."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, Row, select

from pureboot.central import commands, conflicts, content, node_rows, sites, workflows
from pureboot.central import tables as t
from pureboot.central.db import Database
from pureboot.central.generation import generation_of
from pureboot.central.positions import EVERYWHERE
from pureboot.central.sql import many, one, rows_of
from pureboot.core.errors import Gone, Malformed, Unauthenticated
from pureboot.wire.messages import FeedItem, FeedPage


@dataclass(frozen=True, slots=True)
class Place:
    """A place in both feeds that an agent reads: its site's changes, and those that concern every site."""

    site: int
    everywhere: int

    def reaches(self, other: "Place") -> bool:
        return self.site >= other.site and self.everywhere >= other.everywhere

    def __str__(self) -> str:
        return f"{self.site}.{self.everywhere}"


START = Place(0, 0)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an agent has read. `walk`: where the feed ended when it began at 0, until it has come that far.

    Who walks from 0 meets every entity there is, so it misses no tombstone that is older than its walk.
    """

    at: Place
    walk: Place | None = None

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        if text in ("", "0"):
            return cls(START)
        parts = text.split(".")
        if len(parts) in (2, 4) and all(p.isascii() and p.isdigit() and len(p) <= 18 for p in parts):
            numbers = [int(part) for part in parts]
            return cls(Place(*numbers[:2]), Place(*numbers[2:]) if numbers[2:] else None)
        raise Malformed("This cursor is not one that the feed gave out.", code="malformed_cursor", hint="Start at 0.")

    def __str__(self) -> str:
        return f"{self.at}.{self.walk}" if self.walk else str(self.at)

    def moved(self, at: Place) -> "Cursor":
        return Cursor(at, None if self.walk is None or at.reaches(self.walk) else self.walk)


async def follow(
    db: Database, site_id: str, since: Cursor, limit: int, wait: float, *, beats: bool = False
) -> FeedPage:
    """The next page; where there is none yet, the first that comes within `wait` seconds. `beats`: whoever asks sends a
    heartbeat at once where the page says that one is waited for, so such a page is an answer too."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    with db.bell.listen(site_id, EVERYWHERE) as news:
        while True:
            news.clear()
            found = await db.read(lambda conn: page(conn, site_id, since, limit, beats=beats))
            left = end - loop.time()
            if found.items or found.beat or left <= 0 or db.bell.closed:
                return found
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), left)


def page(conn: Connection, site_id: str, since: Cursor, limit: int, *, beats: bool = False) -> FeedPage:
    """What every site gets comes first, so that a node's workflow is there before the node."""
    last, floor = bounds(conn, site_id)
    since = _checked(since, last, floor)
    shared = _rows(conn, EVERYWHERE, since.at.everywhere, limit + 1)
    own = _rows(conn, site_id, since.at.site, limit + 1 - min(len(shared), limit))
    rows = [*shared, *own][:limit]
    more = len(shared) + len(own) > len(rows)
    read = Place(
        max((row.pos for row in rows if row.site == site_id), default=since.at.site),
        max((row.pos for row in rows if row.site == EVERYWHERE), default=since.at.everywhere),
    )
    return FeedPage(
        generation=generation_of(conn),
        items=_items(conn, rows),
        # At the end nothing is left to read, also where its last row was a tombstone that is forgotten.
        next=str(since.moved(read if more else last)),
        more=more,
        beat=beats and commands.is_due(conn, site_id),
    )


def _checked(since: Cursor, last: Place, floor: Place) -> Cursor:
    """Raises Gone where deletions after the cursor may be forgotten, and for a cursor beyond the end."""
    if since.at == START and since.walk is None:
        return Cursor(START, last)
    if not last.reaches(since.at):
        raise _gone("lies beyond the end of the feed; central was restored from a backup")
    if not (since.walk or since.at).reaches(floor):
        raise _gone("is so old that deletions after it are forgotten")
    return since


_ENDS = select(t.site_pos).where(t.site_pos.c.site.in_(many("scopes")))
_AFTER = select(t.feed).where(t.feed.c.site == one("scope"), t.feed.c.pos > one("since"))
_AFTER = _AFTER.order_by(t.feed.c.pos).limit(one("limit"))


def bounds(conn: Connection, site_id: str) -> tuple[Place, Place]:
    """Where the feed ends, and below which place tombstones are missing."""
    rows = {row.site: row for row in rows_of(conn, _ENDS, scopes=[site_id, EVERYWHERE])}
    if site_id not in rows:
        raise Unauthenticated("This agent's site was removed.", code="unknown_token")
    own, shared = rows[site_id], rows[EVERYWHERE]
    return Place(own.pos, shared.pos), Place(own.floor, shared.floor)


def _gone(why: str) -> Gone:
    return Gone(
        f"This cursor {why}.",
        code="cursor_too_old",
        hint="Begin at 0, and forget what is not on the feed then, but for nodes with items still to send.",
    )


def _rows(conn: Connection, scope: str, since: int, limit: int) -> Sequence[Row[Any]]:
    return rows_of(conn, _AFTER, scope=scope, since=since, limit=limit)


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


_FILES = select(t.content).where(t.content.c.category == one("category"), t.content.c.path.in_(many("paths")))


def _content(conn: Connection, ids: Collection[str]) -> _Documents:
    """Category by category: an OR of a thousand names is more than SQLite reads."""
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for category, _, path in (id.partition("/") for id in ids):
        paths[category].append(path)
    rows = [row for category in paths for row in rows_of(conn, _FILES, category=category, paths=paths[category])]
    return _dumped({document.name: document for document in map(content.document, rows)})


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
