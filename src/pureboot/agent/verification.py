"""Kept content is read again now and then: disks rot, and a boot should not be what finds out."""

import asyncio
import contextlib
import logging
import os
from asyncio import to_thread
from collections.abc import Awaitable, Callable

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.cache.content_index import CachedFile
from pureboot.agent.cache.reading import digest_of
from pureboot.agent.loop import Loop

log = logging.getLogger(__name__)

# Seconds between two rounds, and before the first: a start has other work.
PERIOD = 86_400.0
FIRST_AFTER = 600.0


class Verifier:
    """`rate` in bytes a second; 0: nothing is read but what is doubtful. `on_rotten` gets the names that a rotten file
    was kept under, which are out of the cache by then."""

    def __init__(
        self,
        cache: ContentCache,
        *,
        rate: int,
        on_rotten: Callable[[list[str]], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cache, self._rate, self._on_rotten, self._sleep = cache, rate, on_rotten, sleep
        self._left: list[CachedFile] = []
        self._doubtful: list[CachedFile] = []
        self._due = asyncio.Event()
        self._loop = Loop("verification", self._run)
        self.verified = 0
        self.rotten = 0

    @property
    def left(self) -> int:
        """Files of this round that were not read yet."""
        return len(self._left)

    @property
    def problem(self) -> str:
        """For people; empty if there is none."""
        return _unread(len(self._doubtful)) if self._doubtful else ""

    def begin_round(self) -> int:
        """From now on all that is kept is read, each file once, the one used least first. How many there are."""
        if self._rate:
            self._left = list({file.path: file for file in reversed(self._cache.files())}.values())
        return len(self._left)

    async def verify_next(self) -> bool:
        """Reads one file and compares it with its digest. False: the round is over."""
        if not self._left:
            return False
        file = self._left.pop()
        if await self._is_rotten(file):
            names = await self._cache.discard(file)
            log.error("kept content has rotted on the disk, is dropped and fetched again: %s", ", ".join(names))
            self.rotten += 1
            self._on_rotten(names)
        else:
            self.verified += 1
        return True

    def request(self) -> int:
        """A round begins now. How many files there are."""
        self._due.set()
        return self.begin_round()

    async def confirm_doubtful(self) -> None:
        """Reads what is as large as it was kept and not as old, as fast as the disk gives it, the smallest first: until
        then no machine is installed from it. For folders that were copied while the agent was away."""
        self._doubtful = await to_thread(self._cache.doubtful)
        if self._doubtful:
            log.warning("was this agent's folder copied? %s", self.problem)
        while self._doubtful:
            if names := await self._cache.confirm(self._doubtful[0]):
                self.rotten += 1
                self._on_rotten(names)
            del self._doubtful[0]

    async def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def _run(self) -> None:
        await self.confirm_doubtful()
        pause = FIRST_AFTER
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), pause)
            if not self._due.is_set():
                self.begin_round()
            self._due.clear()
            while await self.verify_next():
                pass
            pause = PERIOD

    async def _is_rotten(self, file: CachedFile) -> bool:
        try:
            source = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False  # it made room meanwhile
        try:
            return await digest_of(source, self._pause) != file.digest
        except OSError as error:
            log.error("kept content cannot be read: %s: %s", file.name, error)
            return True
        finally:
            await to_thread(os.close, source)

    async def _pause(self, read: int) -> None:
        await self._sleep(read / self._rate)


def _unread(files: int) -> str:
    return f"{files} kept files have other times than they had, and are read again before they are served."
