"""Where a change stands on the feed. Publish while a transaction runs; the positions are taken at its very end.

A site's counter row is the last thing a transaction locks, so positions become visible in their own order and a reader
never skips one (PROTOCOL 1: a sequence or the highest id does).
"""

from collections import defaultdict
from typing import Literal

from sqlalchemy import Connection, delete, insert, update

from pureboot.central import tables as t
from pureboot.central.sql import one, upsert
from pureboot.core.errors import Clash

# What every agent gets: workflows and content. No site has this id.
EVERYWHERE = "*"

Kind = Literal["node", "workflow", "content", "site", "conflict", "alias"]
Op = Literal["upsert", "delete", "moved_out"]

_Draft = dict[tuple[str, Kind, str], tuple[Op, int]]
_KEY = "pureboot.feed"


def publish(conn: Connection, scope: str, kind: Kind, id: str, version: int, op: Op = "upsert") -> None:
    """The agents of `scope` learn of it once this transaction has committed; of many changes, of the last."""
    draft: _Draft = conn.info[_KEY]
    draft[scope, kind, id] = op, version


def begin(conn: Connection) -> None:
    conn.info[_KEY] = {}


def settle(conn: Connection) -> set[str]:
    """Gives what was published its positions; returns the scopes that have news."""
    draft: _Draft = conn.info.pop(_KEY)
    by_scope: defaultdict[str, list[tuple[Kind, str, Op, int]]] = defaultdict(list)
    for (scope, kind, id), (op, version) in draft.items():
        by_scope[scope].append((kind, id, op, version))
    for scope in sorted(by_scope):
        _write(conn, scope, by_scope[scope])
    return set(by_scope)


def _write(conn: Connection, scope: str, entries: list[tuple[Kind, str, Op, int]]) -> None:
    last = _advance(conn, scope, len(entries))
    rows = [
        {"site": scope, "type": kind, "id": id, "pos": pos, "op": op, "version": version}
        for pos, (kind, id, op, version) in enumerate(entries, start=last - len(entries) + 1)
    ]
    upsert(conn, t.feed, rows)


_BUMP = update(t.site_pos).where(t.site_pos.c.site == one("scope"))
_BUMP = _BUMP.values(pos=t.site_pos.c.pos + one("by")).returning(t.site_pos.c.pos)


def _advance(conn: Connection, scope: str, by: int) -> int:
    """The counter's row was made with its site (`open_feed`)."""
    last = conn.execute(_BUMP, {"scope": scope, "by": by}).scalar()
    if last is None:
        raise Clash("The site was removed meanwhile; nothing was stored.", code="site_removed")
    return int(last)


def open_feed(conn: Connection, scope: str) -> None:
    conn.execute(insert(t.site_pos), {"site": scope, "pos": 0, "floor": 0})


def close_feed(conn: Connection, scope: str) -> None:
    conn.execute(delete(t.site_pos).where(t.site_pos.c.site == scope))
    conn.execute(delete(t.feed_mark).where(t.feed_mark.c.site == scope))
    conn.execute(delete(t.feed).where(t.feed.c.site == scope))
