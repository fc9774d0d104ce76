"""A file as the DATA packets that carry it."""

from collections.abc import Hashable
from typing import Protocol

from pureboot.tftp.packets import data_header

# Bytes of a file that are read and laid out at once, and the most blocks: a system call for some forty of them.
STRETCH = 64 * 1024
STRETCH_BLOCKS = 128
# What is kept for the next transfer of the same file: some 4 MiB.
STRETCHES_KEPT = 64


class Changed(Exception):
    """The file is not what it was when the transfer began. The message is shown to the client."""


class Source(Protocol):
    """What is sent: `size` bytes that do not change. Two sources of one `version` have the same bytes."""

    @property
    def size(self) -> int: ...

    @property
    def version(self) -> Hashable: ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes. Called within the event loop: they should be at hand. Raises Changed or OSError."""
        ...


class Layouts:
    """A stretch of a file at a time; the latest ones are kept, for all transfers of the same file: a rack that boots
    reads and cuts its loader once."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Hashable, ...], list[bytes]] = {}

    def stretch(self, source: Source, blksize: int, first: int, blocks: int) -> list[bytes]:
        """At most `blocks` blocks from the block `first` on. Raises what reading raises."""
        key = source.version, blksize, first, blocks
        if (found := self._kept.get(key)) is None:
            found = self._kept[key] = _lay_out(source, blksize, first, blocks)
            if len(self._kept) > STRETCHES_KEPT:
                del self._kept[next(iter(self._kept))]
        return found

    def forget(self) -> None:
        self._kept.clear()


def _lay_out(source: Source, blksize: int, first: int, blocks: int) -> list[bytes]:
    offset = (first - 1) * blksize
    content = source.read(offset, min(blocks * blksize, source.size - offset))
    count = min(blocks, source.size // blksize + 2 - first)  # the last block is short, or empty
    return [data_header(first + index) + content[index * blksize : (index + 1) * blksize] for index in range(count)]


class Stretch:
    """Where one transfer is in its file."""

    def __init__(self, layouts: Layouts, source: Source, blksize: int, window: int) -> None:
        self._layouts, self._source, self._blksize = layouts, source, blksize
        self._blocks = max(window, min(STRETCH // blksize, STRETCH_BLOCKS))
        self._first = self._end = 0
        self._datagrams: list[bytes] = []

    def datagrams(self, first: int, count: int) -> list[bytes]:
        """Of `count` blocks from the block `first` on. Raises what reading raises."""
        if first < self._first or first + count > self._end:
            self._datagrams = self._layouts.stretch(self._source, self._blksize, first, self._blocks)
            self._first, self._end = first, first + len(self._datagrams)
        start = first - self._first
        return self._datagrams[start : start + count]
