"""Boot content on the site's disk: found by name, kept by digest, least recently used out first.

    root/{bootloaders,scripts,templates,images}/<sha256 of the bytes>   the bytes
    root/index/<sha256 of the name>.json                                which of them a name stands for
    root/landing/                                                       what is not whole yet (*.part: goes on)

A name is only ever looked up in the index; no part of one becomes part of a path. The index speaks of bytes only
once they are verified and on disk, and forgets them before they go. So the process may die at any point: at the next
start whatever the index does not speak of is removed, and whatever is not as the index says is forgotten. But for what
differs in its time alone, as after a copy of the folder: it is served to nobody until its bytes are read again and are
those of its digest.
"""

import asyncio
import contextlib
import errno
import hashlib
import logging
import math
import os
import re
import threading
import time
import uuid
from asyncio import to_thread
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from weakref import WeakValueDictionary

from pureboot.agent.cache.content_index import (
    INDEX,
    LANDING,
    CachedFile,
    Entry,
    Index,
    category_of,
    move,
    path_of,
    remove_file,
)
from pureboot.agent.cache.parts import SUFFIX, Parts, size_of
from pureboot.agent.cache.reading import digest_and_time
from pureboot.core.errors import Invalid, StorageFull
from pureboot.wire.messages import ContentCategory

log = logging.getLogger(__name__)

# Seconds after which a use of what is used all the time is noted again.
NOTED_WITHIN = 3600.0
# Times the disk's floor that stay free when a file begins to come in, and below which files go again: below the floor
# itself no report is taken. Whatever else the disk holds may change in between, and no file comes and goes for it.
LEFT_FREE, GIVEN_BACK = 2.0, 1.5


class ContentCache:
    """Open at birth. `max_bytes`, and what `room` says at the time, bound the bytes held and those landing; so does the
    disk, of which `spare` says how many bytes are free beyond so many times its floor. One cache a folder, in one event
    loop."""

    def __init__(
        self,
        root: Path,
        max_bytes: int,
        *,
        room: Callable[[], float] = lambda: math.inf,
        spare: Callable[[float], float] = lambda _: math.inf,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._max_bytes, self._room, self._spare, self._now = max_bytes, room, spare, now
        self.hits = 0
        self.misses = 0
        self._root = root
        self._index = Index(root, now)
        self._parts = Parts(root)
        self._reserved: dict[Path, int] = {}
        self._entries: dict[str, Entry] = {}  # least recently used first
        # `_changing` is held over file work, so by threads only; `_memory` for a few lines, never over file work.
        self._changing = threading.RLock()
        self._memory = threading.Lock()
        self._confirming: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
        self._scan()

    @property
    def max_bytes(self) -> float:
        return self._limit(LEFT_FREE)

    @property
    def usage(self) -> int:
        """Bytes held; those that several names share count once."""
        return sum({entry.file.path: entry.file.size for entry in self._snapshot()}.values())

    def files(self) -> tuple[CachedFile, ...]:
        """Least recently used first."""
        return tuple(entry.file for entry in self._snapshot())

    def contains(self, name: str, digest: str) -> bool:
        """Costs one stat, so that an install is not begun on a file that is gone."""
        entry = self._entries.get(name)
        return entry is not None and entry.file.digest == digest and entry.is_sound()

    async def get(self, name: str, digest: str = "") -> CachedFile | None:
        """The file, which becomes the most recently used; with a digest, only if it is that version. Reads what is
        doubtful first."""
        entry = self._entries.get(name)
        if entry is not None and digest in ("", entry.file.digest) and not entry.is_sound():
            await self.confirm(entry.file)
            entry = self._entries.get(name)
        if entry is None or digest not in ("", entry.file.digest) or not entry.is_sound():
            self.misses += 1
            return None
        self.hits += 1
        if self._moves_up(entry) or self._now() - self._index.used_at(name) > NOTED_WITHIN:
            await to_thread(self._index.touch, name)
        return entry.file

    @contextlib.asynccontextmanager
    async def landing(
        self, name: str, size: int, *, digest: str = "", keep: frozenset[str] = frozenset()
    ) -> AsyncIterator[Path]:
        """A path for the bytes of `name` on their way in, and room for them; what still lies there at the end goes.

        With a digest it stays, to be gone on with by the next landing of this version, unless it is what fills the disk
        or is no such file. One landing of a version at a time. Raises StorageFull, also where the disk fills up inside.
        """
        path = self._parts.path(name, digest) if digest else self._root / LANDING / uuid.uuid4().hex
        self._reserved[path] = 0
        stays = bool(digest)
        try:
            with _full_disk_as_storage_full():
                await to_thread(self._reserve, name, path, size, keep)
                yield path
        except (StorageFull, Invalid):
            stays = False
            raise
        finally:
            with self._memory:
                del self._reserved[path]
            if not stays or not size_of(path):
                await to_thread(remove_file, path)

    def check_room(self, name: str, size: int, *, digest: str, keep: frozenset[str] = frozenset()) -> None:
        """Raises StorageFull where `landing` would, and evicts nothing."""
        self._victims_for(name, size, keep, self._excess(name, self._parts.path(name, digest), size))

    def landed(self, name: str, digest: str) -> int:
        """Bytes that are here of a version that was not landed whole. Costs one stat."""
        return size_of(self._parts.path(name, digest))

    async def forget_parts(self, wanted: Iterable[tuple[str, str]]) -> None:
        """What landed of other versions than those `wanted`, pairs of a name and a digest, is removed."""
        paths = {self._parts.path(name, digest) for name, digest in wanted}
        await to_thread(self._forget_parts, paths)

    async def put(self, name: str, source: Path, digest: str, *, keep: frozenset[str] = frozenset()) -> CachedFile:
        """Takes `source` over, a file on the cache's own file system: afterwards it is kept, or gone.

        No name in `keep` is evicted for it. Raises Malformed (name), Invalid (digest), StorageFull.
        """
        return await to_thread(self._put, name, source, digest, keep)

    async def evict(self, name: str) -> bool:
        return await to_thread(self._evict, name)

    async def discard(self, file: CachedFile) -> list[str]:
        """Takes bytes out that are not those of their digest, under all names. Their names."""
        return await to_thread(self._discard, file)

    def doubtful(self) -> list[CachedFile]:
        """What is as large as it was kept, and not as old; each file under one name, the smallest first. Costs a stat
        for each."""
        found = {entry.file.path: entry.file for entry in self._snapshot() if entry.is_doubtful()}
        return sorted(found.values(), key=lambda file: file.size)

    async def confirm(self, file: CachedFile) -> list[str]:
        """Reads a doubtful file again, once however many wait for it. Then it is sound, or out of the cache, as damaged
        ones are: the names that went. One that the disk cannot read stays doubtful."""
        async with self._confirming.setdefault(file.path, asyncio.Lock()):
            gone = await to_thread(self._drop_where, Entry.is_damaged, file.path)
            if gone or not await to_thread(self._is_doubtful, file.path):
                return gone
            try:
                digest, made = await digest_and_time(file.path)
            except OSError as error:
                log.error("kept content cannot be read: %s: %s", file.name, error)
                return []
            if digest == file.digest:
                await to_thread(self._renew, file.path, made)
                return []
            return await to_thread(self._drop_where, Entry.is_doubtful, file.path)

    async def clear(self, *, keep: frozenset[str]) -> tuple[str, ...]:
        """Evicts all but `keep`, for a person. Names of what went."""
        return await to_thread(self._clear, keep)

    async def expire(
        self, age: Callable[[ContentCategory], float], *, keep: frozenset[str], must_stay: frozenset[str]
    ) -> tuple[str, ...]:
        """Evicts what was last used longer ago than its category's `age` in seconds and is not in `keep`; then, while
        there is more than the limit, what is not in `must_stay`. Names of what went."""
        return await to_thread(self._expire, age, keep, must_stay)

    def _limit(self, floors: float) -> float:
        """With so many times the disk's floor left free."""
        on_disk = self.usage + self._parts.usage() + self._spare(floors)
        return max(0, min(self._max_bytes, self._room(), on_disk))

    def _snapshot(self) -> list[Entry]:
        with self._memory:
            return list(self._entries.values())

    def _moves_up(self, entry: Entry) -> bool:
        name = entry.file.name
        with self._memory:
            if self._entries.get(name) is not entry or next(reversed(self._entries)) == name:
                return False
            self._entries[name] = self._entries.pop(name)
            return True

    # From here on everything works on files: at birth, or in a thread.

    def _scan(self) -> None:
        for folder in (INDEX, LANDING, *ContentCategory):
            (self._root / folder).mkdir(parents=True, exist_ok=True)
        for leftover in (self._root / LANDING).iterdir():
            if leftover.suffix != SUFFIX:
                remove_file(leftover)
        self._entries = {entry.file.name: entry for entry in self._index.read()}
        for path in {entry.file.path for entry in self._entries.values() if entry.is_damaged()}:
            self._drop_where(Entry.is_damaged, path)
        self._remove_orphans()

    def _remove_orphans(self) -> None:
        known = {entry.file.path for entry in self._entries.values()}
        for category in ContentCategory:
            for path in (self._root / category).iterdir():
                if path not in known and re.fullmatch("[0-9a-f]{64}", path.name):
                    remove_file(path)

    def _put(self, name: str, source: Path, digest: str, keep: frozenset[str]) -> CachedFile:
        try:
            with _full_disk_as_storage_full():
                path = path_of(self._root, name, digest)
                found = _verified(source, name, digest)
                entry = Entry(CachedFile(name, path, digest, found.st_size), found.st_mtime_ns)
                with self._changing:
                    return self._keep(entry, source, keep).file
        finally:
            remove_file(source)

    def _keep(self, entry: Entry, source: Path, keep: frozenset[str]) -> Entry:
        name, path = entry.file.name, entry.file.path
        self._drop_where(lambda held: not held.is_sound(), path)
        try:
            if held := next((other for other in self._snapshot() if other.file.path == path), None):
                entry = Entry(entry.file, held.mtime_ns)
            else:
                self._make_room(name, source, entry.file.size, keep, floors=GIVEN_BACK)
                move(source, path)
            self._index.write(entry)
        except OSError:
            self._remove_unreferenced(path)
            raise
        with self._memory:
            old = self._entries.pop(name, entry)
            self._entries[name] = entry
        self._remove_unreferenced(old.file.path)
        return entry

    def _reserve(self, name: str, path: Path, size: int, keep: frozenset[str]) -> None:
        with self._changing:
            self._make_room(name, path, size, keep)
            with self._memory:
                if path in self._reserved:  # else whoever waited for it has gone
                    self._reserved[path] = size

    def _make_room(
        self, name: str, source: Path, size: int, keep: frozenset[str], *, floors: float = LEFT_FREE
    ) -> None:
        """Evicts nothing unless `size` more bytes then fit. What was not landed whole goes first."""
        excess = self._excess(name, source, size, floors)
        excess += self._give_up_parts(excess)
        for victim in self._victims_for(name, size, keep, excess):
            log.info("cached content makes room: %s", victim.file.name)
            self._drop(victim)

    def _excess(self, name: str, source: Path, size: int, floors: float = LEFT_FREE) -> float:
        """Bytes beyond the limit with `size` more, and without the old version of a boot loader, which goes once the
        new one is here."""
        reserved = sum(room for path, room in list(self._reserved.items()) if path != source)
        old = sum(entry.file.size for entry in self._snapshot() if entry.file.name == name and _outlives(name))
        return self.usage + reserved + size - old - self._limit(floors)

    def _victims_for(self, name: str, size: int, keep: frozenset[str], excess: float) -> list[Entry]:
        """What has to go for a new version of `name`: first the one that it replaces. Raises StorageFull."""
        victims, freed = self._victims(name, keep | {name} if _outlives(name) else keep - {name}, excess)
        if freed < excess:
            raise StorageFull(
                f"{name} ({size} bytes) does not fit into the cache: {excess - freed:.0f} bytes are too many beside "
                "what must stay and what is on its way.",
                hint=f"{self._way_out()}; boots go on with what the cache holds.",
                retry_after=60,
            )
        return victims

    def _way_out(self) -> str:
        limit = min(self._max_bytes, self._room())
        if self.max_bytes < limit:
            return f"Free disk space: reports need some, and leave {self.max_bytes:.0f} bytes for content"
        return f"Raise the limit of the agent's cache, {limit:.0f} bytes"

    def _give_up_parts(self, excess: float) -> int:
        """Removes as many as the excess asks for. Bytes of those that stay."""
        kept = 0
        for path, size in self._parts.idle(self._landing_now()).items():
            if excess + kept + size > 0:
                remove_file(path)
            else:
                kept += size
        return kept

    def _forget_parts(self, wanted: set[Path]) -> None:
        with self._changing:
            self._parts.forget(wanted, self._landing_now())

    def _landing_now(self) -> set[Path]:
        with self._memory:
            return set(self._reserved)

    def _victims(self, first: str, keep: frozenset[str], excess: float) -> tuple[list[Entry], int]:
        entries = self._snapshot()
        kept = {entry.file.path for entry in entries if entry.file.name in keep}
        names_left = Counter(entry.file.path for entry in entries)
        victims: list[Entry] = []
        freed = 0
        for entry in sorted(entries, key=lambda entry: entry.file.name != first):
            if freed >= excess:
                break
            if entry.file.path not in kept:
                victims.append(entry)
                names_left[entry.file.path] -= 1
                freed += 0 if names_left[entry.file.path] else entry.file.size
        return victims, freed

    def _evict(self, name: str) -> bool:
        with self._changing:
            entry = self._entries.get(name)
            if entry is not None:
                self._drop(entry)
            return entry is not None

    def _clear(self, keep: frozenset[str]) -> tuple[str, ...]:
        with self._changing:
            cleared = [entry for entry in self._snapshot() if entry.file.name not in keep]
            for entry in cleared:
                log.info("cached content is cleared away: %s", entry.file.name)
                self._drop(entry)
            return tuple(sorted(entry.file.name for entry in cleared))

    def _expire(
        self, age: Callable[[ContentCategory], float], keep: frozenset[str], must_stay: frozenset[str]
    ) -> tuple[str, ...]:
        with self._changing:
            before = {entry.file.name for entry in self._snapshot()}
            for entry in self._snapshot():
                name = entry.file.name
                if name not in keep and self._now() - self._index.used_at(name) > age(category_of(name)):
                    log.info("cached content was not used for long and goes: %s", name)
                    self._drop(entry)
            for entry in self._victims("", must_stay, self.usage - self._limit(GIVEN_BACK))[0]:
                log.info("cached content is beyond the limit and goes: %s", entry.file.name)
                self._drop(entry)
            return tuple(sorted(before - {entry.file.name for entry in self._snapshot()}))

    def _discard(self, file: CachedFile) -> list[str]:
        with self._changing:
            entries = [entry for entry in self._snapshot() if entry.file.path == file.path]
            for entry in entries:
                self._drop(entry)
            return [entry.file.name for entry in entries]

    def _drop_where(self, is_bad: Callable[[Entry], bool], path: Path) -> list[str]:
        """The names of `path` that went."""
        with self._changing:
            bad = [entry for entry in self._snapshot() if entry.file.path == path and is_bad(entry)]
            for entry in bad:
                log.warning("cached content is not as it was kept and is dropped: %s", entry.file.name)
                self._drop(entry)
            return [entry.file.name for entry in bad]

    def _is_doubtful(self, path: Path) -> bool:
        return any(entry.file.path == path and entry.is_doubtful() for entry in self._snapshot())

    def _renew(self, path: Path, mtime_ns: int) -> None:
        """The bytes are those of the digest, and were made then; what has changed since stays doubtful."""
        with self._changing:
            for entry in self._snapshot():
                fresh = Entry(entry.file, mtime_ns)
                if entry.file.path != path or entry.is_sound() or not fresh.is_sound():
                    continue
                with self._memory:
                    self._entries[entry.file.name] = fresh
                # A disk that takes no note of it is read again after the next start.
                with contextlib.suppress(OSError):
                    self._index.write(fresh, used=False)

    def _drop(self, entry: Entry) -> None:
        with self._memory:
            del self._entries[entry.file.name]
        self._index.remove(entry.file.name)
        self._remove_unreferenced(entry.file.path)

    def _remove_unreferenced(self, path: Path) -> None:
        if all(entry.file.path != path for entry in self._snapshot()):
            remove_file(path)


def _outlives(name: str) -> bool:
    """Whether a file is of use until its next version is here. Boot loaders boot machines all the same, and the line
    may be cut meanwhile; for their size the cache may be beyond its limit for so long."""
    return category_of(name) is ContentCategory.BOOTLOADERS


def _verified(source: Path, name: str, digest: str) -> os.stat_result:
    """What was read is on disk, and is what `digest` says."""
    with source.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest.removeprefix("sha256:"):
            raise Invalid(f"The bytes of {name} are not those of its digest.", code="digest_mismatch")
        os.fsync(file.fileno())
        return os.fstat(file.fileno())


@contextlib.contextmanager
def _full_disk_as_storage_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull(
            "There is no space left for boot content.",
            hint="Free disk space, or lower the limit of the agent's cache; boots go on with what it holds.",
            retry_after=60,
        ) from error
