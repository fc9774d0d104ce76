"""Content from central, at most once: whoever asks for a file that is not here waits for one download of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from pureboot.agent.bandwidth import Bandwidth
from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.cache.content_index import CachedFile
from pureboot.agent.download import PATIENCE, ContentSource, Download, Urgency
from pureboot.agent.landing import Landing, Readable, Whole
from pureboot.core.errors import Busy, CentralUnavailable, Invalid, NotFound, PureBootError
from pureboot.wire.messages import ContentCategory, ContentDocument

__all__ = ["ContentFetcher", "ContentSource"]

log = logging.getLogger(__name__)


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
        bandwidth: Bandwidth | None = None,
        patience: float = PATIENCE,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cache = cache
        self._download = Download(cache, source, bandwidth or Bandwidth(), patience, sleep)
        self._wanted = wanted
        self._keep = keep
        self._flights: dict[tuple[str, str], _Flight] = {}

    async def aclose(self) -> None:
        """Gives up the downloads under way; whoever waits for one gets CentralUnavailable."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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

    async def fetch(self, name: str, *, keep: Iterable[str] = (), first: bool = False) -> CachedFile:
        """The file in central's current version, downloaded if it is not here; no file in `keep` makes room for it.
        `first`: a machine waits for it.

        An asker who goes away takes the download from nobody. An error reaches all who wait, and the next one tries
        anew. Raises NotFound, CentralUnavailable, StorageFull, and Busy where central's bytes are not those that it
        announced or the disk fails.
        """
        document = self.document(name)
        if file := await self._cache.get(name, document.digest):
            return file
        flight = self._flight(document, keep)
        if first:
            flight.urgency.hurry()
        await asyncio.wait([flight.task])
        if flight.task.cancelled():
            raise _stopping()
        return flight.task.result()

    async def open(self, name: str) -> Readable:
        """The file for a machine that waits for it, to be read while it lands; its download goes before those that look
        ahead. Returns once central sends. Raises as `fetch` does; so does reading."""
        document = self.document(name)
        if file := await self._cache.get(name, document.digest):
            return Whole(file)
        flight = self._flight(document)
        flight.urgency.hurry()
        while True:
            landing = flight.landing
            try:
                await landing.begun()
            except PureBootError:
                if flight.landing is landing:
                    raise
            else:
                return landing

    async def forget_parts(self, documents: Iterable[ContentDocument]) -> None:
        """What landed of files that are not among central's current `documents` goes."""
        await self._cache.forget_parts((document.name, document.digest) for document in documents)

    async def expire(self, age: Callable[[ContentCategory], float], *, keep: Iterable[str]) -> tuple[str, ...]:
        """Removes what lay unused for longer than the `age` of its category (seconds) and is not in `keep`, and what
        is beyond the cache's limit. Names of what went."""
        must_stay = self._keep()
        return await self._cache.expire(age, keep=must_stay.union(keep), must_stay=must_stay)

    def _flight(self, document: ContentDocument, keep: Iterable[str] = ()) -> "_Flight":
        key = document.name, document.digest
        if key not in self._flights:
            flight = _Flight(self._download, Landing(document), Urgency(self._download.bandwidth))
            flight.task = asyncio.create_task(flight.fly(self._keep().union(keep)), name=f"download of {document.name}")
            flight.task.add_done_callback(lambda task: self._landed(key, flight))
            self._flights[key] = flight
        return self._flights[key]

    def _landed(self, key: tuple[str, str], flight: "_Flight") -> None:
        del self._flights[key]
        flight.end()
        if not flight.task.cancelled() and (error := flight.task.exception()):
            log.warning("content could not be fetched: %s: %s", key[0], error)


class _Flight:
    """One download, however many wait for it; fetched anew once where what was resumed turns out wrong."""

    task: asyncio.Task[CachedFile]

    def __init__(self, download: Download, landing: Landing, urgency: Urgency) -> None:
        self._download = download
        self.landing, self.urgency = landing, urgency

    async def fly(self, keep: frozenset[str]) -> CachedFile:
        try:
            return await self._land(keep)
        except _Spoilt as spoilt:
            log.warning("what was resumed is wrong and is fetched anew: %s: %s", self.landing.name, spoilt)
            failed, self.landing = self.landing, Landing(self.landing.document)
            failed.fail(spoilt.said)
        try:
            return await self._land(keep)
        except _Spoilt as spoilt:
            self.landing.fail(spoilt.said)
            raise spoilt.said from spoilt

    def end(self) -> None:
        """However it ended, even before it began: nobody is left waiting."""
        self.landing.fail(_stopping())
        self.urgency.end()

    async def _land(self, keep: frozenset[str]) -> CachedFile:
        landing = self.landing
        try:
            file = await self._download.run(landing, self.urgency, keep)
        except (PureBootError, OSError) as error:
            said = _ours(landing.name, error, self._download.patience)
            if landing.was_resumed and isinstance(error, Invalid):
                raise _Spoilt(said) from error
            landing.fail(said)
            raise said from error
        landing.land(file)
        return file


class _Spoilt(Exception):
    """Wrong bytes, of which some came earlier. `said`: what whoever waits is told."""

    def __init__(self, said: PureBootError) -> None:
        super().__init__(said.message)
        self.said = said


def _ours(name: str, error: PureBootError | OSError, patience: float) -> PureBootError:
    """What is said to whoever waits for a file. Nothing that a machine could mend becomes CentralUnavailable, but for
    wrong bytes: those are this file's trouble, not all of central's."""
    if isinstance(error, TimeoutError):
        return CentralUnavailable(f"Central sent nothing of {name} for {patience:g} s.", retry_after=patience)
    if isinstance(error, OSError):
        hint = "Look at the disk of its cache."
        return Busy(f"The agent cannot keep {name}: {error}.", hint=hint, retry_after=60)
    if isinstance(error, (Busy, NotFound)):
        return error
    kind = Busy if isinstance(error, Invalid) else CentralUnavailable
    return kind(f"Central did not deliver {name}: {error.message}", hint=error.hint, retry_after=patience)


def _stopping() -> CentralUnavailable:
    return CentralUnavailable("The agent is stopping.", hint="Ask again when it is back.")
