"""What goes to central in one push, and what comes back."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pureboot.wire.messages import Outcome, PushAnswer, PushItem

T = TypeVar("T")


@dataclass(slots=True)
class Batch:
    """Items in order, and when they were taken: in which of central's generations, at what time (in seconds, on the
    boot-time clock), which is when their ages held, and what the `newest` place in line was."""

    items: list[PushItem]
    generation: int
    taken_at: float
    newest: int

    def aged(self, now: float) -> list[PushItem]:
        """With their ages as of now."""
        waited_ms = round((now - self.taken_at) * 1000)
        if waited_ms > 0:
            self.taken_at = now
            for item in self.items:
                item.age_ms += waited_ms
        return self.items


@dataclass(frozen=True, slots=True)
class Answered:
    batch: Batch
    answer: PushAnswer


def is_plain(answer: PushAnswer, generation: int) -> bool:
    """Whether it only says that all is applied, so that keeping it moves no node, no lane and no item that waits: what
    was taken beyond it may go before it is kept. Die in between, and it is pushed again, a duplicate, before the rest.
    """
    return (
        answer.generation == generation
        and not answer.conflicts
        and not answer.backpressure.after_ms
        and all(node.doc is not None for node in answer.nodes)
        and all(result.effect is Outcome.APPLIED and result.canonical_id is None for result in answer.results)
    )


@asynccontextmanager
async def alongside(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Goes on while the block waits, and has ended when the block has, however that ended."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        if not task.done():
            await asyncio.wait([task])
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, Exception):
            raise error  # the end of the process; any other is told by its result, or the block's own error is
