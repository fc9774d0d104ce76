"""What central does by itself, now and then.

What is kept by its age is forgotten by a clock of housekeeping's own, for that of the host may be wrong, above all at a
start. It stands in the database, follows the host's, and goes `HASTE` times as fast as central runs at most: by a clock
that is ahead, however far, nothing is forgotten at a start, and a day too early for each hour that it stays so; after a
month that central was off, the month is caught up with in a little more than a day. It never goes back.
"""

import asyncio
import logging
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection, select, update

from pureboot.central import alerts, commands, outages
from pureboot.central import tables as t
from pureboot.central.clock import Clock
from pureboot.central.compaction import compact, scopes
from pureboot.central.content import named_digests
from pureboot.central.db import Database
from pureboot.central.sql import locked
from pureboot.central.unnamed import Unnamed

log = logging.getLogger(__name__)

# Seconds between two rounds: an hour more or less does not matter to what is kept for weeks.
PERIOD = 3600.0
# So that a host that is on for an hour a day still forgets.
HASTE = 24
# What is further behind than this is told: a week-end is no matter.
WORTH_TELLING = timedelta(days=3)


@dataclass(slots=True)
class Housekeeping:
    db: Database
    clock: Clock
    keep_tombstones: timedelta
    unnamed: Unnamed
    _last: float | None = field(default=None, init=False)
    _told: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self.round()
            except Exception:  # whatever it is, central serves on without it until the next round
                log.exception("housekeeping was put off")
            await asyncio.sleep(PERIOD * random.uniform(0.8, 1.2))

    async def round(self) -> None:
        now = self.clock.now()
        come_to = await self._come_to(now)
        # Whichever of the two makes nothing older than it is.
        today, noted = min(now, come_to), max(now, come_to)
        for scope in await self.db.read(scopes):
            await self.db.write(partial(compact, scope=scope, before=today - self.keep_tombstones, now=noted))
        await self.db.write(lambda conn: _forget(conn, today))
        named = await self.db.read(named_digests)
        if gone := await asyncio.to_thread(self.unnamed.sweep, named, today):
            log.info("content that no name stands for is removed: files=%d", len(gone))

    async def _come_to(self, now: datetime) -> datetime:
        running = self.clock.running()
        most = HASTE * timedelta(seconds=0.0 if self._last is None else running - self._last)
        come_to = await self.db.write(lambda conn: _follow(conn, now, most))
        self._last = running
        behind = now - come_to
        if behind > WORTH_TELLING and not self._told:
            log.warning("central was off for long, or its clock is ahead; old things go later: days=%d", behind.days)
        self._told = behind > WORTH_TELLING
        return come_to


def _follow(conn: Connection, now: datetime, most: timedelta) -> datetime:
    """To where housekeeping's clock has come, by `most` at most. The first time it is set."""
    last: datetime | None = conn.execute(locked(select(t.meta.c.kept_house_at))).scalar_one()
    come_to = now if last is None else max(last, min(now, last + most))
    conn.execute(update(t.meta).values(kept_house_at=come_to))
    return come_to


def _forget(conn: Connection, now: datetime) -> None:
    for part in (alerts, commands, outages):
        part.forget(conn, now)
