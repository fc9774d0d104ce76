"""The watch: every few seconds central looks who is silent and what stands at the sites, and keeps its alerts true.

Several central processes over one database take turns: the watch's row is locked for a round. It also tells when
central itself was away, so that no site is called silent for what central could not hear. Where the clock was set,
forward or back, central has only just come.
"""

import asyncio
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from pureboot.central import alerts, outages
from pureboot.central import tables as t
from pureboot.central.alerts import Fact, Key
from pureboot.central.clock import Clock, lies_ahead
from pureboot.central.db import Database
from pureboot.central.sql import locked

log = logging.getLogger(__name__)

# Seconds between two rounds: a person sees within a minute what happened.
PERIOD = 10.0
# A gap of more than so many periods is time that central was away.
GAP = 6 * timedelta(seconds=PERIOD)


@dataclass(frozen=True, slots=True)
class Watch:
    db: Database
    clock: Clock

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self.round()
            except Exception:  # whatever it is, central serves on, and the next round finds what this one did not
                log.exception("a round of the watch failed")
            await asyncio.sleep(PERIOD * random.uniform(0.9, 1.1))

    async def round(self) -> None:
        now = self.clock.now()
        await self.db.write(lambda conn: look(conn, now))


def look(conn: Connection, now: datetime) -> None:
    """One round; another at the same moment finds nothing to do."""
    back_at = _turn(conn, now)
    outages.notice(conn, back_at, now)
    there = set(conn.execute(select(t.site.c.id)).scalars())
    facts = {key: fact for key, fact in _facts(conn) if key.site_id in there}
    for key in alerts.reconcile(conn, facts, back_at, now):
        if key.kind == "site_silent" and key.site_id in there:
            alerts.happened(conn, key.site_id, "site_returned", now)


def back_at(conn: Connection, now: datetime) -> datetime:
    """When central came back from being away; now, if it has only just come and not looked yet."""
    return _since(conn.execute(select(t.watch)).one(), now)


def _turn(conn: Connection, now: datetime) -> datetime:
    """Locks the watch until the round is over. Returns since when central has been there to hear."""
    row = conn.execute(locked(select(t.watch))).one()
    back = _since(row, now)
    if row.at is not None and lies_ahead(row.at, now):
        log.warning("the clock was set back: seconds=%d", (row.at - now).total_seconds())
        outages.cut_short(conn, now)
    conn.execute(update(t.watch).values(at=now if back == now else max(now, row.at), back_at=back))
    return back


def _since(watch: Row[Any], now: datetime) -> datetime:
    if watch.at is None or watch.back_at is None or now - watch.at > GAP or lies_ahead(watch.at, now):
        return now
    since: datetime = watch.back_at
    return since


def _facts(conn: Connection) -> Iterator[tuple[Key, Fact]]:
    yield from _silent(conn)
    yield from _in_conflict(conn)
    yield from _failing(conn)
    yield from _damaged(conn)


def _silent(conn: Connection) -> Iterator[tuple[Key, Fact]]:
    rows = t.site_outage.c
    for row in conn.execute(select(rows.site_id, rows.began_at, rows.offline_at).where(rows.ended_at.is_(None))):
        since = row.began_at.strftime("%Y-%m-%d %H:%M UTC")
        if row.offline_at:
            message = f"Its agent is silent since {since}. The site works on by itself; look at its line and its host."
        else:
            message = f"Its agent has missed heartbeats since {since}."
        yield Key(row.site_id, "site_silent"), Fact("critical" if row.offline_at else "warning", message)


def _in_conflict(conn: Connection) -> Iterator[tuple[Key, Fact]]:
    rows = t.sync_conflict.c
    query = select(rows.site_id, func.count()).where(rows.status == "pending").group_by(rows.site_id)
    for site_id, number in conn.execute(query):
        message = f"{_counted(number, 'conflict waits', 'conflicts wait')} for a decision: site and central disagree."
        yield Key(site_id, "conflicts"), Fact("warning", message, number)


def _failing(conn: Connection) -> Iterator[tuple[Key, Fact]]:
    rows = t.agent.c
    failed = rows.metrics["failed_queue_items"].as_integer()
    query = select(rows.site_id, failed).where(rows.replaced_at.is_(None), failed > 0)
    for site_id, number in conn.execute(query):
        message = f"{_counted(number, 'report', 'reports')} of the site failed. Requeue or discard: see its queue."
        yield Key(site_id, "items_failed"), Fact("warning", message, number)


def _damaged(conn: Connection) -> Iterator[tuple[Key, Fact]]:
    rows = t.agent.c
    query = select(rows.site_id, rows.report["damaged_files"]).where(rows.replaced_at.is_(None))
    for site_id, files in conn.execute(query):
        if files:
            message = f"Its agent's file was damaged and its outbox carried over. Kept aside there: {', '.join(files)}."
            yield Key(site_id, "file_damaged"), Fact("warning", message, len(files))


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
