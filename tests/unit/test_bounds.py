"""The outbox has a bound, and gives up first what matters least."""

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pureboot.agent.bounds import MIB, Bounds, Space, Usage
from pureboot.agent.queue import QueueItem, SyncQueue
from pureboot.agent.schema import FIRST
from pureboot.core.errors import StorageFull
from tests.fakes import SiteClock
from tests.support.parts import EPOCH

PROGRESS: dict[str, Any] = {"event": "install_progress", "metadata": {"percent": 1}}


class Disk:
    def __init__(self, free: int) -> None:
        self.free = free

    def space(self, _: Path) -> Space:
        return Space(total=100_000 * MIB, free=self.free)


def item(id: str, lane: str = "n1", item_type: str = "event", **payload: Any) -> QueueItem:
    return QueueItem(id=id, item_type=item_type, payload=payload or {"event": "e"}, created_at=EPOCH, lane=lane)


@contextlib.asynccontextmanager
async def queue_of(path: Path, **bounds: Any) -> AsyncIterator[SyncQueue]:
    queue = SyncQueue(path / "agent.db", clock=SiteClock(), bounds=Bounds(**bounds))
    await queue.initialize()
    try:
        yield queue
    finally:
        queue.database.close()


async def fill(queue: SyncQueue, count: int) -> None:
    for n in range(count):
        await queue.enqueue(item(f"fill-{n}", lane=f"lane-{n}"))


async def take(queue: SyncQueue) -> None:
    await queue.database.store.write(lambda tx: queue.take(tx, 1000))


def usage(queue: SyncQueue) -> Usage:
    return queue.database.store.read_now(queue.usage)


def counted_rows(queue: SyncQueue) -> Usage:
    sql = "SELECT count(*), coalesce(sum(length(CAST(payload AS BLOB))), 0) FROM sync_queue WHERE replayed = 0"
    return Usage(*queue.database.store.read_now(lambda c: c.execute(sql).fetchone()))


# Steps


async def test_a_full_outbox_takes_nothing_more_and_says_when_to_come_again(tmp_path: Path) -> None:
    async with queue_of(tmp_path, max_items=20) as queue:
        await fill(queue, 19)
        await queue.enqueue(item("edge", item_type="state_update"))
        with pytest.raises(StorageFull, match="full") as refused:
            await queue.enqueue(item("one too many", item_type="state_update"))
        assert refused.value.retry_after == 60
        assert (queue.pending_count, usage(queue).items) == (20, 20)
        await queue.dequeue("fill-0")
        await queue.enqueue(item("again", item_type="state_update"))


async def test_bytes_are_bounded_as_well(tmp_path: Path) -> None:
    async with queue_of(tmp_path, max_bytes=1000) as queue:
        await queue.enqueue(item("small", event="e", message="x" * 100))
        with pytest.raises(StorageFull):
            await queue.enqueue(item("large", event="e", message="x" * 1000))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (item("i", item_type="registration"), True),
        (item("i", item_type="state_update"), True),
        (item("i", event="install_failed"), True),
        (item("i", event="raid_rebuild_failed"), True),
        (item("i", event="install_complete"), True),
        (item("i", event="first_boot"), True),
        (item("i", event="heartbeat"), False),
        (item("i", event="something"), False),
    ],
    ids=lambda value: str(value.payload.get("event", value.item_type)) if isinstance(value, QueueItem) else None,
)
async def test_a_nearly_full_one_takes_what_moves_a_node_or_tells_of_a_failure(
    tmp_path: Path, given: QueueItem, taken: bool
) -> None:
    async with queue_of(tmp_path, max_items=100) as queue:
        await fill(queue, 95)
        refused = contextlib.nullcontext() if taken else pytest.raises(StorageFull, match="nearly full")
        with refused:
            await queue.enqueue(given)
        assert queue.pending_count == 95 + taken


async def test_the_last_of_it_is_for_what_moves_a_node(tmp_path: Path) -> None:
    async with queue_of(tmp_path, max_items=100) as queue:
        await fill(queue, 95)
        for n in range(3):
            await queue.enqueue(item(f"facts-{n}", item_type="registration"))
        for given in (item("facts", item_type="registration"), item("failed", event="raid_rebuild_failed")):
            with pytest.raises(StorageFull, match="only changes of state are taken") as refused:
                await queue.enqueue(given)
            assert refused.value.retry_after == 60
        complete, edge = item("event", event="install_complete"), item("edge", item_type="state_update")
        await queue.database.store.write(lambda tx: queue.append(tx, complete, with_edge=True))
        await queue.enqueue(edge)
        assert queue.pending_count == 100


async def test_a_crowded_one_counts_progress_instead_of_keeping_it(tmp_path: Path) -> None:
    async with queue_of(tmp_path, max_items=100) as queue:
        await fill(queue, 79)
        for n in range(2):
            await queue.enqueue(item(f"plain-{n}", **PROGRESS))
        assert queue.pending_count == 81
        carriers = {
            await queue.enqueue(item(f"more-{n}", event=event, message=f"{n}"))
            for n, event in enumerate(["install_progress", "heartbeat", "install_progress"])
        }
        assert (carriers, queue.pending_count) == ({"plain-1"}, 81)
        *_, last = await queue.peek(100)
        said = {"install_progress": 3, "heartbeat": 1}
        assert last.payload == {"event": "install_progress", "message": "2", "metadata": {"counted": said}}
        assert await queue.enqueue(item("other", lane="n2", **PROGRESS)) == "other"


async def test_what_is_counted_keeps_its_place_in_its_lane(tmp_path: Path) -> None:
    async with queue_of(tmp_path, max_items=100) as queue:
        await fill(queue, 85)
        await queue.enqueue(item("before", **PROGRESS))
        await queue.enqueue(item("edge", item_type="state_update"))
        assert await queue.enqueue(item("after", **PROGRESS)) == "after"


@pytest.mark.parametrize("rot", ["replace(payload, 'progress', 'prowess')", "substr(payload, 2)"])
async def test_what_counted_and_rotted_counts_no_more(tmp_path: Path, rot: str) -> None:
    """What is said next is accepted, and what rotted is not written anew as if it had been said."""
    async with queue_of(tmp_path, max_items=100) as queue:
        await fill(queue, 85)
        await queue.enqueue(item("rotten", **PROGRESS))
        await queue.database.store.write(lambda tx: tx.execute(f"UPDATE sync_queue SET payload = {rot} WHERE counted"))
        assert await queue.enqueue(item("anew", **PROGRESS)) == "anew"
        assert await queue.enqueue(item("more", **PROGRESS)) == "anew"
        payloads = {i.id: i.payload for i in await queue.peek(100)}
    assert list(payloads["rotten"]) == ["unreadable"]
    assert payloads["anew"]["metadata"]["counted"] == {"install_progress": 2}


async def test_what_was_offered_once_counts_no_more(tmp_path: Path) -> None:
    """Its answer may be lost; with another payload under the same id central would reject it. A restart changes
    nothing about that."""
    async with queue_of(tmp_path, max_items=100) as queue:
        await fill(queue, 85)
        await queue.enqueue(item("offered", **PROGRESS))
        await take(queue)
    async with queue_of(tmp_path, max_items=100) as queue:
        assert await queue.enqueue(item("anew", **PROGRESS)) == "anew"
        payloads = {i.id: i.payload for i in await queue.peek(100)}
    assert payloads["offered"]["metadata"]["counted"] == {"install_progress": 1}


async def test_below_the_floor_of_the_disk_nothing_is_taken_and_what_is_there_drains(tmp_path: Path) -> None:
    disk = Disk(free=600 * MIB)
    async with queue_of(tmp_path, space=disk.space) as queue:
        await queue.enqueue(item("i1"))
        disk.free = 500 * MIB
        with pytest.raises(StorageFull, match="nearly full"):
            await queue.enqueue(item("i2", item_type="state_update"))
        assert "boots go on" in queue.crowded()
        assert await queue.dequeue("i1")
        disk.free = 600 * MIB
        await queue.enqueue(item("i3"))
        assert queue.crowded() == ""


def test_the_floor_of_a_small_disk_is_a_part_of_it() -> None:
    bounds = Bounds(space=lambda _: Space(total=1000 * MIB, free=51 * MIB))
    assert not bounds.below_floor(Path("agent.db"))
    assert replace(bounds, space=lambda _: Space(1000 * MIB, 49 * MIB)).below_floor(Path("agent.db"))


def test_what_is_spare_is_beyond_the_floor_or_so_many_times_it() -> None:
    bounds = Bounds(space=lambda _: Space(total=1000 * MIB, free=120 * MIB))
    assert [bounds.spare(Path("agent.db"), floors) / MIB for floors in (0, 1, 2, 3)] == [120, 70, 20, -30]


async def test_a_person_is_told_before_it_is_full(tmp_path: Path) -> None:
    async with queue_of(tmp_path, max_items=20) as queue:
        await fill(queue, 15)
        assert queue.crowded() == ""
        await fill_one(queue)
        assert queue.crowded().startswith("The outbox is 80% full")


async def fill_one(queue: SyncQueue) -> None:
    await queue.enqueue(item("one more"))


async def test_a_full_outbox_can_be_cleared(tmp_path: Path) -> None:
    async with queue_of(tmp_path, max_items=20) as queue:
        await fill(queue, 19)
        await queue.enqueue(item("edge", item_type="state_update"))
        await queue.discard("edge", "", "ada")
        assert queue.pending_count == 20


async def test_what_comes_back_for_a_restored_central_keeps_nothing_out(tmp_path: Path) -> None:
    """It may be more than an outbox takes. A person still sees all that waits."""
    async with queue_of(tmp_path, max_items=20) as queue:
        await settle(queue, 30)
        assert await queue.database.store.write(queue.bring_back) == 30
        assert (queue.pending_count, usage(queue), queue.crowded()) == (30, Usage(0, 0), "")
        await fill(queue, 19)
        await queue.enqueue(item("edge", item_type="state_update"))
        with pytest.raises(StorageFull):
            await queue.enqueue(item("one too many", item_type="state_update"))
        assert queue.pending_count == 50


async def test_the_bound_holds_whatever_becomes_of_what_came_back(tmp_path: Path) -> None:
    async with queue_of(tmp_path, max_items=20) as queue:
        await settle(queue, 4)
        await queue.database.store.write(queue.bring_back)
        await fill(queue, 3)
        before = usage(queue)
        await queue.dequeue("settled-0")
        await queue.discard("settled-1", "", "ada")
        await queue.mark_failed("settled-2", "x")
        assert (usage(queue), counted_rows(queue), queue.pending_count) == (before, before, 5)
    async with queue_of(tmp_path, max_items=20) as queue:
        assert (usage(queue), queue.pending_count) == (before, 5)


async def settle(queue: SyncQueue, count: int) -> None:
    for n in range(count):
        await queue.enqueue(item(f"settled-{n}", item_type="state_update"))
        await queue.dequeue(f"settled-{n}")


# The count is the file's own


async def test_what_is_counted_is_what_is_there(tmp_path: Path) -> None:
    async with queue_of(tmp_path, max_items=40) as queue:
        await fill(queue, 33)
        for n in range(3):
            await queue.enqueue(item(f"p{n}", event="heartbeat", message="ü" * n))
        with contextlib.suppress(sqlite3.IntegrityError):
            await queue.enqueue(item("p0", item_type="state_update"))
        await queue.mark_failed("fill-3", "x")
        await queue.discard("fill-3", "", "ada")
        await queue.dequeue("fill-4")
        await queue.database.store.write(queue.bring_back)
        assert usage(queue) == counted_rows(queue)
    async with queue_of(tmp_path) as queue:
        assert usage(queue) == counted_rows(queue)


async def test_what_is_kept_of_settled_items_is_bounded_by_their_bytes(tmp_path: Path) -> None:
    async with queue_of(tmp_path, sent_bytes=1000) as queue:
        for n in range(20):
            await queue.enqueue(item(f"i{n}", event="e", message="x" * 70))
            await queue.dequeue(f"i{n}")
        gone = await queue.database.store.write(lambda tx: queue.forget_sent(tx, EPOCH - timedelta(days=1)))
        kept = queue.database.store.read_now(lambda c: c.execute("SELECT id FROM sync_sent ORDER BY seq").fetchall())
    assert [row["id"] for row in kept] == [f"i{n}" for n in range(gone, 20)]
    assert 8 <= len(kept) <= 10


# The file


async def test_the_file_shrinks_after_a_drain(tmp_path: Path) -> None:
    async with queue_of(tmp_path, sent_bytes=0) as queue:
        await queue.database.store.write(
            lambda tx: [queue.append(tx, item(f"i{n}", event="e", message="x" * 500)) for n in range(5000)]
        )
        await queue.database.store.write(lambda tx: tx.execute("DELETE FROM sync_queue"))
        await queue.database.store.shrink(over=10**9)
        full = size_of(tmp_path)
        await queue.database.store.shrink()
        assert full > 3 * MIB
        assert size_of(tmp_path) < 0.3 * MIB
        await queue.enqueue(item("after"))
    async with queue_of(tmp_path) as queue:
        assert [i.id for i in await queue.peek()] == ["after"]


def size_of(folder: Path) -> int:
    return sum(os.stat(folder / name).st_size for name in os.listdir(folder) if not name.endswith("-shm"))


async def test_a_file_of_the_first_version_is_carried_over_and_can_shrink(tmp_path: Path) -> None:
    """With its items, and with what became of them."""
    with contextlib.closing(sqlite3.connect(tmp_path / "agent.db")) as old:
        old.executescript(f"{FIRST}; PRAGMA user_version = 1;")
        columns = "id, lane, item_type, payload, epoch, autonomy, created_at, accepted, refused"
        row = "'n1', 'event', '{\"event\": \"e\"}', 'E1', 'limited', '2026-01-01T00:00:00+00:00'"
        stamp = '\'{"boot_id": "b", "boottime": 1, "wall": 2}\''
        old.execute(f"INSERT INTO sync_queue ({columns}) VALUES ('i1', {row}, {stamp}, 0)")
        old.execute(
            "INSERT INTO sync_sent (seq, id, lane, item_type, payload, epoch, outcome, settled_at)"
            " VALUES (9, 'i0', 'n1', 'event', '{}', 'E1', 'applied', '2026-01-01T00:00:00+00:00')"
        )
        old.execute("INSERT INTO meta VALUES ('generation', '3')")
        old.execute(
            "INSERT INTO node (id, state, attempt, base_version, base_state_rev, updated_at, cached_at)"
            " VALUES ('n1', 'active', 0, 4, 2, '2026-01-01', '2026-01-01')"
        )
        old.commit()
    async with queue_of(tmp_path) as queue:
        store = queue.database.store
        assert [i.id for i in await queue.peek()] == ["i1"]
        assert usage(queue) == counted_rows(queue)
        assert store.read_now(lambda c: c.execute("PRAGMA auto_vacuum").fetchone()[0]) == 2
        accounts = store.read_now(lambda c: c.execute("SELECT * FROM epoch_account").fetchall())
        assert [tuple(account) for account in accounts] == [("E1", 2, 1, 0)]
        generation = store.read_now(lambda c: c.execute("SELECT base_generation FROM node").fetchone()[0])
        assert generation == 3
        assert await store.write(queue.bring_back) == 1
        assert {i.id for i in await queue.peek()} == {"i0", "i1"}
