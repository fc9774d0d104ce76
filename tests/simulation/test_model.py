"""Model tests: hypothesis chooses what is done to the real classes, and shrinks what breaks them.

Two machines. The outbox is compared with a model of it, a plain list. A whole history is held to PROTOCOL 8 after each
step, and heals at the end.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pureboot.agent import accounts
from pureboot.agent.database import Database
from pureboot.agent.queue import QueueItem, SyncQueue
from pureboot.agent.schema import MIGRATIONS
from pureboot.core.errors import Clash
from pureboot.storage.sqlite import Store
from pureboot.wire.messages import Outcome, PushResult
from tests.fakes import SiteClock
from tests.simulation.history import History
from tests.simulation.run import FOLDER, stock
from tests.support.parts import EPOCH

T = TypeVar("T")
LANES = ("n1", "n2", "n3")
SEED = st.integers(0, 10_000)


@dataclass
class Waiting:
    """One item as the model has it. `due`: postponed until then. `replayed`: beside the bound."""

    id: str
    lane: str
    failed: bool = False
    refused: bool = False
    due: float = 0.0
    replayed: bool = False

    def holds(self, now: float) -> bool:
        """Whether it keeps its lane from going."""
        return not self.refused and (self.failed or self.due > now)


class Outbox(RuleBasedStateMachine):
    """SyncQueue on a real file, beside a list in the order of acceptance."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="pureboot-model-", dir=FOLDER))
        self.loop = asyncio.new_event_loop()
        self.clock = SiteClock()
        self.numbers = count(1)
        self.order: dict[str, int] = {}
        self.waiting: list[Waiting] = []
        self.sent: list[Waiting] = []
        self.taken: list[str] = []
        self.open()

    def open(self) -> None:
        self.database = Database(self.folder / "agent.db", opening=lambda p: Store(p, MIGRATIONS, threaded=False))
        self.queue = SyncQueue(self.database, clock=self.clock)
        self.run(self.queue.initialize())

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(_awaited(work))

    def write(self, work: Any) -> Any:
        return self.run(self.database.store.write(work))

    def item(self, id: str) -> Waiting:
        return next(item for item in self.waiting if item.id == id)

    @rule(lane=st.sampled_from(LANES))
    def accept(self, lane: str) -> None:
        id = f"i{next(self.numbers)}"
        self.run(self.queue.enqueue(_item(id, lane)))
        self._add(Waiting(id, lane))

    def _add(self, item: Waiting) -> None:
        self.order[item.id] = len(self.order)
        self.waiting.append(item)

    @precondition(lambda self: not self.taken)
    @rule(limit=st.integers(1, 6))
    def take(self, limit: int) -> None:
        """Of each lane a prefix, in the order of acceptance, and nothing from one that holds its lane on."""
        self.taken = [item.id for item in self.write(lambda tx: self.queue.take(tx, limit))]
        assert self.taken == self.free()[:limit]

    def free(self) -> list[str]:
        held: set[str] = set()
        free = []
        for item in self.waiting:
            if item.holds(self.clock.stamp().boottime):
                held.add(item.lane)
            if not item.failed and item.lane not in held:
                free.append(item.id)
        return free

    @precondition(lambda self: self.taken)
    @rule(outcomes=st.lists(st.sampled_from(["applied", "conflict", "rejected", "later"]), min_size=6, max_size=6))
    def answered(self, outcomes: list[str]) -> None:
        """Central's answer; from the first of a lane that it puts off on, the lane waits."""
        later: set[str] = set()
        for id, outcome in zip(self.taken, outcomes, strict=False):
            item = self.item(id)
            if outcome == "later" or item.lane in later:
                self._put_off(item, first=item.lane not in later)
                later.add(item.lane)
            else:
                self._settled(item, Outcome(outcome))
        self._back()

    def _put_off(self, item: Waiting, *, first: bool) -> None:
        if first:
            self.write(lambda tx: self.queue.postpone(tx, item.id, "later", 30.0))
            item.due = self.clock.stamp().boottime + 30.0

    def _settled(self, item: Waiting, outcome: Outcome) -> None:
        result = PushResult(id=item.id, outcome=outcome)
        assert self.write(lambda tx: self.queue.settle(tx, result))
        if outcome is Outcome.REJECTED:
            item.failed = item.refused = True
        else:
            self.waiting.remove(item)
            self.sent.append(item)

    @precondition(lambda self: self.taken)
    @rule()
    def unanswered(self) -> None:
        self._back()

    def _back(self) -> None:
        self.taken = []
        self.queue.came_back()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def gives_up_trying(self, data: st.DataObject) -> None:
        """It was put off too often."""
        item = data.draw(st.sampled_from(self.waiting))
        if not item.failed and item.id not in self.taken:
            self.write(lambda tx: self.queue.fail(tx, item.id, "too often", refused=False))
            item.failed = True

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.waiting))
        if item.refused:
            with pytest.raises(Clash):
                self.run(self.queue.requeue(item.id))
            return
        self.run(self.queue.requeue(item.id))
        item.failed, item.due = False, 0.0

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.waiting))
        if item.id in self.taken:
            with pytest.raises(Clash):
                self.run(self.queue.discard(item.id, "", "somebody"))
            return
        self.run(self.queue.discard(item.id, "", "somebody"))
        self.waiting.remove(item)
        if not item.refused:  # central is told, in the place at the end of the lane
            [told] = [i for i in self.run(self.queue.peek(1000)) if i.item_type == "discard" and i.id not in self.order]
            assert told.payload["item_id"] == item.id
            self._add(Waiting(told.id, item.lane, replayed=item.replayed))

    @rule()
    def restart(self) -> None:
        """What was on its way waits again, and nothing is postponed any more."""
        self.database.close()
        self.taken = []
        for item in self.waiting:
            item.due = 0.0
        self.open()

    @rule(seconds=st.sampled_from([5.0, 40.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: not self.taken)
    @rule()
    def central_was_restored(self) -> None:
        """Everything that was settled goes out again, at its old place; a refusal is judged anew."""
        self.write(self.queue.bring_back)
        for item in self.sent:
            item.replayed = True
        self.waiting = sorted(self.waiting + self.sent, key=lambda item: self.order[item.id])
        self.sent = []
        for item in self.waiting:
            item.failed, item.refused, item.due = item.failed and not item.refused, False, 0.0

    @invariant()
    def agrees_with_the_model(self) -> None:
        stored = [
            (row["id"], row["lane"], row["status"] == "failed", bool(row["refused"]))
            for row in self.database.store.read_now(
                lambda c: c.execute("SELECT * FROM sync_queue ORDER BY seq").fetchall()
            )
        ]
        assert stored == [(item.id, item.lane, item.failed, item.refused) for item in self.waiting]
        assert self.queue.pending_count == sum(not item.failed for item in self.waiting)
        assert self.queue.failed_count == sum(item.failed for item in self.waiting)
        assert self.database.store.read_now(self.queue.usage).items == sum(not item.replayed for item in self.waiting)
        assert [accounts.gap(account) for account in self.database.store.read_now(accounts.read)] == [0] * len(
            self.database.store.read_now(accounts.read)
        )

    def teardown(self) -> None:
        self.database.close()
        self.loop.close()
        shutil.rmtree(self.folder)


class Histories(RuleBasedStateMachine):
    """Two sites, a central and all that may happen between them, in the order hypothesis likes."""

    @initialize(seed=SEED)
    def begin(self, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pureboot-model-", dir=FOLDER))
        self.loop = asyncio.new_event_loop()
        self.history = History(Random(seed), stock(), self.folder)
        self.telling = self.history.telling()
        self.telling.__enter__()
        self.loop.run_until_complete(self.history.begin())

    @rule(
        step=st.sampled_from(
            [
                *[History.machine] * 6,
                *[History.admin] * 3,
                *(History.push, History.sync, History.push, History.sync, History.late, History.time),
                *(History.admin_edits, History.admin_creates, History.admin_settles, History.forget_tombstones),
                *(History.person, History.tidy, History.restart, History.reboot, History.line, History.poison),
                *(History.back_up_agent, History.restore_agent, History.clone, History.end_clone),
                *(History.back_up_central, History.restore_central),
            ]
        ),
        seed=SEED,
    )
    def step(self, step: Any, seed: int) -> None:
        """Which step, hypothesis says; what it does and which faults meet it, its own dice."""
        self.history.dice.seed(seed)
        self.loop.run_until_complete(step(self.history))

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "history"):
            self.history.look()

    def teardown(self) -> None:
        if not hasattr(self, "history"):
            return
        try:
            self.loop.run_until_complete(self.history.heal())
        finally:
            self.telling.__exit__(None, None, None)
            self.loop.close()
            shutil.rmtree(self.folder)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def _item(id: str, lane: str) -> QueueItem:
    body = {"event": "e", "message": "", "metadata": {}, "attempt": 0}
    return QueueItem(id=id, item_type="event", payload=body, created_at=EPOCH, lane=lane)


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

TestOutbox = pytest.mark.timeout(600)(Outbox.TestCase)
TestOutbox.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=SLOW)
TestHistories = pytest.mark.timeout(900)(Histories.TestCase)
TestHistories.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=SLOW)
