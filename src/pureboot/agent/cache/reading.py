"""Kept bytes, read again to compare them with their digest."""

import hashlib
import os
from asyncio import to_thread
from collections.abc import Awaitable, Callable

# Bytes read at a time, in a thread: the loop stays free, and whoever stops waits for no more than these.
PIECE = 1024 * 1024


async def digest_of(source: int, pause: Callable[[int], Awaitable[None]] | None = None) -> str:
    """As documents write it. `pause` follows each piece, of so many bytes. Raises OSError."""
    digest, position = hashlib.sha256(), 0
    while piece := await to_thread(_take, digest, source, position):
        position += piece
        if pause is not None:
            await pause(piece)
    return f"sha256:{digest.hexdigest()}"


async def digest_and_time(path: str | os.PathLike[str]) -> tuple[str, int]:
    """Of the file that lies there, and its mtime in nanoseconds, as it was before it was read. Raises OSError."""
    # Not in a thread: a cancelled wait for one would lose the open file.
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        made = os.fstat(source).st_mtime_ns
        return await digest_of(source), made
    finally:
        await to_thread(os.close, source)


def _take(digest: "hashlib._Hash", source: int, position: int) -> int:
    piece = os.pread(source, PIECE, position)
    digest.update(piece)
    return len(piece)
