"""The heartbeat: how the site is, told to central once in a while."""

import asyncio
import contextlib
import logging
import random
import shutil
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from time import monotonic

from pureboot import __version__
from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.central_client import CentralClient
from pureboot.agent.conflicts import ConflictTable
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.loop import Loop
from pureboot.agent.observations import Observations
from pureboot.agent.queue import SyncQueue
from pureboot.agent.site import SiteState
from pureboot.core.errors import PureBootError
from pureboot.wire.messages import AgentMetrics, Heartbeat, ReadinessSummary

__all__ = ["AgentMetrics", "HeartbeatService"]

log = logging.getLogger(__name__)

OnCommand = Callable[[dict[str, object]], Awaitable[None]]


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
        on_command: OnCommand,
    ) -> None:
        self.interval = interval
        self._agent_id, self._client, self._connectivity = agent_id, client, connectivity
        self._queue, self._conflicts, self._cache, self._site = queue, conflicts, cache, site
        self._observations, self._data_dir = observations, data_dir
        self._active_boots, self._services, self._on_command = active_boots, services, on_command
        self._readiness = readiness
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
        """One heartbeat, and what central asks for in its answer. Raises what central answers."""
        heartbeat = Heartbeat(agent_id=self._agent_id, interval_seconds=self.interval, metrics=self.collect())
        answer = await self._client.heartbeat(heartbeat)
        await self._connectivity.heard()
        for command in answer.commands:
            await self._on_command(command)

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
