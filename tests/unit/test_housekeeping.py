"""What an agent does once a minute, and goes on doing when there is no room for anything else."""

import asyncio
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pureboot.agent.bounds import MIB, Bounds, Space
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.database import get_meta
from pureboot.agent.housekeeping import WORTH_IT, Housekeeping
from pureboot.agent.observations import Observations
from pureboot.agent.queue import QueueItem
from pureboot.core.changes import NodeEvent
from pureboot.core.errors import StorageFull
from pureboot.core.lifecycle import By, Edge, NodeState, Stage
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import Outcome, PushResult
from tests.support.link import URL
from tests.support.parts import EPOCH, Parts, opened

DAY = 86400.0
BEGINS = Edge(Stage(NodeState.PENDING), Stage(NodeState.INSTALLING, 1), By.SYSTEM)
FREE = "PRAGMA freelist_count"


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with opened(tmp_path / "agent.db") as parts:
        yield parts


def housekeeping(parts: Parts, *, observations: Observations | None = None, **fields: Any) -> Housekeeping:
    observations = observations or Observations(parts.journal)
    connectivity = ConnectivityMonitor(URL, now=parts.clock.when, last_online_at=parts.clock.when())
    values: dict[str, Any] = {"sent_retention_days": 7} | fields
    return Housekeeping(parts.site, parts.queue, parts.journal, observations, connectivity, **values)


async def says(parts: Parts, count: int) -> list[str]:
    accepted = [await parts.journal.record("n1", NodeEvent("n1", f"e{n}")) for n in range(count)]
    return [str(one.queue_id) for one in accepted]


def nearly_full(bounds: Bounds) -> Bounds:
    """Of what one item takes most: `boot_started` has no place."""
    return replace(bounds, max_items=1)


def below_the_floor(bounds: Bounds) -> Bounds:
    return replace(bounds, space=lambda _: Space(total=100_000 * MIB, free=MIB))


async def test_boots_are_queued_once_a_minute(parts: Parts) -> None:
    await parts.knows()
    seen = Observations(parts.journal)
    for _ in range(3):
        seen.saw("n1")
    keeping = housekeeping(parts, observations=seen)
    await keeping.tidy()
    await keeping.tidy()
    assert [item.payload["metadata"] for item in await parts.waiting()] == [{"boots": 3}]


@pytest.mark.parametrize("crowded", [nearly_full, below_the_floor])
async def test_an_approval_grows_no_younger_where_boots_have_no_room_to_be_told(
    parts: Parts, tmp_path: Path, crowded: Any
) -> None:
    """Nine days of an outage, in which somebody puts the clock back by eight; then the host is started anew."""
    await parts.knows()  # this is when central was last heard out
    seen = Observations(parts.journal)
    keeping = housekeeping(parts, observations=seen)
    await keeping.tidy()
    await says(parts, 1)
    parts.queue.bounds = crowded(parts.queue.bounds)
    parts.clock.advance(9 * DAY)
    parts.clock.set_wall(-8 * DAY)
    seen.saw("n1")
    with pytest.raises(StorageFull):
        await keeping.tidy()
    parts.database.close()
    parts.clock.reboot(60)
    with opened(tmp_path / "agent.db", parts.clock) as again:
        assert again.site.knowledge_age() == pytest.approx(9 * DAY + 60)


@pytest.mark.parametrize("crowded", [nearly_full, below_the_floor])
async def test_what_is_old_goes_and_makes_room_where_there_is_none(parts: Parts, crowded: Any) -> None:
    await parts.knows()
    settled, _ = await says(parts, 2)
    await parts.queue.dequeue(settled)
    await parts.database.store.write(empty_pages)
    seen = Observations(parts.journal)
    seen.saw("n1")
    parts.queue.bounds = crowded(parts.queue.bounds)
    with pytest.raises(StorageFull):
        await housekeeping(parts, observations=seen, sent_retention_days=-1).tidy()
    assert parts.rows("SELECT id FROM sync_sent") == []
    assert parts.rows(FREE) == [(0,)]
    assert get_meta(parts.database.store, "last_online_at") == parts.clock.when().isoformat()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("days", [3650, -3650])
async def test_a_clock_that_is_set_makes_nothing_old_that_was_settled(
    parts: Parts, days: float, restarted: bool
) -> None:
    """A central that is restored may have forgotten it."""
    await parts.knows()
    keeping = housekeeping(parts)
    await keeping.tidy()
    (settled,) = await says(parts, 1)
    await parts.queue.dequeue(settled)
    parts.clock.reboot(days * DAY) if restarted else parts.clock.set_wall(days * DAY)
    for passed in (0, 6.5 * DAY):
        parts.clock.advance(passed)
        await keeping.tidy()
        assert parts.rows("SELECT id FROM sync_sent") == [(settled,)]
    parts.clock.advance(DAY)
    await keeping.tidy()
    assert parts.rows("SELECT id FROM sync_sent") == ([] if days > 0 else [(settled,)])


@pytest.mark.parametrize("days", [6.9, 7.1])
async def test_what_was_settled_is_kept_for_its_days(parts: Parts, days: float) -> None:
    await parts.knows()
    keeping = housekeeping(parts)
    (settled,) = await says(parts, 1)
    await parts.queue.dequeue(settled)
    await keeping.tidy()
    parts.clock.set_wall(3600)  # an hour makes nothing old
    parts.clock.advance(days * DAY)
    await keeping.tidy()
    assert bool(parts.rows("SELECT id FROM sync_sent")) is (days < 7)


async def test_the_file_shrinks_whatever_waits(parts: Parts) -> None:
    """A lane that a failed item has stopped may wait for weeks."""
    await parts.knows()
    stopped, _ = await says(parts, 2)
    await parts.queue.mark_failed(stopped, "x")
    await parts.database.store.write(empty_pages)
    seen = Observations(parts.journal)
    seen.saw("n1")
    await housekeeping(parts, observations=seen).tidy()
    assert parts.rows(FREE) == [(0,)]
    assert parts.queue.pending_count == 2


@pytest.mark.parametrize(
    ("sent_bytes", "days", "low", "high"), [(2 * MIB, 7, 1.9, 4), (64 * MIB, -1, 0, 1)], ids=["bytes", "days"]
)
async def test_the_file_shrinks_after_a_drain_to_what_is_kept_of_settled_items(
    parts: Parts, tmp_path: Path, sent_bytes: int, days: int, low: float, high: float
) -> None:
    """Behind a lane that is stopped."""
    await parts.knows()
    (stopped,) = await says(parts, 1)
    await parts.queue.mark_failed(stopped, "x")
    said = [event(f"i{n}", "x" * 5000) for n in range(2000)]
    await parts.database.store.write(lambda tx: [parts.queue.append(tx, item) for item in said])
    answer = [PushResult(id=item.id, outcome=Outcome.APPLIED) for item in said]
    await parts.database.store.write(lambda tx: parts.queue.settle_all(tx, answer))
    parts.queue.bounds = replace(parts.queue.bounds, sent_bytes=sent_bytes)
    assert size_of(tmp_path) > 8 * MIB
    await housekeeping(parts, sent_retention_days=days).tidy()
    assert low * MIB <= size_of(tmp_path) <= high * MIB
    assert parts.queue.failed_count == 1


def event(id: str, message: str) -> QueueItem:
    payload = {"event": "e", "message": message}
    return QueueItem(id=id, item_type="event", payload=payload, created_at=EPOCH, lane="n2")


def size_of(folder: Path) -> int:
    """Of the file and its log."""
    return sum(path.stat().st_size for path in (folder / "agent.db", folder / "agent.db-wal") if path.exists())


async def test_a_few_empty_pages_are_left_to_what_comes_next(parts: Parts) -> None:
    await parts.database.store.write(lambda tx: empty_pages(tx, WORTH_IT // 2))
    [[free]] = parts.rows(FREE)
    await housekeeping(parts).tidy()
    assert parts.rows(FREE) == [(free,)]


async def test_an_install_that_began_on_a_full_disk_has_begun_after_a_restart_too(parts: Parts, tmp_path: Path) -> None:
    await parts.knows(state=NodeState.PENDING)
    token = (await parts.journal.begin("n1", (BEGINS,))).node.boot_token
    await parts.database.store.write(lambda tx: tx.execute(NO_ROOM))
    with pytest.raises(sqlite3.IntegrityError, match="no room"):
        await parts.journal.mark_begun(token)
    assert parts.journal.has_begun(parts.node())
    assert not parts.node().begun
    await parts.database.store.write(lambda tx: tx.execute("DROP TRIGGER no_room"))
    await housekeeping(parts).tidy()
    parts.database.close()
    with opened(tmp_path / "agent.db") as again:
        assert again.node().begun


NO_ROOM = "CREATE TRIGGER no_room BEFORE UPDATE ON node BEGIN SELECT RAISE (ABORT, 'no room'); END"


def empty_pages(tx: Transaction, count: int = WORTH_IT + 100) -> None:
    """As a drain leaves them."""
    tx.execute("INSERT INTO meta VALUES ('large', ?)", ["x" * 4096 * count])
    tx.execute("DELETE FROM meta WHERE key = 'large'")


async def test_what_was_seen_until_it_stops_is_kept(parts: Parts) -> None:
    await parts.knows()
    seen = Observations(parts.journal)
    keeping = housekeeping(parts, observations=seen, interval=1000)
    await keeping.start()
    seen.saw("n1")
    await keeping.stop()
    await keeping.stop()
    assert [item.payload["event"] for item in await parts.waiting()] == ["boot_started"]


async def test_a_round_that_fails_is_not_the_last(parts: Parts) -> None:
    await parts.knows()
    seen = Observations(parts.journal)
    seen.saw("n1")
    roomy, parts.queue.bounds = parts.queue.bounds, below_the_floor(parts.queue.bounds)
    keeping = housekeeping(parts, observations=seen, interval=0.001)
    await keeping.start()
    while get_meta(parts.database.store, "clock") is None:
        await asyncio.sleep(0.001)
    parts.queue.bounds = roomy
    while not parts.queue.pending_count:
        await asyncio.sleep(0.001)
    await keeping.stop()
