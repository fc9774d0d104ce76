"""How many pushes central works on at once, and when those it turns away may come again.

Each that is refused gets a later moment than the one before, as with a reservation: a herd that comes together after an
outage is served in a row, where a common delay would bring it back together (PROTOCOL 3).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pureboot.core.errors import Busy

# Seconds a push is thought to take before one was seen, and how much the newest one counts.
FIRST_GUESS, NEWEST_COUNTS = 0.05, 0.2
# Seconds; a longer wait tells an agent nothing, since by then another number is true.
LONGEST = 60.0


class Gate:
    def __init__(self, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._now = now
        self._under_way = 0
        self._takes = FIRST_GUESS
        self._reserved_until = 0.0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Raises Busy where enough are under way."""
        if self._under_way >= self._limit:
            raise Busy("Central works on as many pushes as it can.", retry_after=self._reserve())
        self._under_way += 1
        began = self._now()
        try:
            yield
        finally:
            self._under_way -= 1
            self._takes += NEWEST_COUNTS * (self._now() - began - self._takes)

    def after_ms(self) -> int:
        """How long who was just served should wait before the next push; 0 where there is room."""
        return round(1000 * self._takes) if 2 * self._under_way > self._limit else 0

    def _reserve(self) -> float:
        """Behind those under way and those refused before; not so far that nobody would come."""
        now = self._now()
        free = max(self._reserved_until, now + self._takes)
        self._reserved_until = min(free + self._takes / self._limit, now + LONGEST)
        return self._reserved_until - now
