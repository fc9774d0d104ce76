"""Keeps the site up to date: follows central's feed, and fetches content before it is needed.

Two loops, one public step each: `sync_once` (push what waits, then read the feed to its end) and `fetch_needed`.
"""

import asyncio
import contextlib
import logging
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from pureboot.agent import sweep
from pureboot.agent.cache.state_cache import NodeStateCache
from pureboot.agent.central_client import CentralClient
from pureboot.agent.conflicts import ConflictDetector
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.content import ContentFetcher
from pureboot.agent.loop import Loop
from pureboot.agent.mirror import Mirror
from pureboot.agent.queue import SyncQueue
from pureboot.agent.schedule import Schedule
from pureboot.agent.site import Position, SiteState
from pureboot.agent.wants import Wants
from pureboot.core.backoff import Backoff
from pureboot.core.errors import CentralUnavailable, Forbidden, NotFound, PureBootError, StorageFull, Unauthenticated
from pureboot.wire.messages import FeedPage, NodeDocument

log = logging.getLogger(__name__)

# Seconds central may hold a request for changes open: a change arrives as it happens, and a dead link shows soon.
LONG_POLL = 25.0
# Seconds between two looks at the content while nothing happens: for what was lost, and what grew old.
LOOK_AGAIN = 3600.0


async def _nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class SyncResult:
    pages: int
    items: int
    fetched: int
    missing: tuple[str, ...]


class CacheSyncService:
    """`drain` empties the outbox: on reconnect what this site has to say goes first, then it listens. `insist` does so
    even while central is to be left in peace, for a person. `beat` sends a heartbeat, where somebody at central waits
    for one. `schedule` says when content is fetched that nothing presses for, as a cron expression; empty: as soon as
    it is known. `problem`, and `stumble`, which last kept the feed from being read, are for people; empty if there is
    none."""

    def __init__(
        self,
        client: CentralClient,
        connectivity: ConnectivityMonitor,
        mirror: Mirror,
        site: SiteState,
        state_cache: NodeStateCache,
        queue: SyncQueue,
        fetcher: ContentFetcher,
        detector: ConflictDetector,
        *,
        drain: Callable[[], Awaitable[object]],
        insist: Callable[[], Awaitable[object]] = _nothing,
        beat: Callable[[], Awaitable[None]] = _nothing,
        retry_delay: float = 5.0,
        schedule: str = "",
    ) -> None:
        self._client, self._connectivity, self._mirror, self._site = client, connectivity, mirror, site
        self._cache, self._queue, self._fetcher, self._detector = state_cache, queue, fetcher, detector
        self._drain, self._insist, self._beat = drain, insist, beat
        self._wants = Wants(site, state_cache)
        self._schedule = Schedule(schedule, _now())
        self._backoff = Backoff(base=retry_delay)
        self._wake = asyncio.Event()
        self._content_due = asyncio.Event()
        self._loops = (Loop("feed", self._follow), Loop("content", self._keep_content))
        self._compare_due = True
        self._asked_for = False
        self.refused = ""
        self.stumble = ""
        self.problem = ""
        self.lost: set[str] = set()
        connectivity.add_listener(self._link_changed)

    async def sync_once(self, wait: float = 0) -> tuple[int, int]:
        """Pages and items read. `wait`: seconds central may hold back an answer that would be empty. Raises what
        central answers."""
        await self._drain()
        pages = items = 0
        more, beat = True, False
        while more:
            since, page = await self._page(wait=0 if pages else wait)
            await self._connectivity.heard()
            if not await self._mirror.store_page(page, since):
                await self._drain()
                continue
            pages, items, more = pages + 1, items + len(page.items), page.more
            beat = beat or page.beat
        self.refused = self.stumble = ""
        if items:
            self._content_due.set()
        if self._compare_due and self._queue.pending_count == 0:
            await self._detector.check_conflicts(await self._cache.database.store.read(_documents))
            self._compare_due = False
        if beat:  # a failure is ours too, so that central is not asked again at once
            await self._beat()
        return pages, items

    async def _page(self, wait: float) -> tuple[Position, FeedPage]:
        """What comes next, and after which place."""
        since = self._site.position
        try:
            return since, await self._client.changes(since.cursor, wait=wait)
        except PureBootError as error:
            if error.code != "cursor_too_old" or since.cursor == sweep.START:
                raise
        log.warning("central's feed no longer knows this agent's place in it; it is read from its start")
        await self._mirror.begin_pass()
        since = self._site.position
        return since, await self._client.changes(since.cursor, wait=0)

    async def fetch_needed(self, *, everything: bool = True) -> tuple[int, tuple[str, ...]]:
        """Files fetched now, and those still missing: all that the site's policy asks for, or what presses only. A file
        that fails does not keep the next from being fetched; none makes room at the cost of one that is wanted more.
        What is wanted most is asked anew after each file: an install may have been approved meanwhile."""
        fetched = 0
        failed: dict[str, PureBootError] = {}
        looked_at: set[tuple[str, str]] = set()
        while found := self._next(everything, looked_at):
            name, wanted_more = found
            try:
                await self._fetcher.fetch(name, keep=wanted_more)
                fetched += 1
                failed.pop(name, None)
                self.lost.discard(name)
            except PureBootError as error:
                log.warning("content %s could not be fetched: %s", name, error.message)
                if isinstance(error, NotFound):
                    self.lost.discard(name)
                failed[name] = error
                if isinstance(error, CentralUnavailable):
                    break
        self.problem = _no_room([error for error in failed.values() if isinstance(error, StorageFull)])
        return fetched, tuple(failed)

    def _next(self, everything: bool, looked_at: set[tuple[str, str]]) -> tuple[str, list[str]] | None:
        """What is wanted most of what is not here, and the names that are wanted more; None: there is no more. Each
        version of a file is looked at once."""
        wanted = self._wants.ahead() if everything else self._wants.pressing()
        names = list(dict.fromkeys([*wanted, *self.lost]))
        for place, name in enumerate(names):
            document = self._site.content(name)
            version = name, document.digest if document else ""
            if version in looked_at:
                continue
            looked_at.add(version)
            if self._fetcher.missing([name]):
                return name, names[:place]
            self.lost.discard(name)
        return None

    async def tidy_content(self) -> tuple[str, ...]:
        """Removes what nobody wants: files that lay unused beyond the age of their category, and parts of versions that
        are no more. Not while central is away, which could not send them again. Names of what went."""
        if not self._connectivity.is_online or self._site.last_pass is None:
            return ()
        await self._fetcher.forget_parts(self._site.contents())
        return await self._fetcher.expire(self._wants.age, keep=self._wants.ahead())

    async def sync_now(self) -> SyncResult:
        """By hand: everything at once. Raises what central answers."""
        await self._insist()
        pages, items = await self.sync_once()
        fetched, missing = await self.fetch_needed()
        return SyncResult(pages, items, fetched, missing)

    def fetch_again(self, names: Iterable[str]) -> None:
        """Files that were here and rotted, whether the policy wants them or not; in `lost` until they are back."""
        self.lost.update(names)
        self._content_due.set()

    def request(self) -> None:
        """Central asked for a sync: of everything, whatever the schedule says."""
        self._asked_for = True
        self._wake.set()
        self._content_due.set()

    async def start(self) -> None:
        for loop in self._loops:
            loop.start()

    async def stop(self) -> None:
        for loop in self._loops:
            await loop.stop()

    async def _follow(self) -> None:
        failures = 0
        wait = 0.0
        while True:
            if not self._connectivity.is_online:
                await self._pause(None)
                wait = 0.0
            try:
                await self.sync_once(wait=wait)
                failures, wait = 0, LONG_POLL
            except PureBootError as error:
                failures, wait = failures + 1, 0.0
                self._note(error)
                await self._pause(self._backoff.delay(failures, random.random()))

    async def _keep_content(self) -> None:
        failures = 0
        everything = self._schedule.is_due(_now())
        while True:
            self._content_due.clear()  # before the look: what becomes due while it lasts is looked at again
            everything, self._asked_for = everything or self._asked_for, False
            _, missing = await self.fetch_needed(everything=everything)
            await self.tidy_content()
            failures = failures + 1 if missing else 0
            pause = self._backoff.delay(failures, random.random()) if missing else LOOK_AGAIN
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._content_due.wait(), min(pause, self._schedule.wait(_now())))
            # What was due and is missing stays due.
            everything = self._schedule.is_due(_now()) or (everything and bool(missing))

    async def _pause(self, seconds: float | None) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    def _note(self, error: PureBootError) -> None:
        self.stumble = error.message
        if isinstance(error, (Unauthenticated, Forbidden)):
            way_out = "Run `pureboot agent init` again, and restart it; nothing this agent holds is lost."
            self.refused = f"{error.message} {way_out}"
            log.error("central refuses this agent's credential: %s", error.message)
        else:
            log.warning("reading the feed failed: %s", error.message)

    async def _link_changed(self, online: bool) -> None:
        """The end of an outage. A hiccup is none: a central that is well but takes nothing must not cut the backoff."""
        if online:
            self.stumble = ""
            self._compare_due = True
            self._wake.set()
            self._content_due.set()


def _no_room(full: list[StorageFull]) -> str:
    """Empty, where there is room."""
    return f"{len(full)} files that this site wants have no room in its cache. {full[-1].hint}" if full else ""


def _now() -> datetime:
    return datetime.now(UTC)


def _documents(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Those that can be read: one that rotted comes again with central's next word of its node."""
    found: list[dict[str, Any]] = []
    for row in connection.execute("SELECT document FROM node WHERE document IS NOT NULL"):
        with contextlib.suppress(ValidationError):
            found.append(NodeDocument.model_validate_json(row["document"]).model_dump())
    return found
