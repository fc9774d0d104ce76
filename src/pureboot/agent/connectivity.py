"""Is central there? Two answers, for two questions.

`is_online` is slow and steady: it falls after `failure_threshold` failed checks and rises with one success. It decides
what a machine is told. `may_wait` is quick: the first wait for central that runs out of time closes it, and the next
word from central opens it again; so a central that hangs costs the first machines their budget, and no others. Nor is
it open while central is well and takes no pushes.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2

from pureboot.agent.central_client import CA_SETTING, CentralClient, http_client
from pureboot.agent.loop import Loop
from pureboot.core.errors import PureBootError
from pureboot.wire.causes import cause_of

log = logging.getLogger(__name__)

Listener = Callable[[bool], Awaitable[None]]


class ConnectivityMonitor:
    """Starts as offline. `check_interval` and `timeout` are in seconds. `last_online_at` is what an earlier life of
    this agent kept on disk. `last_outage`: the last word before it, and the first after; None: none
    yet. `since`: when it was last found to have come or gone."""

    def __init__(
        self,
        central_url: str,
        check_interval: int = 30,
        timeout: float = 5.0,
        failure_threshold: int = 3,
        *,
        last_online_at: datetime | None = None,
        ca_file: Path | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.central_url = central_url
        self.check_interval = check_interval
        self.timeout = timeout
        self.failure_threshold = failure_threshold
        self._now = now
        self._http = http_client(central_url, timeout=timeout, ca_file=ca_file, transport=transport)
        self._client = CentralClient(self._http, timeout=timeout)
        self._last_online_at = last_online_at
        self.last_outage: tuple[datetime, datetime] | None = None
        self._born = now()
        self.since = self._born
        self._online = False
        self._failures = 0
        self._tripped = True
        self._problem = ""
        self._listeners: list[Listener] = []
        self._on_recovery: list[Callable[[], None]] = []
        self._in_vain: list[Callable[[], bool]] = []
        self._doubt = asyncio.Event()
        self._loop = Loop("connectivity", self._watch)

    @property
    def is_online(self) -> bool:
        return self._online

    @property
    def may_wait(self) -> bool:
        """Whether it is worth a machine's time to wait for central."""
        return self._online and not self._tripped and not any(in_vain() for in_vain in self._in_vain)

    @property
    def last_online_at(self) -> datetime | None:
        return self._last_online_at

    @property
    def offline_duration(self) -> timedelta | None:
        """None while online. Without any contact ever, since this monitor began."""
        if self._online:
            return None
        return max(timedelta(0), self._now() - (self._last_online_at or self._born))

    @property
    def problem(self) -> str:
        """Why central is not reached, where a person has to mend it; empty while online, and in an outage."""
        return "" if self._online else self._problem

    def add_listener(self, callback: Listener) -> None:
        """Called with the new state whenever it changes."""
        self._listeners.append(callback)

    def on_recovery(self, callback: Callable[[], None]) -> None:
        """Called when central answers again after any failure, be it too short to have been an outage."""
        self._on_recovery.append(callback)

    def no_wait_while(self, in_vain: Callable[[], bool]) -> None:
        """Nobody waits for central's word while that is so, be it well."""
        self._in_vain.append(in_vain)

    async def check_connectivity(self) -> bool:
        """One check of central's health. Never raises; True if central is well now."""
        try:
            async with asyncio.timeout(self.timeout):
                well = await self._client.healthy()
        except (PureBootError, TimeoutError) as error:
            log.info("connectivity check failed: %s", str(error) or type(error).__name__)
            self._see_what_lasts(error)
            well = False
        await (self.heard() if well else self._failed())
        return well

    async def heard(self) -> None:
        """Central has answered, here or to anyone else in this agent."""
        now = self._now()
        if not self._online and self._last_online_at is not None:
            self.last_outage = self._last_online_at, now
        self._last_online_at = now
        self._failures, self._problem = 0, ""
        recovered, self._tripped = self._tripped, False
        await self._turn(True)
        for callback in self._on_recovery if recovered else []:
            callback()

    def doubt(self) -> None:
        """A wait for central ran out of time: nobody waits again before it has answered, and it is asked at once."""
        self._tripped = True
        self._doubt.set()

    async def start(self) -> None:
        """Begins to watch; the first check runs at once and nobody waits for it."""
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()
        await self._http.aclose()

    async def _watch(self) -> None:
        while True:
            well = await self.check_connectivity()
            pause = self.check_interval * random.uniform(0.9, 1.1)
            if not well and self._online:
                pause = min(pause, self.timeout)  # it is going away: find out soon
            self._doubt.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._doubt.wait(), pause)

    def _see_what_lasts(self, error: Exception) -> None:
        cause = cause_of(error, CA_SETTING)
        problem = f"Central is there, but {cause.words}. {cause.hint}".rstrip() if cause and cause.lasts else ""
        if problem and problem != self._problem:
            log.warning("central cannot be asked until somebody mends it: %s", problem)
        self._problem = problem

    async def _failed(self) -> None:
        self._failures += 1
        self._tripped = True
        if self._failures >= self.failure_threshold:
            await self._turn(False)

    async def _turn(self, online: bool) -> None:
        if online == self._online:
            return
        self._online, self.since = online, self._now()
        if online:
            log.info("central answers")
        else:
            log.warning("central is unreachable")
        for listener in list(self._listeners):
            try:
                await listener(online)
            except Exception:  # one listener must not keep the others from hearing it
                log.exception("a listener for connectivity failed")


class AlwaysOffline:
    """Stands where no monitor was given: nothing waits for central."""

    is_online = False
    may_wait = False
    last_online_at: datetime | None = None
    offline_duration: timedelta | None = None

    async def heard(self) -> None: ...

    def doubt(self) -> None: ...
