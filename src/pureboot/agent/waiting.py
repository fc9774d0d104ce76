"""Who waits for an item's outcome, and how they hear of it from the writer thread."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pureboot.wire.messages import PushResult


class Waiters:
    """Belongs to the event loop `bind` was called in; before that nobody is told of anything."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[PushResult]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self) -> None:
        self._loop = asyncio.get_running_loop()

    @contextmanager
    def expecting(self, queue_id: str) -> Iterator["asyncio.Future[PushResult]"]:
        future: asyncio.Future[PushResult] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(queue_id, []).append(future)
        try:
            yield future
        finally:
            waiting = self._waiting.get(queue_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(queue_id, None)

    def settled(self, result: PushResult) -> None:
        """From any thread."""
        if result.id in self._waiting:
            self.call(lambda: self._release(result))

    def call(self, work: Callable[[], None]) -> bool:
        """In the event loop, from any thread. False: nobody is there to be told."""
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _release(self, result: PushResult) -> None:
        for future in self._waiting.get(result.id, []):
            if not future.done():
                future.set_result(result)
