"""What central asks of an agent is done at most once, whatever is lost, repeated or killed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pureboot.agent.commands import Commands
from pureboot.agent.queue import QueueItem, SyncQueue
from pureboot.storage.sqlite import Transaction
from pureboot.wire.beats import Command, CommandDone
from tests.support.parts import EPOCH


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[SyncQueue]:
    queue = SyncQueue(tmp_path / "agent.db")
    await queue.initialize()
    for n in range(3):
        item = QueueItem(id=f"i{n}", item_type="event", payload={"event": "e"}, created_at=EPOCH, lane=f"n{n}")
        await queue.enqueue(item)
    await queue.mark_failed("i1", "poison")
    yield queue
    queue.database.close()


def commands(queue: SyncQueue, heard: list[str] | None = None) -> Commands:
    said = heard if heard is not None else []

    async def invalidate(name: str) -> None:
        said.append(f"invalidate {name}")

    return Commands(queue, sync=lambda: said.append("sync"), invalidate=invalidate)


def discard(id: str = "c1", item: str = "i1") -> Command:
    return Command(id=id, command="discard", item_id=item, reason="swapped", person="ada")


async def test_a_failed_item_goes_out_again(queue: SyncQueue) -> None:
    asked = commands(queue)
    await asked.obey(Command(id="c1", command="requeue", item_id="i1"))
    assert (queue.pending_count, queue.failed_count) == (3, 0)
    assert await asked.untold() == [CommandDone(id="c1", outcome="done")]


async def test_asked_for_again_it_is_told_again_and_not_done_again(queue: SyncQueue) -> None:
    asked = commands(queue)
    await asked.obey(discard())
    done = await asked.untold()
    await asked.told(done)
    assert await asked.untold() == []
    await asked.obey(discard())  # central was restored from its backup
    assert await asked.untold() == done == [CommandDone(id="c1", outcome="done")]
    discards = [item for item in await queue.peek(100) if item.item_type == "discard"]
    assert [item.payload["person"] for item in discards] == ["ada"]


async def test_what_cannot_be_done_is_told_with_its_reason(queue: SyncQueue) -> None:
    asked = commands(queue)
    await asked.obey(discard(item="gone"))
    await asked.obey(Command(id="c2", command="explode"))
    refused, unknown = await asked.untold()
    assert (refused.id, refused.outcome) == ("c1", "refused")
    assert refused.message.startswith("There is no such item in the queue.")
    assert (unknown.id, unknown.outcome) == ("c2", "unknown")


async def test_an_item_on_its_way_is_not_given_up(queue: SyncQueue) -> None:
    await queue.database.store.write(lambda tx: queue.take(tx, 10))
    asked = commands(queue)
    await asked.obey(discard(item="i0"))
    assert [(done.outcome, done.message[:23]) for done in await asked.untold()] == [
        ("refused", "This item is on its way")
    ]


async def test_a_death_before_the_commit_leaves_neither_the_deed_nor_the_note(
    queue: SyncQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = commands(queue)
    give_up = queue.give_up

    def dying(tx: Transaction, *about: str) -> None:
        give_up(tx, *about)
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(queue, "give_up", dying)
        with pytest.raises(OSError, match="killed"):
            await commands(queue).obey(discard())
    assert (await asked.untold(), queue.failed_count) == ([], 1)
    await asked.obey(discard())
    assert (len(await asked.untold()), queue.failed_count) == (1, 0)


async def test_what_was_done_is_known_after_a_restart(queue: SyncQueue, tmp_path: Path) -> None:
    await commands(queue).obey(discard())
    queue.database.close()
    again = SyncQueue(tmp_path / "agent.db")
    await again.initialize()
    try:
        asked = commands(again)
        assert await asked.untold() == [CommandDone(id="c1", outcome="done")]
        await asked.obey(discard())
        assert again.pending_count == 3  # i0, i2, and the one word that i1 was given up
    finally:
        again.database.close()


async def test_a_central_of_before_waits_for_no_account(queue: SyncQueue) -> None:
    heard: list[str] = []
    asked = commands(queue, heard)
    await asked.obey(Command(command="sync"))
    await asked.obey(Command(command="sync"))
    assert (heard, await asked.untold()) == (["sync", "sync"], [])


async def test_a_file_is_dropped_on_demand(queue: SyncQueue) -> None:
    heard: list[str] = []
    asked = commands(queue, heard)
    await asked.obey(Command(id="c1", command="invalidate", name="images/debian/linux"))
    assert heard == ["invalidate images/debian/linux"]
    assert [done.outcome for done in await asked.untold()] == ["done"]


async def test_notes_that_central_has_heard_of_are_bounded(queue: SyncQueue) -> None:
    asked = commands(queue)
    for n in range(1100):
        await queue.database.store.write(
            lambda tx, n=n: tx.execute("INSERT INTO command VALUES (?, 'done', '', '', 1)", [f"old{n}"])  # type: ignore[misc]
        )
    await asked.obey(discard())
    await asked.told(await asked.untold())
    count = queue.database.store.read_now(lambda c: c.execute("SELECT count(*) FROM command").fetchone()[0])
    assert count == 1000
