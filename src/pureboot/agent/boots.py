"""The last boots of the site, in memory: which machine was told what, when, and why, in the decision's own words."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice

from pydantic import BaseModel

from pureboot.agent.cache.state_cache import CachedNode
from pureboot.core.boot import Decision, Discover, Halt, Install
from pureboot.core.ipxe import Link

# An outage's first minutes at a site of some hundred machines; a person looks at no more.
MOST = 200

_NAMES = {"Install": "install", "LocalDisk": "local_disk", "Discover": "discover", "Halt": "next_device"}

_Entry = tuple[int, float, str, CachedNode | None, Decision, Link]


class Boot(BaseModel):
    """`seq` rises with each boot, also from one life of the agent to the next. `state` is that in which the boot leaves
    the node."""

    seq: int
    at: datetime
    mac_address: str
    node_id: str | None
    hostname: str
    state: str
    decision: str
    link: str
    reason: str


class BootLog:
    """`counts`: boots by the decision's name and the link. Belongs to one event loop. `now` is in seconds since
    1970."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._now = now
        self._last: deque[_Entry] = deque(maxlen=MOST)
        self._waiting: set[asyncio.Event] = set()
        self.seq = int(now() * 1000)

    def add(self, mac: str, node: CachedNode | None, decision: Decision, link: Link) -> None:
        """Costs next to nothing: it is done for every boot of a site that powers on at once."""
        self.seq += 1
        self.counts[type(decision).__name__, link] += 1
        self._last.append((self.seq, self._now(), mac, node, decision, link))
        for waiting in self._waiting:
            waiting.set()

    def after(self, seq: int, most: int = MOST) -> list[Boot]:
        """The newest of those after `seq`, the oldest first."""
        newest = list(islice(reversed(self._last), most))
        return [_boot(entry) for entry in reversed(newest) if entry[0] > seq]

    @contextmanager
    def waiting(self) -> Iterator[asyncio.Event]:
        """Set by the next boot."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            yield event
        finally:
            self._waiting.discard(event)


def _boot(entry: _Entry) -> Boot:
    seq, at, mac, node, decision, link = entry
    return Boot(
        seq=seq,
        at=datetime.fromtimestamp(at, UTC),
        mac_address=mac,
        node_id=node.node_id if node else None,
        hostname=node.hostname if node else "",
        state=str(node.stage) if node else "unknown",
        decision=_NAMES[type(decision).__name__],
        link=link.value,
        reason=_reason(decision),
    )


def _reason(decision: Decision) -> str:
    match decision:
        case Install(workflow, attempt):
            return f"{workflow.name}, attempt {attempt}."
        case Discover() | Halt():
            return decision.reason
        case _:
            return decision.reason or "It boots its own disk."
