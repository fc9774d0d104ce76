"""Content: files by the name that workflows use, kept by the digest of what is in them.

A file is found by its row only, never by a path that somebody sent. Rows of equal files share one file.
"""

import asyncio
import errno
import hashlib
import os
import re
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, Row, Select, func, select

from pureboot.central import tables as t
from pureboot.central.clock import new_id
from pureboot.central.generation import first_number, generation_of
from pureboot.central.positions import EVERYWHERE, publish
from pureboot.central.sql import insert_new, locked, page_by, upsert
from pureboot.core.errors import Busy, Invalid, NotFound, StorageFull
from pureboot.wire.messages import ContentCategory, ContentDocument, ListPage

# Written in pieces of this size: fewer hops to a thread, and still nothing for a few uploads at once.
PIECE = 1024 * 1024

# A name is a URL's path, a folder's name at the agent and a word in a boot script, so it stays plain.
_SEGMENT = re.compile(r"[A-Za-z0-9_+@=~.-]+")
PATH_LENGTH = 500


def check_path(path: str) -> str:
    """A content's path inside its category. Raises Invalid."""
    segments = path.split("/")
    if len(path) > PATH_LENGTH or not all(_SEGMENT.fullmatch(s) and s not in (".", "..") for s in segments):
        raise Invalid(
            f"{path[:100]!r} is not a content path.",
            code="invalid_path",
            hint="Use letters, digits and _+@=~.- in names that are separated by single slashes.",
        )
    return path


def check_name(name: str) -> str:
    """A content's name, `category/path`. Raises Invalid."""
    category, slash, path = name.partition("/")
    if not slash or category not in list(ContentCategory):
        raise Invalid(
            f"{name[:100]!r} is not a content name.",
            code="invalid_content_name",
            hint=f"Write category/path, with a category of: {', '.join(ContentCategory)}.",
        )
    return f"{category}/{check_path(path)}"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has arrived whole and is on disk, but under no name yet."""

    path: Path
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """The folder of the files. It is made where it is missing, at any time: a backup may bring the database alone."""

    root: Path
    _replacing: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def open(self) -> None:
        """Uploads that the last run did not finish are thrown away."""
        self._arrivals.mkdir(parents=True, exist_ok=True)
        for leftover in self._arrivals.iterdir():
            leftover.unlink(missing_ok=True)

    @property
    def _arrivals(self) -> Path:
        return self.root / "arriving"

    def path(self, digest: str) -> Path:
        kind, _, name = digest.partition(":")
        return self.root / kind / name[:2] / name

    async def receive(self, chunks: AsyncIterator[bytes], expected: str | None) -> Upload:
        """Raises Invalid where the digest is not the expected one, StorageFull without space; then nothing is left."""
        path = self._arrivals / new_id()
        self._arrivals.mkdir(parents=True, exist_ok=True)
        try:
            upload = await _write(path, chunks)
            if expected not in (None, upload.digest):
                raise Invalid(
                    f"What arrived has the digest {upload.digest}, not {expected}.",
                    code="digest_mismatch",
                    hint="Send it again; nothing was stored.",
                )
            return upload
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull("There is no space left for this file; nothing was stored.") from error
            raise

    def keep(self, upload: Upload) -> None:
        """Under its digest, durably. Over an equal file it changes nothing. Raises Busy where the upload is gone."""
        target = self.path(upload.digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._replacing:
            # A transaction that is tried again finds it kept.
            if upload.path.exists():
                upload.path.rename(target)
            elif not target.exists():
                raise Busy("What arrived is gone from central's disk; no name stands for it.", hint="Send it again.")
        for folder in (target.parent, target.parent.parent):
            _sync_folder(folder)

    def files(self) -> list[tuple[str, int]]:
        """All digests that are kept, each with the moment its file was made: put again, it is another."""
        found = [path for path in self.root.glob("sha256/*/*") if path.is_file()]
        return [(f"sha256:{path.name}", path.stat().st_mtime_ns) for path in found]

    def discard(self, digest: str, made: int) -> bool:
        """Removes the file that was made then; not one that took its place. Whoever reads it reads on."""
        path = self.path(digest)
        with self._replacing:
            if not path.exists() or path.stat().st_mtime_ns != made:
                return False
            path.unlink()
            return True


async def _write(path: Path, chunks: AsyncIterator[bytes]) -> Upload:
    digest, size, buffer = hashlib.sha256(), 0, bytearray()

    def flush(file: BinaryIO) -> None:
        digest.update(buffer)
        file.write(buffer)

    with await asyncio.to_thread(path.open, "xb") as file:
        async for chunk in chunks:
            buffer += chunk
            size += len(chunk)
            if len(buffer) >= PIECE:
                await asyncio.to_thread(flush, file)
                buffer = bytearray()
        await asyncio.to_thread(_finish, file, flush)
    return Upload(path, f"sha256:{digest.hexdigest()}", size)


def _finish(file: BinaryIO, flush: Callable[[BinaryIO], None]) -> None:
    flush(file)
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes a rename into it durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def document(row: Row[Any]) -> ContentDocument:
    return ContentDocument.model_validate(row._asdict())


def find(conn: Connection, category: ContentCategory, path: str, *, lock: bool = False) -> ContentDocument:
    """Raises NotFound."""
    query = _of(category, path)
    row = conn.execute(locked(query) if lock else query).first()
    if row is None or row.deleted_at is not None:
        raise NotFound(f"There is no content {category}/{path[:100]}.", code="unknown_content")
    return document(row)


def _of(category: ContentCategory, path: str) -> Select[Any]:
    return select(t.content).where(t.content.c.category == category.value, t.content.c.path == path)


def put(
    conn: Connection, shelf: Shelf, category: ContentCategory, path: str, upload: Upload, now: datetime
) -> ContentDocument:
    """The same file again changes nothing. The file is in its place before the row that names it commits."""
    shelf.keep(upload)
    row = {
        "category": category.value,
        "path": path,
        "digest": upload.digest,
        "size": upload.size,
        "version": first_number(generation_of(conn)),
        "updated_at": now,
        "deleted_at": None,
    }
    # Of two that put one new name at once the second finds that of the first here, and locks it.
    if insert_new(conn, t.content, row):
        _tell(conn, row)
        return ContentDocument.model_validate(row)
    old = conn.execute(locked(_of(category, path))).one()
    if old.deleted_at is None and old.digest == upload.digest:
        return document(old)
    row["version"] = old.version + 1
    _store(conn, row)
    return ContentDocument.model_validate(row)


def remove(conn: Connection, category: ContentCategory, path: str, now: datetime) -> None:
    """Its bytes stay on disk for a while; other names may share them, and readers may be at it."""
    found = find(conn, category, path, lock=True)
    values = found.model_dump(mode="json") | {"updated_at": now, "deleted_at": now, "version": found.version + 1}
    _store(conn, values)


def _store(conn: Connection, row: dict[str, Any]) -> None:
    upsert(conn, t.content, [row])
    _tell(conn, row)


def _tell(conn: Connection, row: dict[str, Any]) -> None:
    op: Any = "delete" if row["deleted_at"] else "upsert"
    publish(conn, EVERYWHERE, "content", f"{row['category']}/{row['path']}", row["version"], op)


def named_digests(conn: Connection) -> set[str]:
    return set(conn.execute(select(t.content.c.digest).where(t.content.c.deleted_at.is_(None))).scalars())


@dataclass(frozen=True, slots=True)
class Total:
    files: int
    bytes: int


def totals(conn: Connection) -> dict[str, Total]:
    """By category."""
    rows = t.content.c
    query = select(rows.category, func.count(), func.sum(rows.size)).where(rows.deleted_at.is_(None))
    return {row[0]: Total(row[1], int(row[2])) for row in conn.execute(query.group_by(rows.category))}


def page(
    conn: Connection, category: ContentCategory | None, cursor: str | None, limit: int
) -> ListPage[ContentDocument]:
    name = t.content.c.category + "/" + t.content.c.path
    query = select(t.content).where(t.content.c.deleted_at.is_(None))
    if category is not None:
        query = query.where(t.content.c.category == category.value)
    rows, more = page_by(conn, query, name, cursor, limit)
    items = [document(row) for row in rows]
    return ListPage(items=items, next_cursor=items[-1].name if more else None)
