"""Boot content as it is handed out: whole on disk, or read along while it comes from central.

Whoever reads along has a descriptor and a pace of their own. The end of a file is held back until its digest holds, so
that what turns out wrong is cut short at every machine and taken for whole by none.
"""

import asyncio
import os
from pathlib import Path
from typing import Protocol

from pureboot.agent.cache.content_index import CachedFile
from pureboot.core.errors import Busy, PureBootError
from pureboot.wire.messages import ContentDocument

# Bytes at the end of a file that nobody gets before the digest of the whole holds; of a smaller file, all.
HELD_BACK = 256 * 1024


class Readable(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def size(self) -> int: ...

    def open(self) -> int:
        """A descriptor of the caller's own, to be closed by the caller. Raises Busy and what the download failed
        with."""
        ...

    async def readable(self, position: int) -> int:
        """Up to which byte it may be read; waits until that is beyond `position`, which is inside of the file. Raises
        what the download failed with."""
        ...

    def check(self, opened: tuple[int, int], now: tuple[int, int]) -> None:
        """Size and time of the file that is served, when it was opened and now. Raises Busy where somebody changed
        it."""
        ...


class Whole:
    """A file that is kept."""

    def __init__(self, file: CachedFile) -> None:
        self._file = file
        self.name, self.digest, self.size = file.name, file.digest, file.size

    def open(self) -> int:
        return _open(self._file.path, self.name)

    async def readable(self, position: int) -> int:
        return self.size

    def check(self, opened: tuple[int, int], now: tuple[int, int]) -> None:
        if opened != now:
            raise Busy(f"{self.name} changed while it was served.", hint="Ask again.")


class Landing:
    """A file on its way in. One writer says how far it is; a reader that is slow, or gone, holds up nobody. Readers may
    have what lies before `edge`."""

    def __init__(self, document: ContentDocument) -> None:
        self.document = document
        self.name, self.digest, self.size = document.name, document.digest, document.size
        self.was_resumed = False
        self._descriptor: int | None = None
        self._path: Path | None = None
        self.edge = 0
        self._error: PureBootError | None = None
        self._moved = asyncio.Event()

    # Its writer

    def begin(self, path: Path, written: int) -> None:
        """Central answers; `written` bytes are in the file at `path`. May be said again after a cut."""
        if self._descriptor is None:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.was_resumed = self.was_resumed or written > 0
        self.wrote(written)

    def wrote(self, written: int) -> None:
        self.edge = max(self.edge, min(written, self.size - HELD_BACK))
        self._stir()

    def land(self, file: CachedFile) -> None:
        """It is whole, verified and kept."""
        self._path, self.edge = file.path, self.size
        self._close()
        self._stir()

    def fail(self, error: PureBootError) -> None:
        """Nothing more comes of it; what it came to before stays."""
        if self._path is None and self._error is None:
            self._error = error
            self._close()
            self._stir()

    # Its readers

    async def begun(self) -> None:
        """Returns once central sends. Raises what it failed with before."""
        while self._descriptor is None and self._path is None:
            await self._move()

    def open(self) -> int:
        if self._path is not None:
            return _open(self._path, self.name)
        if self._descriptor is None:
            raise self._error or Busy(f"{self.name} is not here yet.", hint="Ask again.")
        return os.dup(self._descriptor)

    async def readable(self, position: int) -> int:
        while self.edge <= position:
            await self._move()
        return self.edge

    def check(self, opened: tuple[int, int], now: tuple[int, int]) -> None:
        """It grows as it should; what it comes to, its digest says."""

    async def _move(self) -> None:
        if self._error is not None:
            raise self._error
        await self._moved.wait()

    def _stir(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _open(path: Path, name: str) -> int:
    # Not in a thread: a cancelled wait for one would lose the open file.
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Busy(f"{name} is being replaced.", hint="Ask again.") from None
