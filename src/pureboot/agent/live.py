"""Open pages hear that something changed: one look a second while somebody listens, and none while nobody does."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from pureboot.core.errors import Busy

# Open pages at once. A site's host has a few people before it; the rest reload by hand.
MOST = 16
# Seconds between two looks, and between two words where nothing changed: ages on the page grow.
PERIOD, STILL = 1.0, 15.0


class Live:
    """`fingerprint` is another one after whatever a page shows has changed."""

    def __init__(self, fingerprint: Callable[[], object], *, period: float = PERIOD, still: float = STILL) -> None:
        self._fingerprint, self._period, self._still = fingerprint, period, still
        self._closed = asyncio.Event()
        self.open = 0

    def check_room(self) -> None:
        """Raises Busy where enough pages listen."""
        if self.open >= MOST or self._closed.is_set():
            raise Busy("Too many pages are open.", hint="Reload this one by hand.", retry_after=30)

    async def changes(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events: the first at once, for what changed while the page was on its way."""
        self.open += 1
        try:
            seen, silent = self._fingerprint(), 0.0
            yield b"retry: 3000\nevent: change\ndata: now\n\n"
            while not await self._is_over():
                now, silent = self._fingerprint(), silent + self._period
                if now != seen or silent >= self._still:
                    seen, silent = now, 0.0
                    yield b"event: change\ndata: now\n\n"
        finally:
            self.open -= 1

    def close(self) -> None:
        """The program stops: nobody is kept waiting for it by an open page."""
        self._closed.set()

    async def _is_over(self) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), self._period)
        return self._closed.is_set()
