"""Drains the outbox while central answers: in order, in batches that grow, and patient when it does not."""

import asyncio
import contextlib
import logging
import math
import random
import sqlite3
from collections.abc import Awaitable, Callable, Collection

from pydantic import BaseModel, ValidationError

from pureboot.agent import accounts
from pureboot.agent.batch import Answered, Batch, alongside, is_plain
from pureboot.agent.cache.state_cache import NodeStateCache
from pureboot.agent.conflicts import ConflictTable
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.loop import Loop
from pureboot.agent.mirror import Mirror
from pureboot.agent.proxy import CentralProxy
from pureboot.agent.queue import SyncQueue
from pureboot.agent.session import Session
from pureboot.agent.site import SiteState
from pureboot.core.backoff import Backoff
from pureboot.core.errors import Busy, CentralUnavailable, Clash, Fenced, Invalid, Malformed, PureBootError, TooLarge
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import EpochAccount, Outcome, PushAnswer, PushItem, PushResult

log = logging.getLogger(__name__)

# Seconds between two times that a push says what became of the items of each life.
ACCOUNTS_EVERY = 60.0


class ProcessResult(BaseModel):
    """`failed`: refused, or put off for the last time, and why in `errors`, with what kept a push from going at all."""

    processed: int = 0
    failed: int = 0
    remaining: int = 0
    errors: list[str] = []


class QueueProcessor:
    """`batch_size` is where each drain starts, but for one that central only asked to wait: that goes on as large as it
    was, or a crowd of sites would cost central the most while it is the fullest. A batch that was answered within
    `quick` (seconds) may be followed by one twice as large. `retry_delay` (seconds) is the base of the backoff,
    `max_retries` how often an item that central itself puts off is offered before it stops its lane.

    A transport failure never counts against an item: it says nothing about it.
    """

    def __init__(
        self,
        queue: SyncQueue,
        proxy: CentralProxy,
        connectivity: ConnectivityMonitor,
        batch_size: int = 10,
        retry_delay: float = 5.0,
        max_retries: int = 3,
        *,
        mirror: Mirror | None = None,
        batch_max: int = 200,
        quick: float = 2.0,
        session: Session | None = None,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.queue = queue
        self.proxy = proxy
        self.connectivity = connectivity
        self.batch_size = batch_size
        self.retry_delay = retry_delay
        self.max_retries = max_retries
        self._mirror = mirror or _mirror(queue)
        self._batch_max = max(batch_max, batch_size)
        self._quick = quick
        self._next_size = batch_size
        self._backoff = Backoff(base=retry_delay)
        self._chance, self._sleep = chance, sleep
        self.session = session or Session(proxy, queue)
        self._spread_due = True
        self._accounts_at = -math.inf
        self._failures = 0
        self._wake = asyncio.Event()
        self._rested = asyncio.Event()
        self._rested.set()
        self._rest_ends = -math.inf
        self._may_be_cut = True
        self._cut_short = -math.inf
        self._loop = Loop("queue processor", self._run)
        self._one_at_a_time = asyncio.Lock()
        queue.on_arrival(self._wake.set)
        connectivity.add_listener(self._link_changed)
        connectivity.on_recovery(self._recovered)
        connectivity.no_wait_while(lambda: self._failures > 0)

    async def process_queue(self) -> ProcessResult:
        """Pushes until what waits by now is through, central is offline or stops answering, or all that is left must
        wait: what arrives meanwhile without end is the next one's. With nothing to push it still holds the session:
        else a copy could take it over unseen."""
        async with self._one_at_a_time:
            return await self._process()

    async def push_unless_resting(self) -> ProcessResult:
        """As `process_queue`, for whatever goes round by itself: after a push that failed nothing goes for as long as
        central asked, or the backoff says, or until central is back from an outage."""
        async with self._one_at_a_time:  # looked at within: whoever pushed until now may have been told to wait
            return await self._process() if self._rested.is_set() else self._result()

    async def _process(self) -> ProcessResult:
        result = self._result()
        try:
            await self._drain(result)
            self._failures = 0
        except PureBootError as error:
            self._failures += 1
            result.errors.append(error.message)
            log.warning("push failed: %s", error.message)
            self._rest(error)
            if isinstance(error, CentralUnavailable):
                self.connectivity.doubt()  # after that: its recovery cuts the rest short
            self._wake.set()
        finally:
            self.queue.came_back()  # what was to be taken too, where that could not be kept
        result.remaining = self.queue.pending_count
        return result

    def _result(self) -> ProcessResult:
        return ProcessResult(remaining=self.queue.pending_count)

    async def _drain(self, result: ProcessResult) -> None:
        """One push after the other; while one is under way, what the last one brought is kept and the next is taken."""
        size, self._next_size = self._next_size, self.batch_size
        newest: int | None = None
        mended: set[str] = set()
        answered: Answered | None = None
        ahead: Batch | None = None
        while batch := ahead or await self._first(size):
            newest = batch.newest if newest is None else newest
            if batch.items[0].seq > newest:
                break
            before, answered, ahead = answered, None, None
            began = self._now()
            try:
                # It goes only if central was quick, and then it may be twice as large.
                async with alongside(self._meanwhile(before, batch, self._grown(size), result)) as keeping:
                    answer = await self._push(batch)
                ahead = keeping.result()
                answered = Answered(batch, answer)
                quick = self._now() - began < self._quick
                may_go = quick and self.connectivity.is_online and is_plain(answer, batch.generation)
                if not (ahead and may_go and ahead.items[0].seq <= newest):
                    ahead = None
                    await self._settle(answered, result)
                    answered = None
            except (TooLarge, Invalid, Malformed) as error:
                if len(batch.items) == 1:
                    await self._put_off(batch.items[0], error, result)
                size = max(1, len(batch.items) // 2)
                continue
            except Clash as error:
                # The same twice in one drain is no restore: then it waits like any other failure.
                if error.code in mended or not await self._mend(error, batch):
                    raise
                mended.add(error.code)
                continue
            except Busy as error:
                if not isinstance(error, CentralUnavailable):
                    self._next_size = size
                raise
            finally:
                if ahead is None:
                    self.queue.came_back()
            self._failures = 0
            self._rested.set()
            size = self._grown(size) if quick else size
            if after_ms := answer.backpressure.after_ms:
                await self._sleep(after_ms / 1000)

    def _grown(self, size: int) -> int:
        return min(size * 2, self._batch_max)

    async def _first(self, size: int) -> Batch | None:
        """What to push while nothing is under way."""
        if not await self._ready():
            return None
        return await self.queue.database.store.write(lambda tx: self._take(tx, size))

    async def _meanwhile(self, before: Answered | None, batch: Batch, size: int, result: ProcessResult) -> Batch | None:
        """Keeps what central answered `before`, and takes what may follow this batch: one transaction, of which central
        needs to know nothing."""
        if before is None and self.queue.pending_count <= len(batch.items):
            return None

        def work(tx: Transaction) -> tuple[Batch | None, list[str]]:
            given_up = [] if before is None else self._keep(tx, before)
            return self._take(tx, size, beyond=[item.id for item in batch.items]), given_up

        ahead, given_up = await self.queue.database.store.write(work)
        if before is not None:
            _count(before.answer, given_up, result)
        return ahead

    async def _ready(self) -> bool:
        """Whether there is somebody to push to and something to push. The first time after an outage it waits: a
        thousand sites may have come back at once. Raises Fenced, and what else central answers."""
        if not self.connectivity.is_online:
            return False
        await self.session.ready()
        if not self.queue.pending_count:
            return False
        if self._spread_due:
            self._spread_due = False
            await self._sleep(self._chance() * self.session.spread)
        return self.connectivity.is_online

    async def _push(self, batch: Batch) -> PushAnswer:
        now = self._now()
        due = now >= self._accounts_at
        told = await self._accounts() if due else []
        items = batch.aged(now)
        answer = await self.proxy.push(items, fence=self.session.fence, accounts=told, generation=batch.generation)
        self.session.prolonged()
        self._accounts_at = now + ACCOUNTS_EVERY if due else self._accounts_at
        return answer

    async def _accounts(self) -> list[EpochAccount]:
        """None where they cannot be read: what this site has to say goes all the same."""
        try:
            return await self.queue.database.store.read(accounts.read)
        except (ValidationError, sqlite3.Error) as error:
            log.warning("the accounts of this agent's lives cannot be read, and central is not told of them: %s", error)
            return []

    async def _mend(self, error: Clash, batch: Batch) -> bool:
        """Whether a push may go again at once: its fence may only have grown old, and a central that was restored
        from a backup has to hear again what it settled."""
        if error.code == Fenced.code:
            self.session.doubt()
            return True
        if error.code != "generation_changed":
            return False
        turned = await self._mirror.begin_generation(await self.proxy.generation())
        # The feed may have told of it between the taking and the push.
        return turned or batch.generation != self._mirror.generation

    async def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def _run(self) -> None:
        while True:
            await self._patience()
            self._wake.clear()
            await self.push_unless_resting()
            pause = await self._until_due()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)

    async def _until_due(self) -> float | None:
        """Seconds until something that was put off may go, or the session is to be renewed. None while offline."""
        if not self.connectivity.is_online:
            return None
        due = await self.queue.database.store.read(self.queue.next_due)
        renew_in = self.session.renew_in
        return max(renew_in if due is None else min(due, renew_in), 0.05)

    def _rest(self, error: PureBootError) -> None:
        """Agent-level backoff: however much waits and arrives, one agent asks once in a while."""
        asked = self._asked(error)
        self._may_be_cut = asked is None
        pause = self._backoff.delay(self._failures, self._chance(), asked)
        self._rest_ends = asyncio.get_running_loop().time() + pause
        self._rested.clear()

    def _asked(self, error: PureBootError) -> float | None:
        """Seconds for which whoever refused wants to be left in peace, where it said so."""
        if error.code == Fenced.code:
            self.session.refused()
            return self.session.retry_in
        return error.retry_after if isinstance(error, Busy) and not isinstance(error, CentralUnavailable) else None

    async def _patience(self) -> None:
        loop = asyncio.get_running_loop()
        # Again where the rest was made longer meanwhile: somebody had insisted, and was told to wait.
        while not self._rested.is_set() and (left := self._rest_ends - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._rested.wait(), left)
        self._rested.set()

    def _take(self, tx: Transaction, size: int, beyond: Collection[str] = ()) -> Batch | None:
        items = self.queue.take(tx, size, beyond=beyond)
        return Batch(items, self._mirror.generation, self._now(), self.queue.newest(tx)) if items else None

    async def _settle(self, answered: Answered, result: ProcessResult) -> None:
        given_up = await self.queue.database.store.write(lambda tx: self._keep(tx, answered))
        _count(answered.answer, given_up, result)

    def _keep(self, tx: Transaction, answered: Answered) -> list[str]:
        """Why central could not settle the items that were put off for the last time."""
        stopped: set[str] = set()
        given_up: list[str] = []
        items = answered.batch.items
        lanes = {item.id: item.lane for item in items}

        def on_retry(tx: Transaction, outcome: PushResult) -> None:
            # Only the first of a lane was put off for its own sake; those behind it wait for it.
            if (lane := lanes[outcome.id]) not in stopped:
                stopped.add(lane)
                given_up.extend(self._count_retry(tx, outcome.id, outcome.reason or "central asked to try it later"))

        self._mirror.settle_in(tx, items, answered.answer, on_retry)
        return given_up

    async def _put_off(self, item: PushItem, error: PureBootError, result: ProcessResult) -> None:
        """One item that central cannot even read."""
        given_up = await self.queue.database.store.write(lambda tx: self._count_retry(tx, item.id, error.message))
        _count_failed(given_up, result)

    def _count_retry(self, tx: Transaction, queue_id: str, reason: str) -> list[str]:
        """The reason, where it was the last time."""
        row = tx.execute("SELECT attempts FROM sync_queue WHERE id = ?", [queue_id]).fetchone()
        attempts = 0 if row is None else row["attempts"] + 1
        if attempts >= self.max_retries:
            self.queue.fail(tx, queue_id, reason, refused=False)
            return [reason]
        self.queue.postpone(tx, queue_id, reason, self._backoff.delay(attempts, self._chance()))
        return []

    async def _link_changed(self, online: bool) -> None:
        if online:
            self._failures = 0
            self._spread_due = True
            self.session.doubt()
            self._rested.set()
            self._wake.set()

    def _recovered(self) -> None:
        # Not every time: central's health may be well while each push fails, and would undo every backoff at once.
        if self._may_be_cut and not self._rested.is_set() and self._now() - self._cut_short > self._backoff.cap:
            self._cut_short = self._now()
            self._rested.set()
        self._wake.set()

    def _now(self) -> float:
        return self.queue.clock.stamp().boottime


def _count(answer: PushAnswer, given_up: list[str], result: ProcessResult) -> None:
    refused = [r.reason or "" for r in answer.results if r.effect is Outcome.REJECTED]
    result.processed += sum(r.settled for r in answer.results) - len(refused)
    _count_failed([*refused, *given_up], result)


def _count_failed(reasons: list[str], result: ProcessResult) -> None:
    result.failed += len(reasons)
    result.errors += filter(None, reasons)


def _mirror(queue: SyncQueue) -> Mirror:
    site = SiteState(queue.database, queue.clock)
    return Mirror(NodeStateCache(queue.database), queue, site, ConflictTable(queue.database))
