"""What a TFTP server sends: who asks for what, and where the bytes come from."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pureboot.tftp.layout import Changed, Source


class Served(Source, Protocol):
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """`name` as the client wrote it: to be looked up, never to become a path. `client` and `local` are the addresses of
    the two ends, without ports: what is generated may depend on who asks and by which way it came."""

    name: str
    client: str
    local: str


class Files(Protocol):
    async def find(self, asked: Asked) -> Served | None:
        """None: there is no such file. May take its time; a client that asks again meanwhile starts nothing. Raises
        PureBootError, whose message the client gets."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """Bytes in memory."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def version(self) -> bytes:
        return self.content

    def read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]

    def close(self) -> None:
        pass


class OpenFile:
    """A file, as it is when it is opened: what is written to it later is not served, and ends the transfer.

    Not a mapping: one that shrinks kills the process that looks at it. Opening asks the kernel for the whole file, so
    that reads find it in memory. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.version = self._look()
        self.size = self.version[0]
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_WILLNEED)

    def read(self, offset: int, length: int) -> bytes:
        content = os.pread(self._fd, length, offset)
        # Looked at after the read: what was read by then was read of this version.
        if len(content) != length or self._look() != self.version:
            raise Changed("The file changed while it was sent.")
        return content

    def close(self) -> None:
        os.close(self._fd)

    def _look(self) -> tuple[int, ...]:
        found = os.fstat(self._fd)
        return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino
