"""What downloads may take of the line to central."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


class Bandwidth:
    """`limit` in bytes a second, over all downloads together; 0: none.

    What a machine waits for goes first: while there is any, downloads that look ahead stand still.
    """

    def __init__(
        self,
        limit: int = 0,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._limit = limit
        self._now, self._sleep = now, sleep
        self._paid_until = 0.0
        self._waited_for = 0
        self._changed = asyncio.Event()

    @contextmanager
    def first(self) -> Iterator[None]:
        """A machine waits for a download."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    async def spend(self, size: int, *, is_first: Callable[[], bool]) -> None:
        """Returns when the line had the time for `size` bytes, and it is the caller's turn again."""
        if not self._limit:
            return
        self._paid_until = max(self._now(), self._paid_until) + size / self._limit
        await self._sleep(self._paid_until - self._now())
        while self._waited_for and not is_first():
            await self._changed.wait()

    def _count(self, change: int) -> None:
        self._waited_for += change
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
