"""The heartbeat: how the site is, told to central once in a while."""

import asyncio
import contextlib
import logging
import random
import shutil
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from time import monotonic

from pureboot import __version__
from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.central_client import CentralClient
from pureboot.agent.commands import Commands
from pureboot.agent.conflicts import ConflictTable
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.loop import Loop
from pureboot.agent.observations import Observations
from pureboot.agent.queue import SyncQueue
from pureboot.agent.queue_items import QueueItem
from pureboot.agent.site import SiteState
from pureboot.core.errors import PureBootError
from pureboot.wire.beats import MOST_FAILED, MOST_NAMES, BeatReport, FailedItem, OutageTold
from pureboot.wire.messages import BIGGEST, AgentMetrics, Heartbeat, ReadinessSummary

__all__ = ["AgentMetrics", "HeartbeatService"]

log = logging.getLogger(__name__)

# Heartbeats in a row while central asks and hears what became of it; what is left comes with the next.
ROUNDS = 3


class HeartbeatService:
    """`interval` in seconds. `active_boots` and `services` are asked at each beat."""

    def __init__(
        self,
        agent_id: str,
        client: CentralClient,
        connectivity: ConnectivityMonitor,
        queue: SyncQueue,
        conflicts: ConflictTable,
        cache: ContentCache,
        site: SiteState,
        observations: Observations,
        *,
        data_dir: Path,
        interval: int = 60,
        active_boots: Callable[[], int] = lambda: 0,
        services: Callable[[], dict[str, str]] = dict,
        readiness: Callable[[], ReadinessSummary] = ReadinessSummary,
        missing: Callable[[], Sequence[str]] = tuple,
        damaged: Callable[[], Sequence[Path]] = tuple,
        commands: Commands,
    ) -> None:
        self.interval = interval
        self._agent_id, self._client, self._connectivity = agent_id, client, connectivity
        self._queue, self._conflicts, self._cache, self._site = queue, conflicts, cache, site
        self._observations, self._data_dir = observations, data_dir
        self._active_boots, self._services, self._commands = active_boots, services, commands
        self._readiness, self._missing, self._damaged = readiness, missing, damaged
        self._beating = asyncio.Lock()
        self._born = monotonic()
        self._due = asyncio.Event()
        self._loop = Loop("heartbeat", self._run)
        connectivity.add_listener(self._link_changed)

    def collect(self) -> AgentMetrics:
        offline = self._connectivity.offline_duration or timedelta(0)
        return AgentMetrics(
            version=__version__,
            uptime_seconds=int(monotonic() - self._born),
            services=self._services(),
            nodes_seen_last_hour=self._observations.seen_last_hour,
            active_boots=self._active_boots(),
            cache_hit_rate=_rate(self._cache.hits, self._cache.misses),
            cache_bytes=self._cache.usage,
            cache_limit_bytes=int(min(self._cache.max_bytes, BIGGEST)),
            cache_files=len(self._cache.files()),
            disk_free_bytes=shutil.disk_usage(self._data_dir).free,
            readiness=self._readiness(),
            last_sync_at=self._site.last_pass.when if self._site.last_pass else None,
            is_online=self._connectivity.is_online,
            last_online_at=self._connectivity.last_online_at,
            offline_duration_seconds=int(offline.total_seconds()),
            pending_queue_items=self._queue.pending_count,
            failed_queue_items=self._queue.failed_count,
            conflicts_pending=self._conflicts.pending_count,
        )

    async def beat(self) -> None:
        """One heartbeat, and what central asks for in its answer; then another, which says what became of it. Raises
        what central answers."""
        async with self._beating:
            for _ in range(ROUNDS):
                report = await self._report()
                metrics = self.collect().model_copy(update={"report": report})
                heartbeat = Heartbeat(agent_id=self._agent_id, interval_seconds=self.interval, metrics=metrics)
                answer = await self._client.heartbeat(heartbeat)
                await self._connectivity.heard()
                await self._commands.told(report.commands_done)
                for command in answer.commands:
                    await self._commands.obey(command)
                if not await self._commands.untold():
                    return

    async def _report(self) -> BeatReport:
        items, _ = await self._queue.page(MOST_FAILED)
        missing = self._missing()
        return BeatReport(
            epoch=self._queue.epoch,
            obeys=self._commands.known,
            commands_done=await self._commands.untold(),
            failed_items=[_failed(item) for item in items if item.status == "failed"],
            content_missing=list(missing[:MOST_NAMES]),
            content_missing_total=len(missing),
            damaged_files=[file.name for file in self._damaged()],
            last_outage=self._last_outage(),
        )

    def _last_outage(self) -> OutageTold | None:
        if (outage := self._connectivity.last_outage) is None:
            return None
        began, ended = outage
        now = self._connectivity.last_online_at or ended
        return OutageTold(seconds=_seconds(ended - began), ended_seconds_ago=_seconds(now - ended))

    async def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def _run(self) -> None:
        while True:
            await self._try()
            pause = self.interval * random.uniform(0.9, 1.1)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), pause)
            self._due.clear()

    async def _link_changed(self, online: bool) -> None:
        if online:
            self._due.set()

    async def _try(self) -> None:
        try:
            await self.beat()
        except PureBootError as error:
            log.info("heartbeat failed: %s", error.message)


def _rate(hits: int, misses: int) -> float:
    return hits / (hits + misses) if hits + misses else 0.0


def _seconds(length: timedelta) -> int:
    """A clock that was set back makes none."""
    return max(0, int(length.total_seconds()))


def _failed(item: QueueItem) -> FailedItem:
    return FailedItem(
        id=item.id,
        lane=item.lane,
        item_type=item.item_type,
        attempts=item.attempts,
        last_error=item.last_error or "",
        created_at=item.created_at,
    )
