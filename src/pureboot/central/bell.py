"""Wakes those who wait for news of a site: the agents' long polls."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Bell:
    """Belongs to one event loop. `ring` must be called in it."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.closed = False

    @contextmanager
    def listen(self, *scopes: str) -> Iterator[asyncio.Event]:
        """An event that is set by the first ring for one of `scopes` from now on. Listen before you look."""
        event = asyncio.Event()
        if self.closed:
            event.set()
        for scope in scopes:
            self._waiting[scope].add(event)
        try:
            yield event
        finally:
            for scope in scopes:
                self._waiting[scope].discard(event)
                if not self._waiting[scope]:
                    del self._waiting[scope]

    def ring(self, scopes: Iterable[str]) -> None:
        for scope in scopes:
            for event in self._waiting.get(scope, ()):
                event.set()

    def close(self) -> None:
        """From now on nobody waits: the program stops."""
        self.closed = True
        self.ring(list(self._waiting))
