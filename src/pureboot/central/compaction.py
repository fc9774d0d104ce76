"""Tombstones are kept for a while, so that an agent back from an outage hears what was deleted; then the floor rises.

The feed's rows carry no time. So each round notes where every scope's feed ends, and what lies below a note that is old
enough is old enough.
"""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select, update

from pureboot.central import tables as t
from pureboot.central.sql import insert_all, locked


def compact(conn: Connection, retention: timedelta, now: datetime) -> None:
    """Forgets what was deleted more than `retention` ago (later by the time between two rounds)."""
    # Whoever publishes takes these rows last of all locks, and we take no other.
    ends = list(conn.execute(locked(select(t.site_pos).order_by(t.site_pos.c.site))))
    for row in ends:
        if (old := _noted(conn, row.site, now - retention)) is not None:
            _forget(conn, row.site, row.floor, old)
    noted = {tuple(mark) for mark in conn.execute(select(t.feed_mark.c.site, t.feed_mark.c.pos))}
    marks = [{"site": row.site, "pos": row.pos, "at": now} for row in ends if (row.site, row.pos) not in noted]
    insert_all(conn, insert(t.feed_mark), marks)


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
