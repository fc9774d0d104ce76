"""What central does by itself, now and then."""

import asyncio
import logging
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from pureboot.central import alerts, commands, outages
from pureboot.central.clock import Clock
from pureboot.central.compaction import compact, scopes
from pureboot.central.content import named_digests
from pureboot.central.db import Database
from pureboot.central.unnamed import Unnamed

log = logging.getLogger(__name__)

# Seconds between two rounds: an hour more or less does not matter to what is kept for weeks.
PERIOD = 3600.0


@dataclass(frozen=True, slots=True)
class Housekeeping:
    db: Database
    clock: Clock
    keep_tombstones: timedelta
    unnamed: Unnamed

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
        for scope in await self.db.read(scopes):
            await self.db.write(partial(compact, scope=scope, retention=self.keep_tombstones, now=now))
        await self.db.write(lambda conn: _forget(conn, now))
        named = await self.db.read(named_digests)
        if gone := await asyncio.to_thread(self.unnamed.sweep, named, now):
            log.info("content that no name stands for is removed: files=%d", len(gone))


def _forget(conn: Connection, now: datetime) -> None:
    for part in (alerts, commands, outages):
        part.forget(conn, now)
