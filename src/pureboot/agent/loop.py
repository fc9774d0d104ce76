"""Background work that goes on for as long as the agent does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

# Seconds before a loop that stumbled begins anew: long enough to fill no log, short against an outage.
PAUSE = 5.0


class Loop:
    """One endless coroutine and its task. Whatever it stumbles over is logged, and it begins anew: a full disk or a
    mistake of ours must not end the drain of the outbox, or the watch over central, for good and in silence."""

    def __init__(self, name: str, run: Callable[[], Awaitable[None]], *, pause: float = PAUSE) -> None:
        self._name, self._run, self._pause = name, run, pause
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return self._task is not None

    def start(self) -> None:
        """Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._forever(), name=self._name)

    async def stop(self) -> None:
        """Returns once it has ended."""
        if self._task is not None:
            # Until 3.12 `wait_for` swallows a cancellation that comes together with what it waited for (cpython 86296).
            while not self._task.done():
                self._task.cancel()
                await asyncio.wait([self._task], timeout=0.1)
            self._task = None

    async def _forever(self) -> None:
        while True:
            try:
                await self._run()
            except Exception:  # what it is, the log says; that it goes on is what counts
                log.exception("%s stumbled and begins anew", self._name)
            await asyncio.sleep(self._pause)
