"""Which bytes a name stands for: the names of boot content, and the index of those a site holds."""

import contextlib
import hashlib
import itertools
import logging
import os
import re
import stat
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pureboot.core.errors import Invalid, Malformed, PureBootError
from pureboot.wire.messages import ContentCategory

log = logging.getLogger(__name__)

INDEX = "index"
LANDING = "landing"
NAME_LENGTH = 512
# A host without a clock of its own begins in 1970: what it noted says nothing.
NO_CLOCK = 1e9
DIGEST = re.compile("sha256:[0-9a-f]{64}")


def category_of(name: str) -> ContentCategory:
    """Of `category/path`. Raises Malformed: what is no such name is not worth a look-up."""
    category, *segments = name.split("/")
    if (
        len(name) > NAME_LENGTH
        or not name.isprintable()
        or "\\" in name
        or not segments
        or any(segment in ("", ".", "..") for segment in segments)
        or category not in list(ContentCategory)
    ):
        raise Malformed(
            "This is no name of boot content.",
            hint=f"A name is 'category/path', its category one of {', '.join(ContentCategory)}.",
        )
    return ContentCategory(category)


def path_of(root: Path, name: str, digest: str) -> Path:
    """Where the bytes lie: by category and digest alone. Raises Malformed (name), Invalid (digest)."""
    if not DIGEST.fullmatch(digest):
        raise Invalid("A digest is 'sha256:' and 64 hexadecimal digits.")
    return root / category_of(name) / digest.removeprefix("sha256:")


@dataclass(frozen=True, slots=True)
class CachedFile:
    """`digest` as documents write it: `sha256:` and 64 hexadecimal digits."""

    name: str
    path: Path
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    file: CachedFile
    mtime_ns: int

    def is_sound(self) -> bool:
        """Whether it is the file that was verified, as far as a stat tells."""
        found = self._found()
        return found is not None and found.st_mtime_ns == self.mtime_ns

    def is_doubtful(self) -> bool:
        """Whether it is as large as what was verified, and not as old: as in a copy of the folder, or changed."""
        found = self._found()
        return found is not None and found.st_mtime_ns != self.mtime_ns

    def is_damaged(self) -> bool:
        """Whether no reading could show that it is what was verified."""
        return self._found() is None

    def _found(self) -> os.stat_result | None:
        try:
            found = os.lstat(self.file.path)
        except OSError:
            return None
        return found if stat.S_ISREG(found.st_mode) and found.st_size == self.file.size else None


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    digest: str
    size: int
    mtime_ns: int


class Index:
    """One file a name. Its own mtime counts uses, not time: their order outlives a restart, whatever the clock says.
    Its atime is when it was last used, by that clock."""

    def __init__(self, root: Path, now: Callable[[], float]) -> None:
        self._root, self._now = root, now
        self._uses = itertools.count(1)
        self._used_at: dict[str, float] = {}

    def used_at(self, name: str) -> float:
        return self._used_at.get(name, self._now())

    def read(self) -> list[Entry]:
        """Least recently used first; what cannot be an entry is removed."""
        entries = []
        found = {path: path.lstat() for path in (self._root / INDEX).iterdir()}
        last_used = {path: int(stat.st_mtime) for path, stat in found.items()}
        self._uses = itertools.count(max(last_used.values(), default=0) + 1)
        for path in sorted(last_used, key=lambda path: (last_used[path], path.name)):
            try:
                entry = self._read(path)
                used_at = found[path].st_atime
                self._used_at[entry.file.name] = used_at if used_at > NO_CLOCK else self._now()
                entries.append(entry)
                with contextlib.suppress(OSError):  # reading it was no use
                    os.utime(path, ns=(found[path].st_atime_ns, found[path].st_mtime_ns))
            except (OSError, ValueError, PureBootError) as error:
                log.warning("an entry of the content index is damaged and is dropped: %s: %s", path.name, error)
                remove_file(path)
        return entries

    def write(self, entry: Entry, *, used: bool = True) -> None:
        """Not `used`: when it was, and after what, stays as it is."""
        file = entry.file
        record = _Record(name=file.name, digest=file.digest, size=file.size, mtime_ns=entry.mtime_ns)
        fresh = self._root / LANDING / uuid.uuid4().hex
        try:
            with fresh.open("w") as out:
                out.write(record.model_dump_json())
                out.flush()
                if used:
                    self._mark_used(file.name, out.fileno())
                else:
                    before = self._path(file.name).stat()
                    os.utime(out.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
                os.fsync(out.fileno())
            move(fresh, self._path(file.name))
        finally:
            remove_file(fresh)

    def remove(self, name: str) -> None:
        self._used_at.pop(name, None)
        remove_file(self._path(name))

    def touch(self, name: str) -> None:
        # What cannot be marked as used (evicted meanwhile, a read-only disk) can still be served.
        with contextlib.suppress(OSError):
            self._mark_used(name, self._path(name))

    def _mark_used(self, name: str, file: Path | int) -> None:
        self._used_at[name] = self._now()
        os.utime(file, (self._used_at[name], next(self._uses)))

    def _path(self, name: str) -> Path:
        return self._root / INDEX / f"{hashlib.sha256(name.encode()).hexdigest()}.json"

    def _read(self, path: Path) -> Entry:
        record = _Record.model_validate_json(path.read_bytes())
        if path != self._path(record.name):
            raise Invalid("it lies under another name than its own")
        place = path_of(self._root, record.name, record.digest)
        return Entry(CachedFile(record.name, place, record.digest, record.size), record.mtime_ns)


def move(source: Path, target: Path) -> None:
    os.replace(source, target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_file(path: Path) -> None:
    """Whatever lies there, if anything does, but for a folder: that is not ours."""
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        path.unlink()
