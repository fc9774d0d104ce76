"""Keeps the site up to date: follows central's feed, and fetches content before it is needed.

Two loops, one public step each: `sync_once` (push what waits, then read the feed to its end) and `fetch_needed`.
"""

import asyncio
import contextlib
import logging
import random
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pureboot.agent import sweep
from pureboot.agent.cache.state_cache import NodeStateCache
from pureboot.agent.central_client import CentralClient
from pureboot.agent.conflicts import ConflictDetector
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.content import ContentFetcher
from pureboot.agent.loop import Loop
from pureboot.agent.mirror import Mirror
from pureboot.agent.queue import SyncQueue
from pureboot.agent.site import SiteState
from pureboot.core.backoff import Backoff
from pureboot.core.errors import CentralUnavailable, Forbidden, PureBootError, Unauthenticated
from pureboot.core.lifecycle import NodeState
from pureboot.wire.messages import FeedPage, NodeDocument

log = logging.getLogger(__name__)

# Seconds central may hold a request for changes open: a change arrives as it happens, and a dead link shows soon.
LONG_POLL = 25.0
_APPROVED = (NodeState.PENDING, NodeState.REPROVISION, NodeState.INSTALLING)


@dataclass(frozen=True, slots=True)
class SyncResult:
    pages: int
    items: int
    fetched: int
    missing: tuple[str, ...]


class CacheSyncService:
    """`drain` empties the outbox: on reconnect what this site has to say goes first, then it listens."""

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
        retry_delay: float = 5.0,
    ) -> None:
        self._client, self._connectivity, self._mirror, self._site = client, connectivity, mirror, site
        self._cache, self._queue, self._fetcher, self._detector = state_cache, queue, fetcher, detector
        self._drain = drain
        self._backoff = Backoff(base=retry_delay)
        self._wake = asyncio.Event()
        self._content_due = asyncio.Event()
        self._loops = (Loop("feed", self._follow), Loop("content", self._keep_content))
        self._compare_due = True
        self.refused = ""
        connectivity.add_listener(self._link_changed)

    async def sync_once(self, wait: float = 0) -> tuple[int, int]:
        """Pages and items read. `wait`: seconds central may hold back an answer that would be empty. Raises what
        central answers."""
        await self._drain()
        pages = items = 0
        more = True
        while more:
            page = await self._page(wait=0 if pages else wait)
            await self._connectivity.heard()
            if not await self._mirror.store_page(page):
                await self._drain()
                continue
            pages, items, more = pages + 1, items + len(page.items), page.more
        self.refused = ""
        if items:
            self._content_due.set()
        if self._compare_due and self._queue.pending_count == 0:
            await self._detector.check_conflicts(await self._cache.database.store.read(_documents))
            self._compare_due = False
        return pages, items

    async def _page(self, wait: float) -> FeedPage:
        cursor = self._site.position.cursor
        try:
            return await self._client.changes(cursor, wait=wait)
        except PureBootError as error:
            if error.code != "cursor_too_old" or cursor == sweep.START:
                raise
        log.warning("central's feed no longer knows this agent's place in it; it is read from its start")
        await self._mirror.begin_pass()
        return await self._client.changes(sweep.START, wait=0)

    async def fetch_needed(self) -> tuple[int, tuple[str, ...]]:
        """Files fetched now, and those still missing: boot loaders, then what the workflows of this site's nodes need,
        the approved ones' first. A file that fails does not keep the next from being fetched."""
        fetched, missing = 0, []
        for name in self.needed():
            if not self._fetcher.missing([name]):
                continue
            try:
                await self._fetcher.fetch(name)
                fetched += 1
            except PureBootError as error:
                log.warning("content %s could not be fetched: %s", name, error.message)
                missing.append(name)
                if isinstance(error, CentralUnavailable):
                    break
        return fetched, tuple(missing)

    def needed(self) -> list[str]:
        """Names of content, without repeats, in the order in which they are wanted: without a boot loader nothing else
        is asked for."""
        nodes = sorted(self._cache.nodes(), key=lambda node: node.state not in _APPROVED)
        workflows = (self._site.workflow(workflow_id) for workflow_id in dict.fromkeys(n.workflow_id for n in nodes))
        of_workflows = (name for workflow in workflows if workflow for name in workflow.content)
        return list(dict.fromkeys([*self._site.boot_loaders(), *of_workflows]))

    async def sync_now(self) -> SyncResult:
        """By hand: everything at once. Raises what central answers."""
        pages, items = await self.sync_once()
        fetched, missing = await self.fetch_needed()
        return SyncResult(pages, items, fetched, missing)

    def request(self) -> None:
        """Central asked for a sync."""
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
        while True:
            self._content_due.clear()  # before the look: what becomes due while it lasts is looked at again
            _, missing = await self.fetch_needed()
            failures = failures + 1 if missing else 0
            pause = self._backoff.delay(failures, random.random()) if missing else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._content_due.wait(), pause)

    async def _pause(self, seconds: float | None) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    def _note(self, error: PureBootError) -> None:
        if isinstance(error, (Unauthenticated, Forbidden)):
            self.refused = f"{error.message} Run `pureboot agent init` again; nothing this agent holds is lost."
            log.error("central refuses this agent's credential: %s", error.message)
        else:
            log.warning("reading the feed failed: %s", error.message)

    async def _link_changed(self, online: bool) -> None:
        """The end of an outage. A hiccup is none: a central that is well but takes nothing must not cut the backoff."""
        if online:
            self._compare_due = True
            self.request()


def _documents(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    rows = connection.execute("SELECT document FROM node WHERE document IS NOT NULL")
    return [NodeDocument.model_validate_json(row["document"]).model_dump() for row in rows]
