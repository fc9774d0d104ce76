"""One file's way from central into the cache: written, resumed after a cut, verified, kept."""

import asyncio
import logging
import random
from asyncio import to_thread
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path
from typing import Any, Protocol

from pureboot.agent.bandwidth import Bandwidth
from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.cache.content_index import CachedFile
from pureboot.agent.landing import Landing
from pureboot.core.backoff import Backoff
from pureboot.core.errors import CentralUnavailable, Invalid

log = logging.getLogger(__name__)

# Seconds without one byte from central, after which it counts as dead. Its WAN may be slow, but not silent.
PATIENCE = 10.0
# Cuts of one download, each after it got further, that are mended while others wait for it. After more, whoever wants
# the file has to ask again; it then goes on where it stopped.
MENDED_CUTS = 8
# Short: a central that is there takes a new connection at once, and a machine may be waiting.
BACKOFF = Backoff(base=0.5, cap=8.0)


class ContentSource(Protocol):
    def download(self, name: str, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of `name` from `offset` on. Entering raises CentralUnavailable, NotFound, Invalid where it cannot
        begin at `offset`, and what else central refuses with; so does iterating, where the transfer ends early."""
        ...


class Urgency:
    """Whether a machine waits for a download, which may become so at any time."""

    def __init__(self, bandwidth: Bandwidth) -> None:
        self._bandwidth = bandwidth
        self._held = ExitStack()
        self.is_first = False

    def hurry(self) -> None:
        if not self.is_first:
            self.is_first = True
            self._held.enter_context(self._bandwidth.first())

    def end(self) -> None:
        self._held.close()


@dataclass(frozen=True, slots=True)
class Download:
    """`patience` in seconds; `sleep` waits between two tries."""

    cache: ContentCache
    source: ContentSource
    bandwidth: Bandwidth
    patience: float = PATIENCE
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)

    async def run(self, landing: Landing, urgency: Urgency, keep: frozenset[str]) -> CachedFile:
        """Goes on where an earlier download of the same version stopped, in this life of the agent or one before.

        A cut is mended while central is there and each try gets further. Raises what central refuses with,
        CentralUnavailable, TimeoutError after silence, Invalid for wrong bytes, StorageFull, OSError.
        """
        name, size, digest = landing.name, landing.size, landing.digest
        self.cache.check_room(name, size, digest=digest, keep=keep)  # or it would be asked for in vain
        async with _Place(self.cache.landing(name, size, digest=digest, keep=keep)) as place:
            cuts = 0
            while True:
                if begun_at := self.cache.landed(name, digest):
                    log.info("a download goes on at byte %d of %d: %s", begun_at, size, name)
                try:
                    path = await self._try(landing, begun_at, urgency, place)
                    return await self.cache.put(name, path, digest, keep=keep)
                except CentralUnavailable:
                    cuts += 1
                    if cuts > MENDED_CUTS or self.cache.landed(name, digest) <= begun_at:
                        raise
                await self.sleep(BACKOFF.delay(cuts, random.random()))

    async def _try(self, landing: Landing, offset: int, urgency: Urgency, place: "_Place") -> Path:
        if 0 < landing.size <= offset:
            landing.begin(path := await place.take(), offset)
            return path
        async with (
            asyncio.timeout(self.patience) as deadline,
            self.source.download(landing.name, offset) as chunks,
        ):
            # Central answers; only now does other content have to make room.
            path = await place.take()
            async with _appending(path) as file:
                landing.begin(path, offset)
                await self._write(file, landing, offset, chunks, urgency, deadline)
        return path

    async def _write(
        self,
        file: BufferedWriter,
        landing: Landing,
        written: int,
        chunks: AsyncIterator[bytes],
        urgency: Urgency,
        deadline: asyncio.Timeout,
    ) -> None:
        loop = asyncio.get_running_loop()
        async for chunk in chunks:
            if written + len(chunk) > landing.size:
                raise Invalid(f"it sent more than the {landing.size} bytes it announced.")
            deadline.reschedule(None)
            await to_thread(_write, file, chunk)
            written += len(chunk)
            landing.wrote(written)
            await self.bandwidth.spend(len(chunk), is_first=lambda: urgency.is_first)
            deadline.reschedule(loop.time() + self.patience)
        deadline.reschedule(None)
        if written < landing.size:
            raise Invalid(f"the transfer ended {landing.size - written} bytes early.")


class _Place:
    """Where a download lands. Once taken it is held to the end, between two tries too: what has come by then, and
    the room for the rest, are nobody else's."""

    def __init__(self, landing: AbstractAsyncContextManager[Path]) -> None:
        self._landing, self._held = landing, AsyncExitStack()
        self._path: Path | None = None

    async def take(self) -> Path:
        """Raises StorageFull."""
        if self._path is None:
            self._path = await self._held.enter_async_context(self._landing)
        return self._path

    async def __aenter__(self) -> "_Place":
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._held.__aexit__(*error)


@asynccontextmanager
async def _appending(path: Path) -> AsyncIterator[BufferedWriter]:
    # Not in a thread: a cancelled wait for one would lose the open file.
    file = path.open("ab")
    try:
        yield file
    finally:
        # Waits for a write that a cancelled download left in its thread.
        await to_thread(file.close)


def _write(file: BufferedWriter, chunk: bytes) -> None:
    file.write(chunk)
    file.flush()
