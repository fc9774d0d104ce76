"""Once a minute: what is kept in memory goes to disk, what is old goes away."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from pureboot.agent import accounts
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.database import set_meta
from pureboot.agent.journal import Journal
from pureboot.agent.loop import Loop
from pureboot.agent.observations import Observations
from pureboot.agent.queue import SyncQueue
from pureboot.agent.site import SiteState
from pureboot.core.errors import PureBootError
from pureboot.storage.sqlite import Transaction

# Free pages (of 4 KiB) that are not handed back to the disk, for they are soon used again. More go, whatever waits: a
# lane that is stopped may wait for weeks.
WORTH_IT = 1024
# Seconds of a step of the wall clock, or of a host that was off, that make what is kept for days no older than it is.
NO_STEP = 86_400.0

NEVER = datetime.min.replace(tzinfo=UTC)

log = logging.getLogger(__name__)


class Housekeeping:
    """`interval` in seconds."""

    def __init__(
        self,
        site: SiteState,
        queue: SyncQueue,
        journal: Journal,
        observations: Observations,
        connectivity: ConnectivityMonitor,
        *,
        sent_retention_days: int,
        interval: float = 60.0,
    ) -> None:
        self._site, self._queue, self._journal = site, queue, journal
        self._observations, self._connectivity = observations, connectivity
        self._retention = timedelta(days=sent_retention_days)
        self._interval = interval
        self._loop = Loop("housekeeping", self._run)

    async def tidy(self) -> None:
        """What asks for room in the outbox comes last: it may be refused for as long as an outage lasts, and the clock
        is kept for outages. Raises StorageFull."""
        await self._queue.database.store.write(self._keep)
        await self._queue.database.store.shrink(over=WORTH_IT)
        await self._journal.save_begun()
        await self._observations.flush()

    async def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        """What was observed until now is still kept."""
        if self._loop.is_running:
            await self._loop.stop()
            await self._try()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._try()

    async def _try(self) -> None:
        try:
            await self.tidy()
        except PureBootError as error:
            log.error("housekeeping failed: %s", error.message)

    def _keep(self, tx: Transaction) -> None:
        step = self._site.keep_clock(tx)
        accounts.forget(tx)
        self._queue.forget_sent(tx, self._oldest_sent(tx, step))
        if (last := self._connectivity.last_online_at) is not None:
            set_meta(tx, "last_online_at", last.isoformat())

    def _oldest_sent(self, tx: Transaction, step: float) -> datetime:
        """What was settled before then is forgotten. What was noted before a step of the clock has an age that nobody
        knows: nothing is, until all of that is old by the clock as it is now."""
        now = self._site.clock.stamp()
        if abs(step) > NO_STEP:
            set_meta(tx, "stepped_at", str(now.wall))
        row = tx.execute("SELECT value FROM meta WHERE key = 'stepped_at'").fetchone()
        if row and now.wall - float(row["value"]) < self._retention.total_seconds():
            return NEVER
        return now.when - self._retention
