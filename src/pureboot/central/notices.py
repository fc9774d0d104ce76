"""What an operator of a site should know and no node has in its log; said again, it is counted."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, select

from pureboot.central import tables as t
from pureboot.central.bodies import Notice
from pureboot.central.sql import upsert

# `fenced`: a second copy of the site's agent tried to write. `sync_discarded`: an item of no known node was given up.
Kind = Literal["fenced", "sync_discarded"]

SHOWN = 100


def record(conn: Connection, site_id: str, kind: Kind, subject: str, detail: Mapping[str, Any], now: datetime) -> None:
    """Under the lock of the site's agent."""
    rows = t.site_notice.c
    key = {"site_id": site_id, "kind": kind, "subject": subject}
    mine = (rows.site_id == site_id, rows.kind == kind, rows.subject == subject)
    known = conn.execute(select(rows.times, rows.first_at).where(*mine)).first()
    times, first_at = (known.times + 1, known.first_at) if known else (1, now)
    upsert(conn, t.site_notice, [{**key, "detail": dict(detail), "times": times, "first_at": first_at, "last_at": now}])


def newest(conn: Connection, site_id: str) -> list[Notice]:
    query = select(t.site_notice).where(t.site_notice.c.site_id == site_id)
    rows = conn.execute(query.order_by(t.site_notice.c.last_at.desc(), t.site_notice.c.subject).limit(SHOWN))
    return [Notice.model_validate(row._asdict()) for row in rows]
