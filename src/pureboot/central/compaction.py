"""Tombstones are kept for a while, so that an agent back from an outage hears what was deleted; then the floor rises.

The feed's rows carry no time. So each round notes where every scope's feed ends, and what lies below a note that is old
enough is old enough.
"""

from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from pureboot.central import tables as t
from pureboot.central.sql import locked


def scopes(conn: Connection) -> list[str]:
    """Every site, and what concerns them all."""
    return list(conn.execute(select(t.site_pos.c.site).order_by(t.site_pos.c.site)).scalars())


def compact(conn: Connection, scope: str, before: datetime, now: datetime) -> None:
    """Forgets what was deleted there before then (later by the time between two rounds). Whoever has news for the scope
    waits meanwhile, so each has a transaction of its own."""
    # Whoever publishes takes this row last of all locks, and we take no other.
    end = conn.execute(locked(select(t.site_pos).where(t.site_pos.c.site == scope))).first()
    if end is None:
        return  # the site was removed meanwhile
    if (old := _noted(conn, scope, before)) is not None:
        _forget(conn, scope, end.floor, old)
    marks = t.feed_mark.c
    if conn.execute(select(marks.pos).where(marks.site == scope, marks.pos == end.pos)).first() is None:
        conn.execute(insert(t.feed_mark), {"site": scope, "pos": end.pos, "at": now})


def _noted(conn: Connection, scope: str, before: datetime) -> int | None:
    marks = t.feed_mark.c
    return conn.execute(select(func.max(marks.pos)).where(marks.site == scope, marks.at <= before)).scalar()


def _forget(conn: Connection, scope: str, floor: int, until: int) -> None:
    marks, rows = t.feed_mark.c, t.feed.c
    conn.execute(delete(t.feed_mark).where(marks.site == scope, marks.pos < until))
    tombstones = (rows.site == scope, rows.op == "delete", rows.pos <= until)
    newest = conn.execute(select(func.max(rows.pos)).where(*tombstones)).scalar()
    if newest is None:
        return
    conn.execute(delete(t.feed).where(*tombstones))
    conn.execute(update(t.site_pos).where(t.site_pos.c.site == scope).values(floor=max(floor, newest)))
