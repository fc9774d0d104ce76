"""The outbox (user's contract, task 2): what was accepted stays, in order, until central has it."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pureboot.agent import accounts
from pureboot.agent.bounds import Bounds
from pureboot.agent.queue import UNKNOWN_MS, QueueItem, SyncQueue
from pureboot.core.errors import Clash, Invalid, Malformed, NotFound, StorageFull
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import Base, Outcome, PushItem, PushResult
from tests.fakes import SiteClock
from tests.support.parts import EPOCH


def item(id: str, lane: str = "n1", item_type: str = "event", **fields: Any) -> QueueItem:
    payload = fields.pop("payload", {"event": "e"})
    return QueueItem(id=id, item_type=item_type, payload=payload, created_at=EPOCH, lane=lane, **fields)


@pytest.fixture
def clock() -> SiteClock:
    return SiteClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "queue.db"


@pytest.fixture
async def queue(path: Path, clock: SiteClock) -> Any:
    with open_queue(path, clock) as queue:
        await queue.initialize()
        yield queue


@contextlib.contextmanager
def open_queue(path: Path, clock: SiteClock) -> Iterator[SyncQueue]:
    queue = SyncQueue(path, clock=clock)
    try:
        yield queue
    finally:
        queue.database.close()


def offered(queue: SyncQueue, limit: int = 100) -> list[PushItem]:
    return queue.database.store.read_now(lambda c: queue.batch(c, limit))


def ids(queue: SyncQueue, limit: int = 100) -> list[str]:
    return [i.id for i in offered(queue, limit)]


def sent(queue: SyncQueue) -> list[tuple[str, str]]:
    found = queue.database.store.read_now(lambda c: c.execute("SELECT id, outcome FROM sync_sent").fetchall())
    return [(row["id"], row["outcome"]) for row in found]


async def settle(queue: SyncQueue, id: str, outcome: Outcome, **fields: Any) -> bool:
    result = PushResult(id=id, outcome=outcome, **fields)
    return await queue.database.store.write(lambda tx: queue.settle(tx, result))


async def postpone(queue: SyncQueue, id: str, delay: float) -> None:
    await queue.database.store.write(lambda tx: queue.postpone(tx, id, "later", delay))


# The user's contract


async def test_enqueue_item(queue: SyncQueue) -> None:
    given = item("i1", item_type="registration", payload={"mac_address": "52:54:00:aa:bb:01", "facts": {"a": "ü"}})
    assert await queue.enqueue(given) == "i1"
    (kept,) = await queue.peek()
    contract = {"id", "item_type", "payload", "created_at", "attempts", "last_error", "status"}
    assert kept.model_dump(include=contract) == given.model_dump(include=contract)
    assert kept.status == "pending"


async def test_peek_takes_nothing_out_and_keeps_the_order(queue: SyncQueue) -> None:
    for n in range(12):
        await queue.enqueue(item(f"i{n}", lane=f"n{n % 3}"))
    assert [i.id for i in await queue.peek(5)] == [f"i{n}" for n in range(5)]
    assert len(await queue.peek()) == 10
    assert await queue.get_pending_count() == 12


async def test_dequeue_item(queue: SyncQueue) -> None:
    await queue.enqueue(item("i1"))
    await queue.enqueue(item("i2"))
    assert await queue.dequeue("i1")
    assert not await queue.dequeue("i1")
    assert not await queue.dequeue("never queued")
    assert [i.id for i in await queue.peek()] == ["i2"]
    assert sent(queue) == [("i1", "applied")]


async def test_mark_failed(queue: SyncQueue) -> None:
    await queue.enqueue(item("i1"))
    await queue.enqueue(item("i2", lane="n2"))
    await queue.mark_failed("i1", "central says no")
    (failed,) = await queue.get_failed_items()
    assert (failed.id, failed.status, failed.last_error, failed.attempts) == ("i1", "failed", "central says no", 1)
    assert [i.id for i in await queue.peek()] == ["i2"]
    await queue.mark_failed("never queued", "nothing happens")
    assert (queue.pending_count, queue.failed_count) == (1, 1)


async def test_pending_count(queue: SyncQueue) -> None:
    async def counts() -> tuple[int, int]:
        return await queue.get_pending_count(), queue.failed_count

    assert await counts() == (0, 0)
    for n in range(4):
        await queue.enqueue(item(f"i{n}"))
    assert await counts() == (4, 0)
    await queue.dequeue("i0")
    await queue.mark_failed("i1", "x")
    await queue.mark_failed("i1", "x")
    assert await counts() == (2, 1)
    await settle(queue, "i2", Outcome.REJECTED, reason="no")
    assert await counts() == (1, 2)
    await queue.dequeue("i1")
    assert await counts() == (1, 1)
    assert await queue.clear_failed() == 1
    assert await counts() == (1, 0)


async def test_queue_persistence(path: Path, clock: SiteClock) -> None:
    with open_queue(path, clock) as queue:
        await queue.initialize()
        first_epoch = queue.epoch
        for n in range(3):
            await queue.enqueue(item(f"i{n}"))
        await queue.mark_failed("i0", "x")
    with open_queue(path, clock) as queue:
        await queue.initialize()
        assert (queue.pending_count, queue.failed_count) == (2, 1)
        assert [i.id for i in await queue.peek()] == ["i1", "i2"]
        assert [i.id for i in await queue.get_failed_items()] == ["i0"]
        assert queue.epoch != first_epoch
        assert {i.epoch for i in await queue.peek()} == {first_epoch}  # an item keeps the life that accepted it


async def test_retry_tracking(queue: SyncQueue) -> None:
    await queue.enqueue(item("i1"))
    await postpone(queue, "i1", 0)
    await postpone(queue, "i1", 0)
    (waiting,) = await queue.peek()
    assert (waiting.attempts, waiting.last_error, waiting.status) == (2, "later", "pending")
    await queue.mark_failed("i1", "no more")
    (failed,) = await queue.get_failed_items()
    assert (failed.attempts, failed.last_error, failed.status) == (3, "no more", "failed")


# Identity and order


async def test_an_id_is_queued_once(queue: SyncQueue) -> None:
    await queue.enqueue(item("i1"))
    with pytest.raises(sqlite3.IntegrityError):
        await queue.enqueue(item("i1", payload={"event": "another"}))
    assert queue.pending_count == 1


async def test_of_many_at_once_no_more_come_in_than_there_is_room_for(path: Path, clock: SiteClock) -> None:
    queue = SyncQueue(path, clock=clock, bounds=Bounds(max_items=8))
    await queue.initialize()
    edges = [item(f"i{number}", lane=f"n{number}", item_type="state_update") for number in range(20)]
    results = await asyncio.gather(*(queue.enqueue(edge) for edge in edges), return_exceptions=True)
    assert results[:8] == [f"i{number}" for number in range(8)]
    assert {type(result) for result in results[8:]} == {StorageFull}
    assert (queue.pending_count, len(await queue.peek(100))) == (8, 8)
    queue.database.close()


async def test_a_place_in_line_is_given_out_once(queue: SyncQueue) -> None:
    """A plain rowid of a deleted last row would come again, and order would be a lie."""
    await queue.enqueue(item("i1"))
    (first,) = await queue.peek()
    await queue.dequeue("i1")
    await queue.enqueue(item("i2"))
    (second,) = await queue.peek()
    assert second.seq > first.seq


async def test_initialize_twice_changes_nothing(queue: SyncQueue) -> None:
    await queue.enqueue(item("i1"))
    await queue.initialize()
    assert (queue.pending_count, ids(queue)) == (1, ["i1"])


async def test_initialize_beside_writes_counts_each_once(path: Path, clock: SiteClock) -> None:
    with open_queue(path, clock) as queue:
        await asyncio.gather(*(queue.enqueue(item(f"i{n}")) for n in range(5)), queue.initialize(), queue.initialize())
        await queue.enqueue(item("last"))
        assert queue.pending_count == 6


async def test_a_lane_named_nowhere_is_read_from_the_payload(queue: SyncQueue) -> None:
    await queue.enqueue(item("i1", lane="", payload={"node_id": "n7", "event": "e"}))
    await queue.enqueue(item("i2", lane="", payload={"mac_address": "m8"}))
    await queue.enqueue(item("i3", lane="", payload={"event": "e"}))
    assert [i.lane for i in offered(queue)] == ["n7", "m8", "i3"]


# Lanes


async def test_an_offer_is_a_prefix_of_every_lane_it_touches(queue: SyncQueue) -> None:
    for n in range(30):
        await queue.enqueue(item(f"i{n}", lane=f"n{n % 4}"))
    await postpone(queue, "i1", 60)
    await queue.mark_failed("i2", "x")
    await settle(queue, "i3", Outcome.REJECTED)
    for limit in (1, 5, 13, 100):
        taken = offered(queue, limit)
        for lane in ("n0", "n3"):
            whole = [f"i{n}" for n in range(30) if f"n{n % 4}" == lane and n != 3]
            mine = [i.id for i in taken if i.lane == lane]
            assert mine == whole[: len(mine)]
        assert {i.lane for i in taken} <= {"n0", "n3"}


async def test_an_item_that_never_got_through_stops_its_own_lane_and_no_other(queue: SyncQueue) -> None:
    for id, lane in [("a1", "a"), ("b1", "b"), ("a2", "a"), ("b2", "b")]:
        await queue.enqueue(item(id, lane=lane))
    await queue.mark_failed("a1", "poison")
    assert ids(queue) == ["b1", "b2"]
    await queue.clear_failed()
    assert ids(queue) == ["b1", "a2", "b2"]


async def test_what_stands_before_an_item_that_never_got_through_goes(queue: SyncQueue, clock: SiteClock) -> None:
    """It came back for a central that was restored, or its lane was joined to that one."""
    for id, lane in [("a1", "a"), ("b1", "b"), ("b2", "b"), ("a2", "a")]:
        await queue.enqueue(item(id, lane=lane))
    await queue.mark_failed("b1", "poison")
    await postpone(queue, "a2", 10)
    await queue.database.store.write(lambda tx: queue.rename_lane(tx, "a", "b"))
    assert ids(queue) == ["a1"]
    clock.advance(11)
    assert ids(queue) == ["a1"]
    assert queue.database.store.read_now(queue.next_due) is None


async def test_a_rejected_item_stays_to_be_seen_and_stops_nothing(queue: SyncQueue) -> None:
    await queue.enqueue(item("a1"))
    await queue.enqueue(item("a2"))
    await settle(queue, "a1", Outcome.REJECTED, reason="illegal_edge: no")
    assert ids(queue) == ["a2"]
    (failed,) = await queue.get_failed_items()
    assert (failed.id, failed.last_error) == ("a1", "illegal_edge: no")


async def test_a_postponed_item_holds_its_lane_until_it_is_due(queue: SyncQueue, clock: SiteClock) -> None:
    for id, lane in [("a1", "a"), ("a2", "a"), ("b1", "b")]:
        await queue.enqueue(item(id, lane=lane))
    await postpone(queue, "a1", 10)
    assert ids(queue) == ["b1"]
    assert queue.database.store.read_now(queue.next_due) == pytest.approx(10)
    clock.advance(9.9)
    assert ids(queue) == ["b1"]
    clock.advance(0.2)
    assert ids(queue) == ["a1", "a2", "b1"]
    assert queue.database.store.read_now(queue.next_due) == 0


async def test_nothing_postponed_is_never_due(queue: SyncQueue) -> None:
    await queue.enqueue(item("a1"))
    assert queue.database.store.read_now(queue.next_due) is None


async def test_a_restart_lets_everything_go_at_once_but_what_failed(path: Path, clock: SiteClock) -> None:
    """What is postponed counts on the clock of one boot of the host."""
    with open_queue(path, clock) as queue:
        await queue.initialize()
        for id, lane in [("a1", "a"), ("b1", "b"), ("c1", "c")]:
            await queue.enqueue(item(id, lane=lane))
        await postpone(queue, "a1", 1e6)
        await queue.mark_failed("b1", "x")
        await queue.database.store.write(
            lambda tx: tx.execute("UPDATE sync_queue SET status = 'processing' WHERE id = 'c1'")
        )
    clock.reboot(60)
    with open_queue(path, clock) as queue:
        await queue.initialize()
        assert ids(queue) == ["a1", "c1"]
        assert {i.status for i in await queue.peek()} == {"pending"}
        assert queue.pending_count == 2


async def test_a_lane_that_is_renamed_keeps_its_order(queue: SyncQueue) -> None:
    for id, lane in [("a1", "a"), ("b1", "b"), ("a2", "a")]:
        await queue.enqueue(item(id, lane=lane))
    await queue.database.store.write(lambda tx: queue.rename_lane(tx, "a", "b"))
    assert [(i.id, i.lane) for i in offered(queue)] == [("a1", "b"), ("b1", "b"), ("a2", "b")]


@pytest.mark.parametrize("settled", [False, True], ids=["waiting", "settled"])
async def test_a_report_is_found_under_the_new_name_of_its_lane(queue: SyncQueue, settled: bool) -> None:
    await queue.enqueue(item("a1", lane="a", report_key="a/0/report/r1/e"))
    await queue.enqueue(item("other", lane="a0", report_key="a0/0/report/r1/e"))
    if settled:
        await queue.dequeue("a1")
    await queue.database.store.write(lambda tx: queue.rename_lane(tx, "a", "b"))
    assert await reported(queue, "b/0/report/r1/e") == "a1"
    assert await reported(queue, "a/0/report/r1/e") is None
    assert await reported(queue, "a0/0/report/r1/e") == "other"


@pytest.mark.parametrize("ours", [False, True], ids=["", "ours settled"])
@pytest.mark.parametrize("theirs", [False, True], ids=["", "theirs settled"])
async def test_of_a_report_that_came_under_both_names_each_item_stays(
    queue: SyncQueue, ours: bool, theirs: bool
) -> None:
    """When central forgets what it settled, too: both go out again."""
    await queue.enqueue(item("a1", lane="a", report_key="a/0/report/r1/e"))
    await queue.enqueue(item("b1", lane="b", report_key="b/0/report/r1/e"))
    for id in [*["a1"] * ours, *["b1"] * theirs]:
        await queue.dequeue(id)
    await queue.database.store.write(lambda tx: queue.rename_lane(tx, "a", "b"))
    assert await reported(queue, "b/0/report/r1/e") == "b1"
    await queue.database.store.write(queue.bring_back)
    assert ids(queue) == ["a1", "b1"]


async def test_a_lane_that_is_renamed_to_itself_is_as_it_was(queue: SyncQueue) -> None:
    await queue.enqueue(item("a1", lane="a", report_key="a/0/report/r1/e"))
    await queue.database.store.write(lambda tx: queue.rename_lane(tx, "a", "a"))
    assert await reported(queue, "a/0/report/r1/e") == "a1"


async def reported(queue: SyncQueue, key: str) -> str | None:
    return await queue.database.store.write(lambda tx: queue.reported(tx, key))


# Ages


async def test_an_item_carries_its_age_and_no_wall_clock(queue: SyncQueue, clock: SiteClock) -> None:
    await queue.enqueue(item("i1"))
    clock.set_wall(-86400)
    clock.advance(100)
    (offer,) = offered(queue)
    assert (offer.age_ms, offer.u_ms) == (100_000, 30_010)


async def test_the_age_goes_on_across_a_reboot_of_the_host(queue: SyncQueue, clock: SiteClock) -> None:
    await queue.enqueue(item("i1"))
    clock.advance(40)
    clock.reboot(60)
    (offer,) = offered(queue)
    assert offer.age_ms == 100_000
    assert offer.u_ms >= 60_000


async def test_an_age_nobody_can_tell_is_said_to_be_so(queue: SyncQueue, clock: SiteClock) -> None:
    await queue.enqueue(item("i1"))
    clock.reboot(-3600)
    (offer,) = offered(queue)
    assert (offer.age_ms, offer.u_ms) == (0, UNKNOWN_MS)


# What was settled


async def test_what_is_discarded_stays_readable(queue: SyncQueue) -> None:
    await queue.enqueue(item("i1"))
    await queue.enqueue(item("i2", lane="n2"))
    await queue.mark_failed("i1", "x")
    assert await queue.clear_failed() == 1
    assert await queue.clear_failed() == 0
    assert sent(queue) == [("i1", "discarded")]
    assert await queue.get_failed_items() == []


async def test_what_was_settled_is_kept_for_a_while(queue: SyncQueue) -> None:
    for n in range(3):
        await queue.enqueue(item(f"i{n}"))
        await queue.dequeue(f"i{n}")
    everything = EPOCH + timedelta(days=10_000)
    assert await queue.database.store.write(lambda tx: queue.forget_sent(tx, EPOCH)) == 0
    assert await queue.database.store.write(lambda tx: queue.forget_sent(tx, everything)) == 3
    assert sent(queue) == []


async def test_a_report_is_found_again_while_it_waits_and_after(queue: SyncQueue) -> None:
    await queue.enqueue(item("i1", report_key="k"))
    assert await reported(queue, "k") == "i1"
    await queue.dequeue("i1")
    assert await reported(queue, "k") == "i1"


async def test_whoever_waits_hears_how_its_item_was_settled(queue: SyncQueue) -> None:
    for n in range(4):
        await queue.enqueue(item(f"i{n}"))
    waiters = [asyncio.create_task(queue.settled(id)) for id in ("i0", "i0", "i1")]
    for _ in range(3):
        await asyncio.sleep(0)
    await settle(queue, "i0", Outcome.APPLIED)
    await settle(queue, "i1", Outcome.REJECTED, reason="no")
    async with asyncio.timeout(5):
        results = await asyncio.gather(*waiters)
    assert [(r.id, r.outcome) for r in results] == [("i0", "applied"), ("i0", "applied"), ("i1", "rejected")]


@pytest.mark.parametrize("outcome", [Outcome.APPLIED, Outcome.CONFLICT, Outcome.REJECTED])
async def test_who_comes_late_hears_it_too(queue: SyncQueue, outcome: Outcome) -> None:
    await queue.enqueue(item("i1"))
    await settle(queue, "i1", outcome)
    async with asyncio.timeout(5):
        assert (await queue.settled("i1")).outcome is outcome


@pytest.mark.parametrize("asks", ["before the commit", "right after it"])
async def test_whoever_is_told_finds_every_view_up_to_date(queue: SyncQueue, asks: str) -> None:
    """Views follow their commit by a moment, in another thread; here the moment is long."""
    await queue.enqueue(item("i1"))
    loop, committed, view_follows = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    seen: list[str] = []

    def follow() -> None:
        loop.call_soon_threadsafe(committed.set)
        view_follows.wait(10)
        seen.append("view")

    def work(tx: Transaction) -> None:
        queue.settle(tx, PushResult(id="i1", outcome=Outcome.APPLIED))
        tx.after_commit(follow)

    async def ask() -> None:
        await queue.settled("i1")
        seen.append("told")

    asking = [asyncio.create_task(ask())] if asks == "before the commit" else []
    await asyncio.sleep(0)
    writing = asyncio.create_task(queue.database.store.write(work))
    await asyncio.wait_for(committed.wait(), 5)
    asking = asking or [asyncio.create_task(ask())]
    for _ in range(10):
        await asyncio.sleep(0.001)
    view_follows.set()
    async with asyncio.timeout(5):
        await asyncio.gather(writing, *asking)
    assert seen == ["view", "told"]


async def test_arrivals_are_announced_once_they_are_on_disk(queue: SyncQueue) -> None:
    arrived = asyncio.Event()
    queue.on_arrival(arrived.set)
    with pytest.raises(ZeroDivisionError):
        await queue.database.store.write(lambda tx: (queue.append(tx, item("i1")), 1 // 0))
    await asyncio.sleep(0)
    assert not arrived.is_set()
    await queue.enqueue(item("i2"))
    await asyncio.wait_for(arrived.wait(), 5)
    assert queue.pending_count == 1


async def test_an_item_that_cannot_be_read_any_more_is_offered_as_such_and_keeps_nothing_else_back(
    queue: SyncQueue,
) -> None:
    for name in ("n1", "n2"):
        await queue.enqueue(item(name, payload={"node_id": name}))
    await queue.database.store.write(lambda tx: tx.execute("UPDATE sync_queue SET payload = '{' WHERE id = 'n1'"))
    offered = await queue.database.store.read(lambda c: queue.batch(c, 10))
    assert [(o.id, o.body) for o in offered] == [("n1", {"unreadable": "{"}), ("n2", {"node_id": "n2"})]


async def test_a_payload_that_rotted_on_the_disk_is_offered_as_such(queue: SyncQueue) -> None:
    """It would still be JSON, and central would believe it."""
    await queue.enqueue(item("i1", payload={"event": "install_failed"}))
    rotten = "UPDATE sync_queue SET payload = replace(payload, 'failed', 'fooled')"
    await queue.database.store.write(lambda tx: tx.execute(rotten))
    (offer,) = offered(queue)
    assert offer.body == {"unreadable": '{"event":"install_fooled"}'}


@pytest.mark.parametrize(
    "rot",
    [
        "base_generation = 1, base_state_rev = -1",
        "payload = CAST(x'7bff7d' AS TEXT)",
        "payload = 7",
        f"lane = '{'n' * 65}'",
        f"after = '{'i' * 65}'",
        f"item_type = '{'e' * 65}'",
        "epoch = ''",
        "seq = -1",
    ],
)
async def test_a_row_that_cannot_be_sent_as_it_is_goes_as_such_and_stops_no_other(queue: SyncQueue, rot: str) -> None:
    await queue.enqueue(item("i1"))
    await queue.enqueue(item("i2", lane="n2"))
    await queue.database.store.write(lambda tx: tx.execute(f"UPDATE sync_queue SET {rot} WHERE id = 'i1'"))
    rotten, sound = offered(queue)
    assert (rotten.id, list(rotten.body), rotten.base, rotten.after) == ("i1", ["unreadable"], None, None)
    assert (sound.id, sound.body) == ("i2", {"event": "e"})


async def test_a_row_whose_id_central_could_not_name_stops_no_other(queue: SyncQueue) -> None:
    await queue.enqueue(item("i1"))
    await queue.enqueue(item("i2", lane="n2"))
    await queue.database.store.write(lambda tx: tx.execute("UPDATE sync_queue SET id = '' WHERE id = 'i1'"))
    assert ids(queue) == ["i2"]
    await queue.discard("", "it rotted", "ada")
    assert [offer.item_type for offer in offered(queue)] == ["event", "discard"]


@pytest.mark.parametrize("field", ["id", "lane", "item_type", "after", "conflict_id", "epoch"])
async def test_what_could_never_be_sent_is_refused_to_whoever_says_it(queue: SyncQueue, field: str) -> None:
    with pytest.raises(Invalid, match=field):
        await queue.enqueue(item("i1").model_copy(update={field: "x" * 65}))
    await queue.enqueue(item("i2").model_copy(update={field: "x" * 64}))
    assert [len(offer.body) for offer in offered(queue)] == [1]
    assert queue.pending_count == 1


async def test_an_item_of_a_lane_that_central_could_not_name_can_be_given_up(queue: SyncQueue) -> None:
    """One of a file from before its length was looked at."""
    await queue.enqueue(item("i1"))
    await queue.database.store.write(lambda tx: tx.execute("UPDATE sync_queue SET lane = ?", ["n" * 65]))
    await queue.discard("i1", "no use", "ada")
    (told,) = offered(queue)
    assert (told.item_type, told.lane, told.body["item_id"]) == ("discard", "n" * 64, "i1")


# What a person may do about it


async def test_a_failed_item_goes_out_again_from_its_place_in_line(queue: SyncQueue) -> None:
    for id in ("a1", "a2"):
        await queue.enqueue(item(id))
    await queue.mark_failed("a1", "poison")
    assert ids(queue) == []
    await queue.requeue("a1")
    assert ids(queue) == ["a1", "a2"]
    (first, _) = await queue.peek()
    assert (first.status, first.attempts, queue.pending_count, queue.failed_count) == ("pending", 0, 2, 0)
    await queue.requeue("a1")
    assert (queue.pending_count, queue.failed_count) == (2, 0)


async def test_a_requeued_item_wakes_whoever_drains(queue: SyncQueue) -> None:
    await queue.enqueue(item("a1"))
    await queue.mark_failed("a1", "poison")
    woken = asyncio.Event()
    queue.on_arrival(woken.set)
    await queue.requeue("a1")
    await asyncio.wait_for(woken.wait(), 5)


async def test_what_central_refused_does_not_go_out_again(queue: SyncQueue) -> None:
    await queue.enqueue(item("a1"))
    await settle(queue, "a1", Outcome.REJECTED, reason="no")
    with pytest.raises(Clash, match="refused"):
        await queue.requeue("a1")


async def test_a_discard_is_itself_an_item_for_central(queue: SyncQueue) -> None:
    await queue.enqueue(item("a1", lane="n7", item_type="state_update"))
    await queue.mark_failed("a1", "poison")
    await queue.discard("a1", "the disk was swapped", "ada")
    (told,) = offered(queue)
    assert (told.item_type, told.lane) == ("discard", "n7")
    assert told.body == {
        "item_id": "a1",
        "item_type": "state_update",
        "lane": "n7",
        "reason": "the disk was swapped",
        "person": "ada",
    }
    assert sent(queue) == [("a1", "discarded")]
    assert (queue.pending_count, queue.failed_count) == (1, 0)
    with pytest.raises(NotFound):
        await queue.discard("a1", "", "ada")


async def test_what_central_refused_is_only_put_away(queue: SyncQueue) -> None:
    """Central knows of it, and why."""
    await queue.enqueue(item("a1"))
    await settle(queue, "a1", Outcome.REJECTED, reason="no")
    await queue.discard("a1", "seen", "ada")
    assert (offered(queue), sent(queue), queue.failed_count) == ([], [("a1", "rejected")], 0)


async def test_all_that_failed_is_given_up_by_a_person(queue: SyncQueue) -> None:
    for n in range(3):
        await queue.enqueue(item(f"a{n}", lane=f"n{n}"))
    await queue.mark_failed("a0", "x")
    await queue.mark_failed("a1", "x")
    assert await queue.clear_failed(reason="old", person="ada") == 2
    assert [(o.item_type, o.body.get("item_id")) for o in offered(queue)] == [
        ("event", None),
        ("discard", "a0"),
        ("discard", "a1"),
    ]


async def test_what_is_on_its_way_cannot_be_given_up(queue: SyncQueue) -> None:
    await queue.enqueue(item("a1"))
    await queue.database.store.write(lambda tx: queue.take(tx, 10))
    with pytest.raises(Clash, match="on its way"):
        await queue.discard("a1", "", "ada")
    queue.came_back()
    await queue.discard("a1", "", "ada")


async def test_what_was_made_on_a_discarded_item_is_made_on_what_came_before(queue: SyncQueue) -> None:
    base: dict[str, Any] = {"base_generation": 1, "base_state_rev": 5}
    await queue.enqueue(item("a1", item_type="state_update", **base))
    await queue.enqueue(item("a2", item_type="state_update", after="a1"))
    await queue.enqueue(item("a3", item_type="state_update", after="a2"))
    await queue.discard("a2", "", "ada")
    assert [(o.id, o.after) for o in offered(queue)][:2] == [("a1", None), ("a3", "a1")]
    await queue.discard("a1", "", "ada")
    first = offered(queue)[0]
    assert (first.id, first.after, first.base) == ("a3", None, Base(generation=1, state_rev=5))


async def test_who_waits_for_a_discarded_item_hears_of_it(queue: SyncQueue) -> None:
    await queue.enqueue(item("a1"))
    waiting = asyncio.create_task(queue.settled("a1"))
    for _ in range(3):
        await asyncio.sleep(0)
    await queue.discard("a1", "", "ada")
    async with asyncio.timeout(5):
        assert (await waiting).outcome is Outcome.REJECTED


async def test_the_listing_goes_page_by_page_the_failed_ones_first(queue: SyncQueue) -> None:
    for n in range(7):
        await queue.enqueue(item(f"i{n}", lane=f"n{n}"))
    for id in ("i1", "i4", "i5"):
        await queue.mark_failed(id, "x")
    for limit in (1, 2, 3, 4, 7, 100):
        found, cursor = await queue.page(limit)
        seen = [i.id for i in found]
        while cursor is not None:
            found, cursor = await queue.page(limit, cursor)
            seen += [i.id for i in found]
        assert seen == ["i1", "i4", "i5", "i0", "i2", "i3", "i6"]


@pytest.mark.parametrize("cursor", ["x", "failed", "failed.-1", "waiting.1e9", "other.1", "failed." + "9" * 40])
async def test_a_cursor_of_no_listing_is_refused(queue: SyncQueue, cursor: str) -> None:
    with pytest.raises(Malformed):
        await queue.page(10, cursor)


# As a set


async def settle_all(queue: SyncQueue, *results: PushResult) -> int:
    return await queue.database.store.write(lambda tx: queue.settle_all(tx, results))


async def test_the_items_of_one_answer_are_settled_each_by_its_own_outcome(queue: SyncQueue) -> None:
    for id in ("i1", "i2", "i3", "i4"):
        await queue.enqueue(item(id))
    answer = [
        PushResult(id="i1", outcome=Outcome.APPLIED),
        PushResult(id="i2", outcome=Outcome.CONFLICT, conflict_id="c1"),
        PushResult(id="i3", outcome=Outcome.REJECTED, reason="illegal_edge: no"),
        PushResult(id="i4", outcome=Outcome.DUPLICATE, first=Outcome.CONFLICT),
        PushResult(id="never here", outcome=Outcome.APPLIED),
    ]
    assert await settle_all(queue, *answer) == 4
    assert sorted(sent(queue)) == [("i1", "applied"), ("i2", "conflict"), ("i4", "conflict")]
    assert [(i.id, i.last_error) for i in await queue.get_failed_items()] == [("i3", "illegal_edge: no")]
    assert (queue.pending_count, queue.failed_count) == (0, 1)
    (account,) = queue.database.store.read_now(accounts.read)
    assert (account.made, account.settled, account.queued) == (4, 4, 0)


async def test_an_item_that_an_answer_names_twice_is_settled_once(queue: SyncQueue) -> None:
    await queue.enqueue(item("i1"))
    twice = [PushResult(id="i1", outcome=Outcome.APPLIED), PushResult(id="i1", outcome=Outcome.APPLIED)]
    assert await settle_all(queue, *twice) == 1
    assert await settle_all(queue, *twice) == 0
    assert (sent(queue), queue.pending_count) == ([("i1", "applied")], 0)
    (account,) = queue.database.store.read_now(accounts.read)
    assert (account.made, account.settled) == (1, 1)


async def test_a_failed_item_that_central_has_after_all_is_settled_with_the_others(queue: SyncQueue) -> None:
    for id in ("i1", "i2"):
        await queue.enqueue(item(id, lane=id))
    await queue.mark_failed("i1", "never got through")
    assert await settle_all(queue, *(PushResult(id=id, outcome=Outcome.APPLIED) for id in ("i1", "i2"))) == 2
    assert (queue.pending_count, queue.failed_count) == (0, 0)


async def test_everyone_who_waits_for_an_item_of_a_set_is_told(queue: SyncQueue) -> None:
    for id in ("i1", "i2"):
        await queue.enqueue(item(id))
    waiting = [asyncio.create_task(queue.settled(id)) for id in ("i1", "i2")]
    await asyncio.sleep(0)
    await settle_all(queue, *(PushResult(id=id, outcome=Outcome.APPLIED) for id in ("i1", "i2")))
    async with asyncio.timeout(30):
        assert [result.id for result in await asyncio.gather(*waiting)] == ["i1", "i2"]


async def test_listeners_hear_of_what_comes_after_they_were_told(queue: SyncQueue) -> None:
    """Many arrivals may be one call, but never none: the call runs while the next is being written."""
    heard = asyncio.Event()
    queue.on_arrival(heard.set)
    for number in range(200):
        await queue.enqueue(item(f"i{number}"))
        async with asyncio.timeout(30):
            await heard.wait()
        heard.clear()
