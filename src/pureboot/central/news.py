"""What changed, for the browsers that are open: one look at the database for all of them.

A topic is a question whose answer changes when something did. It is asked, while somebody listens, of the database: of
several processes on one, each learns what the others did.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, func, select

from pureboot.central import tables as t
from pureboot.central.db import Database
from pureboot.core.errors import Busy, PureBootError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Topic:
    """`question` answers with one row. `gap`: seconds between two pieces of news, so that a busy fleet does not make
    browsers fetch all the time; `latest`: said again after so many seconds, where time alone makes a difference."""

    name: str
    question: Select[*tuple[Any, ...]]
    gap: float = 1.0
    latest: float = float("inf")


# Whatever a site's agent is told of rises a position: nodes, conflicts, settings, workflows, content.
_CHANGES = select(func.sum(t.site_pos.c.pos), func.count())
_BEATS = select(func.max(t.agent.c.last_seen), _CHANGES.with_only_columns(func.sum(t.site_pos.c.pos)).scalar_subquery())
_STANDING = select(
    func.count(), func.sum(t.alert.c.times), func.max(t.alert.c.last_at), func.count(t.alert.c.acknowledged_at)
).where(t.alert.c.ended_at.is_(None))
TOPICS = (
    Topic("nodes", _CHANGES, gap=2),
    Topic("conflicts", _CHANGES, gap=1),
    Topic("alerts", _STANDING, gap=1),
    # That an agent falls silent changes no row.
    Topic("sites", _BEATS, gap=5, latest=15),
)

# Seconds between two looks.
PERIOD = 1.0
# At once, and of one session.
MOST_LISTENERS, MOST_OF_ONE = 500, 50


@dataclass(slots=True, eq=False)
class Listener:
    """Topics that it has not been told of yet; `over` once the program stops or its session ended."""

    key: str
    topics: set[str] = field(default_factory=set)
    over: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def next(self, seconds: float) -> frozenset[str]:
        """What changed since it was asked last; nothing, if nothing did for so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wake.wait(), seconds)
        self.wake.clear()
        told, self.topics = frozenset(self.topics), set()
        return told

    def tell(self, topics: set[str]) -> None:
        self.topics |= topics
        self.wake.set()

    def end(self) -> None:
        self.over = True
        self.wake.set()


class News:
    """Belongs to one event loop."""

    def __init__(
        self,
        db: Database,
        topics: tuple[Topic, ...] = TOPICS,
        period: float = PERIOD,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._topics = topics
        self._period = period
        self._now = now
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._seen: dict[str, Any] = {}
        self._told: dict[str, float] = {}
        self._closed = False
        self.count = 0

    def check_room(self, key: str) -> None:
        """Raises Busy where enough listen, in all or of this session."""
        of_one = sum(listener.key == key for listener in self._listeners)
        if self._closed or len(self._listeners) >= MOST_LISTENERS or of_one >= MOST_OF_ONE:
            raise Busy("Too many pages are open.", hint="They work, but change only when loaded again.", retry_after=30)

    @contextmanager
    def listen(self, key: str, since: int) -> Iterator[Listener]:
        """`key`: of the session that listens. Where `since` is not the `count`, it missed something."""
        listener = Listener(key, over=self._closed)
        self._listeners.add(listener)
        if since != self.count:
            listener.tell({topic.name for topic in self._topics})
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    def end(self, key: str) -> None:
        """The session is over."""
        for listener in self._listeners:
            if listener.key == key:
                listener.end()

    def close(self) -> None:
        """The program stops: nobody listens from now on."""
        self._closed = True
        for listener in self._listeners:
            listener.end()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            try:
                await self.look()
            except PureBootError as error:
                log.info("the pages hear no news for now: %s", error.message)

    async def look(self) -> None:
        """Tells the listeners what changed since the last look."""
        answers, now = await self._db.read(self._ask), self._now()
        changed = {topic.name for topic in self._topics if self._is_news(topic, answers[topic.name], now)}
        for name in changed:
            self._seen[name], self._told[name] = answers[name], now
        if changed:
            self.count += 1
            for listener in self._listeners:
                listener.tell(changed)

    def _is_news(self, topic: Topic, answer: Any, now: float) -> bool:
        if topic.name not in self._seen:
            return True
        silent = now - self._told[topic.name]
        return silent >= topic.latest or (silent >= topic.gap and answer != self._seen[topic.name])

    def _ask(self, conn: Connection) -> dict[str, Any]:
        return {topic.name: tuple(conn.execute(topic.question).one()) for topic in self._topics}
