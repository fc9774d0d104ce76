"""Content from central, at most once: whoever asks for a file that is not here waits for one download of it."""

import asyncio
import logging
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from io import BufferedWriter
from pathlib import Path
from typing import Protocol

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.cache.content_index import CachedFile
from pureboot.core.errors import Busy, CentralUnavailable, Invalid, NotFound, PureBootError
from pureboot.wire.messages import ContentDocument

log = logging.getLogger(__name__)

# Seconds without one byte from central, after which it counts as dead. Its WAN may be slow, but not silent.
PATIENCE = 10.0


class ContentSource(Protocol):
    def download(self, name: str, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of `name` from `offset` on. Entering raises CentralUnavailable, NotFound and what else central
        refuses with; so does iterating, where the transfer ends early."""
        ...


class ContentFetcher:
    """`wanted` gives central's current document of a name, from the feed; `keep` the names that must not be evicted
    to make room: boot loaders, and what approved installs need."""

    def __init__(
        self,
        cache: ContentCache,
        source: ContentSource,
        *,
        wanted: Callable[[str], ContentDocument | None],
        keep: Callable[[], frozenset[str]] = frozenset,
        patience: float = PATIENCE,
    ) -> None:
        self._cache = cache
        self._source = source
        self._wanted = wanted
        self._keep = keep
        self._patience = patience
        self._flights: dict[tuple[str, str], asyncio.Task[CachedFile]] = {}

    async def aclose(self) -> None:
        """Gives up the downloads under way; whoever waits for one gets CentralUnavailable."""
        for flight in (flights := list(self._flights.values())):
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def document(self, name: str) -> ContentDocument:
        """Raises NotFound."""
        document = self._wanted(name)
        if document is None:
            raise NotFound(
                f"Central has no content {name!r}.",
                hint="`pureboot content list` shows what it has; the site learns of a new file within seconds.",
            )
        return document

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those that are not whole and verified here in central's current version.

        Costs one stat a name: for a node that may be installed now, which costs an fsync anyway, not for every boot.
        """
        return tuple(name for name in names if not self._holds(name))

    def _holds(self, name: str) -> bool:
        document = self._wanted(name)
        return document is not None and self._cache.contains(name, document.digest)

    async def fetch(self, name: str) -> CachedFile:
        """The file in central's current version, downloaded if it is not here.

        An asker who goes away takes the download from nobody. An error reaches all who wait, and the next one tries
        anew. Raises NotFound, CentralUnavailable, StorageFull, and Busy where central's bytes are not those that it
        announced or the disk fails.
        """
        document = self.document(name)
        if file := await self._cache.get(name, document.digest):
            return file
        flight = self._flight(document)
        await asyncio.wait([flight])
        if flight.cancelled():
            raise CentralUnavailable("The agent is stopping.", hint="Ask again when it is back.")
        return flight.result()

    def _flight(self, document: ContentDocument) -> asyncio.Task[CachedFile]:
        key = document.name, document.digest
        if key not in self._flights:
            self._flights[key] = asyncio.create_task(self._download(document), name=f"download of {document.name}")
            self._flights[key].add_done_callback(lambda flight: self._landed(key, flight))
        return self._flights[key]

    def _landed(self, key: tuple[str, str], flight: asyncio.Task[CachedFile]) -> None:
        del self._flights[key]
        if not flight.cancelled() and (error := flight.exception()):
            log.warning("content could not be fetched: %s: %s", key[0], error)

    async def _download(self, document: ContentDocument) -> CachedFile:
        try:
            return await self._transfer(document)
        except TimeoutError:
            raise CentralUnavailable(
                f"Central sent nothing of {document.name} for {self._patience:g} s.", retry_after=self._patience
            ) from None
        except OSError as error:
            raise Busy(
                f"The agent cannot keep {document.name}: {error}.",
                hint="Look at the disk of its cache.",
                retry_after=60,
            ) from error
        except (Busy, NotFound):
            raise
        except PureBootError as error:
            # Nothing that the machine that asks could mend. Wrong bytes are this file's trouble, not all of central's.
            kind = Busy if isinstance(error, Invalid) else CentralUnavailable
            raise kind(
                f"Central did not deliver {document.name}: {error.message}", hint=error.hint, retry_after=self._patience
            ) from error

    async def _transfer(self, document: ContentDocument) -> CachedFile:
        name, keep = document.name, self._keep()
        async with (
            asyncio.timeout(self._patience) as deadline,
            self._source.download(name) as chunks,
            # Central answers; only now does other content have to make room.
            self._cache.landing(name, document.size, keep=keep) as path,
        ):
            await self._write(path, document, chunks, deadline)
            deadline.reschedule(None)
            return await self._cache.put(name, path, document.digest, keep=keep)

    async def _write(
        self, path: Path, document: ContentDocument, chunks: AsyncIterator[bytes], deadline: asyncio.Timeout
    ) -> None:
        loop = asyncio.get_running_loop()
        left = document.size
        file = _create(path)
        try:
            async for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    raise Invalid(f"it sent more than the {document.size} bytes it announced.")
                await to_thread(file.write, chunk)
                deadline.reschedule(loop.time() + self._patience)
        finally:
            await to_thread(file.close)
        if left > 0:
            raise Invalid(f"the transfer ended {left} bytes early.")


def _create(path: Path) -> BufferedWriter:
    # Not in a thread: a cancelled wait for one would lose the open file.
    return path.open("wb")
