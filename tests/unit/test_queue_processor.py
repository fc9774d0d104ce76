"""The outbox drains while central answers (user's contract, task 4)."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pureboot.agent import accounts
from pureboot.agent.database import set_meta
from pureboot.agent.queue import QueueItem
from pureboot.core.changes import NodeEvent
from pureboot.core.errors import Clash, StorageFull
from pureboot.core.lifecycle import By, Edge, NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.reconcile import Strategy
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import EpochAccount
from tests.fakes import Behaviour, FakeCentral
from tests.support.link import linked
from tests.support.parts import EPOCH, MAC, OTHER_MAC, Parts, opened

S = NodeState
HERE = MacAddress.parse(MAC)


@pytest.fixture
def central() -> FakeCentral:
    return FakeCentral()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with opened(tmp_path / "agent.db") as parts:
        yield parts


async def both_know(parts: Parts, central: FakeCentral, node_id: str = "n1", mac: str = MAC, **state: Any) -> None:
    document = central.add(node_id, mac, **({"state": S.INSTALLED} | state))
    await parts.knows(node_id, mac, **document.model_dump(include={"state", "attempt", "version", "state_rev"}))


async def says(parts: Parts, count: int, node_id: str = "n1") -> list[str]:
    accepted = [await parts.journal.record(node_id, NodeEvent(node_id, f"e{n}")) for n in range(count)]
    return [str(one.queue_id) for one in accepted]


# The user's contract


async def test_process_on_reconnect(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    async with linked(parts, central) as link:
        await link.processor.start()
        ids = await says(parts, 3)
        await asyncio.sleep(0)
        assert central.batches == []
        await link.connectivity.check_connectivity()
        await central.heard(lambda c: c.effects == ids)
        await asyncio.wait_for(parts.queue.settled(ids[-1]), 5)
        assert parts.queue.pending_count == 0


async def test_process_registration(parts: Parts, central: FakeCentral) -> None:
    local = (await parts.journal.register(HERE, facts={"vendor": "QEMU"})).node.node_id
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        result = await link.processor.process_queue()
    assert (result.processed, result.failed, result.remaining, result.errors) == (1, 0, 0, [])
    assert central.nodes[local].facts == {"vendor": "QEMU"}
    assert (parts.node(local).base_version, parts.node(local).base_state_rev) == (1, 1)


async def test_a_report_repeated_once_central_has_named_the_node_anew_is_the_same_items(
    parts: Parts, central: FakeCentral
) -> None:
    """The machine came to this site while central was away; central had it under another name."""
    central.add("n1", MAC, S.INSTALLED)
    first = await parts.journal.report(HERE, NodeEvent("", "e"), report_id="r1")
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        again = await parts.journal.report(HERE, NodeEvent("", "e"), report_id="r1")
        assert (again.node.node_id, again.queue_id) == ("n1", first.queue_id)
        assert parts.queue.pending_count == 0


async def test_process_state_update(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    await parts.journal.move("n1", S.ACTIVE, report_id=None, boot_token=None)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        result = await link.processor.process_queue()
    assert (result.processed, result.remaining) == (1, 0)
    assert central.nodes["n1"].state is S.ACTIVE
    assert (parts.node().state, parts.node().base_state, parts.node().base_state_rev) == (S.ACTIVE, S.ACTIVE, 2)


@pytest.mark.parametrize("failure", ["refuses", "garbage", "broken", "busy", "unauthorised", "hangs"])
async def test_retry_on_failure(parts: Parts, central: FakeCentral, failure: Behaviour) -> None:
    """What goes wrong on the way says nothing about the items: it counts against none, and all go again."""
    await both_know(parts, central)
    ids = await says(parts, 3)
    async with linked(parts, central, patience=0.1) as link:
        await link.connectivity.check_connectivity()
        central.push = failure
        for _ in range(5):
            result = await link.processor.process_queue()
            assert (result.processed, result.failed, result.remaining, len(result.errors)) == (0, 0, 3, 1)
        assert [(i.id, i.attempts, i.status) for i in await parts.waiting()] == [(id, 0, "pending") for id in ids]
        central.push = "well"
        assert (await link.processor.process_queue()).processed == 3
    assert central.effects == ids


async def test_max_retries_exceeded(parts: Parts, central: FakeCentral) -> None:
    """Poison stops its own lane and delays no other."""
    await both_know(parts, central, "n1", MAC)
    await both_know(parts, central, "n2", OTHER_MAC)
    poison, behind = await says(parts, 2, "n1")
    healthy = await says(parts, 2, "n2")
    central.put_off = {"n1"}
    async with linked(parts, central, max_retries=3, retry_delay=10.0) as link:
        await link.connectivity.check_connectivity()
        assert (await link.processor.process_queue()).processed == 2
        assert central.effects == healthy
        for attempts in (1, 2):
            (first, second) = await parts.waiting()
            assert (first.id, first.attempts, first.last_error) == (poison, attempts, "not now")
            assert (second.id, second.attempts) == (behind, 0)
            pushes = len(central.batches)
            await link.processor.process_queue()
            assert len(central.batches) == pushes  # it waits
            parts.clock.advance(10.0 * 2**attempts)
            result = await link.processor.process_queue()
            assert (result.failed, result.errors) == ((0, []) if attempts == 1 else (1, ["not now"]))
        (failed,) = await parts.queue.get_failed_items()
        assert (failed.id, failed.attempts, failed.last_error) == (poison, 3, "not now")
        assert [i.id for i in await parts.waiting()] == [behind]
        central.put_off = set()
        await link.processor.process_queue()
        assert central.effects == healthy
        await parts.queue.clear_failed()
        await link.processor.process_queue()
        assert central.effects == [*healthy, behind]


async def test_batch_processing(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 100)
    async with linked(parts, central, batch_size=5, batch_max=30) as link:
        await link.connectivity.check_connectivity()
        result = await link.processor.process_queue()
    assert (result.processed, result.remaining) == (100, 0)
    assert [len(batch) for batch in central.batches] == [5, 10, 20, 30, 30, 5]
    assert central.effects == ids


# Exactly once


async def test_answers_that_are_lost_make_nothing_happen_twice(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 2)
    update = await parts.journal.move("n1", S.ACTIVE, report_id=None, boot_token=None)
    central.lose_answers = 3
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        for _ in range(4):
            await link.processor.process_queue()
    assert central.effects == [*ids, update.queue_id]
    assert (central.nodes["n1"].state, central.nodes["n1"].state_rev) == (S.ACTIVE, 2)
    assert (parts.queue.pending_count, parts.node().base_state_rev) == (0, 2)


async def test_a_chain_of_a_new_machine_goes_in_one_push(parts: Parts, central: FakeCentral) -> None:
    local = (await parts.journal.register(HERE, facts={})).node.node_id
    await parts.journal.record(local, NodeEvent(local, "hello"))
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        assert (await link.processor.process_queue()).processed == 2
    assert len(central.batches) == 1


async def test_a_rejected_item_is_counted_and_named(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    central.refused = {"n1"}
    ids = await says(parts, 2)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        result = await link.processor.process_queue()
    assert (result.processed, result.failed, result.remaining) == (0, 2, 0)
    assert result.errors == ["refused: by this test."] * 2
    assert [item.id for item in await parts.queue.get_failed_items()] == ids


@pytest.mark.parametrize(
    ("strategy", "state", "conflicts"),
    [(Strategy.CENTRAL_WINS, S.REPROVISION, 0), (Strategy.MANUAL, S.ACTIVE, 1)],
)
async def test_what_both_sides_changed_is_settled_or_shown(
    parts: Parts, strategy: Strategy, state: NodeState, conflicts: int
) -> None:
    central = FakeCentral(strategy=strategy)
    await both_know(parts, central)
    await parts.journal.move("n1", S.ACTIVE, report_id=None, boot_token=None)
    central.move("n1", S.REPROVISION)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        result = await link.processor.process_queue()
    assert (result.processed, result.remaining) == (1, 0)
    assert (parts.node().state, parts.conflicts.pending_count) == (state, conflicts)
    assert parts.node().base_state is S.REPROVISION


async def test_an_item_nobody_can_read_is_rejected_and_the_rest_goes_on(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    await parts.queue.enqueue(QueueItem(id="i1", item_type="state_update", payload={"node_id": "n1"}, created_at=EPOCH))
    ids = await says(parts, 1)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        result = await link.processor.process_queue()
    assert (result.failed, result.processed) == (1, 1)
    assert ids[0] in central.effects


# Batches central will not take


async def test_a_batch_that_is_too_large_is_halved(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 10)
    central.push, central.largest = "too_large", 3
    async with linked(parts, central, batch_size=10) as link:
        await link.connectivity.check_connectivity()
        result = await link.processor.process_queue()
    assert (result.processed, result.remaining) == (10, 0)
    assert [len(batch) for batch in central.batches[:3]] == [10, 5, 2]
    assert central.effects == ids


async def test_one_item_that_is_too_large_alone_waits_and_in_the_end_fails(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    (item,) = await says(parts, 1)
    central.push, central.largest = "too_large", 0
    async with linked(parts, central, max_retries=2) as link:
        await link.connectivity.check_connectivity()
        result = await link.processor.process_queue()
        assert result.remaining == 1
        parts.clock.advance(1000)
        assert (await link.processor.process_queue()).failed == 1
    (failed,) = await parts.queue.get_failed_items()
    assert (failed.id, failed.attempts) == (item, 2)


async def test_an_answer_that_leaves_items_out_is_not_centrals(parts: Parts, central: FakeCentral) -> None:
    """Else the same items would go again at once, for ever."""
    await both_know(parts, central)
    await says(parts, 2)

    class Forgetful(FakeCentral):
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            if not request.url.path.endswith("/push"):
                return response
            body = response.json()
            return type(response)(200, json=body | {"results": body["results"][:1]})

    forgetful = Forgetful()
    forgetful.nodes = central.nodes
    async with linked(parts, forgetful) as link:
        await link.connectivity.check_connectivity()
        async with asyncio.timeout(5):
            result = await link.processor.process_queue()
    assert (result.remaining, len(forgetful.batches), len(result.errors)) == (2, 1, 1)


# Central restored from a backup


async def install(parts: Parts, central: FakeCentral) -> list[str]:
    """An install from its approval to its end, in three items."""
    await both_know(parts, central, state=S.PENDING)
    begun = await parts.journal.begin("n1", (Edge(Stage(S.PENDING), Stage(S.INSTALLING, 1), By.SYSTEM),))
    token = begun.node.boot_token
    done = await parts.journal.move("n1", S.INSTALLED, report_id=None, boot_token=token)
    active = await parts.journal.move("n1", S.ACTIVE, report_id=None, boot_token=None)
    return [str(accepted.queue_id) for accepted in (begun, done, active)]


async def test_a_central_restored_from_a_backup_hears_again_what_it_forgot(parts: Parts, central: FakeCentral) -> None:
    ids = await install(parts, central)
    backup = dict(central.nodes)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        assert central.effects == ids
        await says(parts, 1)
        central.restore(backup)
        result = await link.processor.process_queue()
    assert (result.processed, result.remaining, result.failed, result.errors) == (4, 0, 0, [])
    assert central.effects[3:6] == ids
    assert (central.nodes["n1"].state, parts.node().state, parts.node().base) == (
        S.ACTIVE,
        S.ACTIVE,
        Stage(S.ACTIVE, 1),
    )
    assert (parts.site.position.generation, parts.site.position.cursor) == (2, "0")
    assert parts.node().base_version == central.nodes["n1"].version


async def test_what_waits_goes_behind_what_was_forgotten(parts: Parts, central: FakeCentral) -> None:
    ids = await install(parts, central)
    backup = dict(central.nodes)
    async with linked(parts, central, batch_size=1, batch_max=1) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        waiting = await says(parts, 2)
        central.restore(backup)
        await link.processor.process_queue()
    assert central.effects == [*ids, *ids, *waiting]


async def test_receipts_that_the_backup_held_make_no_second_effect(parts: Parts, central: FakeCentral) -> None:
    ids = await install(parts, central)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        central.generation = 2
        late = await says(parts, 1)
        await link.processor.process_queue()
    assert central.effects == [*ids, *late]
    assert parts.queue.pending_count == 0


async def test_a_change_made_before_the_news_stands_on_its_old_base(parts: Parts, central: FakeCentral) -> None:
    """The node's revision is of the former life, and says so: with the new generation's number it would be a lie."""
    await both_know(parts, central)
    await parts.mirror.begin_generation(2)
    await parts.journal.move("n1", S.ACTIVE, report_id=None, boot_token=None)
    (item,) = await parts.waiting()
    assert (item.base_generation, item.base_state_rev) == (1, 1)


async def test_a_generation_that_changes_with_each_push_is_left_in_peace(parts: Parts, central: FakeCentral) -> None:
    class Restless(FakeCentral):
        async def handle_async_request(self, request: Any) -> Any:
            self.generation += request.url.path.endswith("/push")
            return await super().handle_async_request(request)

    restless = Restless()
    await both_know(parts, restless)
    await says(parts, 1)
    async with linked(parts, restless) as link:
        await link.connectivity.check_connectivity()
        async with asyncio.timeout(5):
            result = await link.processor.process_queue()
    assert (result.remaining, len(restless.batches)) == (1, 2)


async def test_an_item_whose_push_has_ended_can_be_given_up(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    (id,) = await says(parts, 1)
    central.push = "broken"
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        await parts.queue.discard(id, "", "ada")


# The right to write


async def test_each_push_shows_the_fence_of_its_session(parts: Parts, central: FakeCentral) -> None:
    central.fence = 6
    await both_know(parts, central)
    ids = await says(parts, 1)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
    assert (link.processor.session.fence, central.effects) == (7, ids)
    (asked,) = central.sessions
    assert (asked.epoch, asked.previous_epochs) == (parts.queue.epoch, [])


async def test_an_agent_with_nothing_to_say_holds_its_session(parts: Parts, central: FakeCentral) -> None:
    async with linked(parts, central) as link:
        await link.processor.process_queue()
        assert central.sessions == []
        await link.connectivity.check_connectivity()
        for seconds, sessions in ((0, 1), (40, 1), (50, 2)):
            parts.clock.advance(seconds)
            await link.processor.process_queue()
            assert len(central.sessions) == sessions
    assert central.batches == []


async def test_an_agent_with_nothing_to_say_is_told_of_its_copy_and_may_write_after_it(
    parts: Parts, central: FakeCentral
) -> None:
    await both_know(parts, central)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        central.fenced = "the other copy"
        parts.clock.advance(50)
        await link.processor.process_queue()
        assert "Another copy of this agent is writing" in link.processor.session.problem
        central.fenced = ""
        parts.clock.advance(91)
        ids = await says(parts, 1)
        await link.processor.process_queue()
        assert link.processor.session.problem == ""
    assert central.effects == ids


async def test_its_loop_asks_before_the_lease_runs_out(parts: Parts, central: FakeCentral) -> None:
    central.lease_seconds = 0  # it is always time
    async with linked(parts, central) as link:
        await link.processor.start()
        await link.connectivity.check_connectivity()
        await central.heard(lambda c: len(c.sessions) > 2)
    assert central.batches == []


async def test_a_restart_names_the_life_that_held_the_lease(parts: Parts, central: FakeCentral, tmp_path: Path) -> None:
    """Else it would wait for its own lease to run out."""
    await both_know(parts, central)
    await says(parts, 1)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
    central.fenced = parts.queue.epoch
    parts.database.close()
    with opened(tmp_path / "agent.db", parts.clock) as again:
        ids = await says(again, 1)
        async with linked(again, central) as link:
            await link.connectivity.check_connectivity()
            await link.processor.process_queue()
        assert again.queue.epoch != central.fenced
    assert central.effects[-1:] == ids


async def test_a_life_that_never_heard_that_it_was_let_in_is_named_by_the_next(
    parts: Parts, central: FakeCentral, tmp_path: Path
) -> None:
    """Else an agent that is killed at the wrong moment would be locked out by itself, for as long as its lease runs."""
    await both_know(parts, central)
    central.session = "hangs"
    async with linked(parts, central, patience=0.05) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
    central.fenced, central.session = parts.queue.epoch, "well"
    parts.database.close()
    with opened(tmp_path / "agent.db", parts.clock) as again:
        ids = await says(again, 1)
        async with linked(again, central) as link:
            await link.connectivity.check_connectivity()
            await link.processor.process_queue()
    assert central.effects == ids


async def test_an_agent_that_was_killed_twice_while_it_asked_names_both_lives(
    parts: Parts, central: FakeCentral, tmp_path: Path
) -> None:
    """The first of them may be the one that was let in."""
    await both_know(parts, central)
    parts.database.close()
    central.session = "hangs"
    lives = []
    for _ in range(2):
        with opened(tmp_path / "agent.db", parts.clock) as life:
            async with linked(life, central, patience=0.05) as link:
                await link.connectivity.check_connectivity()
                await link.processor.process_queue()
            lives.append(life.queue.epoch)
    central.fenced, central.session = lives[0], "well"
    with opened(tmp_path / "agent.db", parts.clock) as third:
        ids = await says(third, 1)
        async with linked(third, central) as link:
            await link.connectivity.check_connectivity()
            await link.processor.process_queue()
    assert central.sessions[-1].previous_epochs == lives[::-1]
    assert central.effects == ids


async def test_a_lease_is_asked_for_again_before_it_runs_out(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        for seconds, sessions in ((0, 1), (40, 1), (40, 1), (50, 2)):
            parts.clock.advance(seconds)
            await says(parts, 1)
            await link.processor.process_queue()
            assert len(central.sessions) == sessions


async def test_a_copy_that_is_fenced_keeps_everything_and_says_so(parts: Parts, central: FakeCentral) -> None:
    central.fenced = "the other copy"
    await both_know(parts, central)
    ids = await says(parts, 1)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        for _ in range(3):
            assert (await link.processor.process_queue()).remaining == 1
        assert (len(central.sessions), central.batches) == (1, [])
        assert "Another copy of this agent is writing" in link.processor.session.problem
        central.fenced = ""
        parts.clock.advance(91)
        ids += await says(parts, 1)
        assert (await link.processor.process_queue()).remaining == 0
        assert link.processor.session.problem == ""
    assert central.effects == ids


async def test_a_copy_that_loses_its_lease_stops_at_once(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 1)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        central.fence, central.fenced = 9, "the other copy"
        await says(parts, 1)
        assert (await link.processor.process_queue()).remaining == 1
        assert link.processor.session.problem
    assert central.effects == ids


async def test_a_fence_that_only_grew_old_is_renewed(parts: Parts, central: FakeCentral) -> None:
    """Central was restored: it forgot the session, and nobody else holds one."""
    await both_know(parts, central)
    ids = await says(parts, 1)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        central.fence = 9
        ids += await says(parts, 1)
        assert (await link.processor.process_queue()).errors == []
    assert central.effects == ids


async def test_a_central_of_before_there_were_sessions_takes_pushes(parts: Parts) -> None:
    class Older(FakeCentral):
        async def handle_async_request(self, request: Any) -> Any:
            if request.url.path.endswith("/session"):
                return httpx2.Response(404, json={"error": {"code": "not_found", "message": "There is no such page."}})
            return await super().handle_async_request(request)

    older = Older()
    await both_know(parts, older)
    ids = await says(parts, 1)
    async with linked(parts, older) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
    assert older.effects == ids


# What became of the items


async def test_a_push_says_what_became_of_the_items_of_each_life(
    parts: Parts, central: FakeCentral, tmp_path: Path
) -> None:
    await both_know(parts, central)
    await says(parts, 3)
    first = parts.queue.epoch
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        doomed, *_ = await says(parts, 3)
        await parts.queue.discard(doomed, "no use", "ada")
    parts.database.close()
    with opened(tmp_path / "agent.db", parts.clock) as again:
        second = again.queue.epoch
        await says(again, 1)
        async with linked(again, central) as link:
            await link.connectivity.check_connectivity()
            await link.processor.process_queue()
    told = {account.epoch: account for account in central.accounts[-1]}
    assert told[first] == EpochAccount(epoch=first, made=7, settled=3, discarded=1, queued=3)
    assert told[second] == EpochAccount(epoch=second, made=1, settled=0, discarded=0, queued=1)


async def test_an_item_that_vanished_leaves_a_gap(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 3)
    await parts.database.store.write(lambda tx: tx.execute("DELETE FROM sync_queue WHERE id = ?", [ids[1]]))
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
    (account,) = central.accounts[0]
    assert accounts.gap(account) == 1


async def test_a_gap_is_told_however_many_lives_came_after_it(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 2)
    await parts.database.store.write(lambda tx: tx.execute("DELETE FROM sync_queue WHERE id = ?", [ids[1]]))
    for number in range(accounts.MOST + 1):
        await parts.database.store.write(partial(lives_and_dies, f"later{number}"))
    await parts.database.store.write(accounts.forget)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
    told = {account.epoch: accounts.gap(account) for account in central.accounts[0]}
    assert len(told) == accounts.MOST
    assert {epoch: gap for epoch, gap in told.items() if gap} == {parts.queue.epoch: 1}


def lives_and_dies(epoch: str, tx: Transaction) -> None:
    accounts.begin(tx, epoch)


async def test_accounts_go_once_a_minute(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        for seconds in (0, 10, 60):
            parts.clock.advance(seconds)
            await says(parts, 1)
            await link.processor.process_queue()
    assert [bool(told) for told in central.accounts] == [True, False, True]


async def test_what_goes_out_again_counts_as_queued_again(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    await says(parts, 2)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
    await parts.mirror.begin_generation(2)
    (account,) = parts.database.store.read_now(accounts.read)
    assert (account.made, account.settled, account.queued, accounts.gap(account)) == (2, 0, 2, 0)


async def test_more_comes_back_than_is_known_to_have_been_settled(parts: Parts, central: FakeCentral) -> None:
    """Where the accounts of a damaged file could be read, and were older than what it had sent. A file in which it was
    fewer than none is read, too."""
    await both_know(parts, central)
    await says(parts, 2)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        for known in ("UPDATE epoch_account SET settled = 0", "UPDATE epoch_account SET settled = -2"):
            await parts.database.store.write(partial(Transaction.execute, sql=known))
            central.restore(central.nodes)
            parts.clock.advance(60)
            await says(parts, 1)
            result = await link.processor.process_queue()
            assert (result.errors, result.remaining) == ([], 0)
    (account,) = parts.database.store.read_now(accounts.read)
    assert (account.made, account.settled, accounts.gap(account)) == (4, 4, 0)


async def test_accounts_that_cannot_be_read_keep_nothing_from_being_pushed(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 1)
    await parts.database.store.write(lambda tx: tx.execute("UPDATE epoch_account SET made = -1"))
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
    assert (central.effects, central.accounts) == (ids, [[]])


# After an outage


async def test_the_first_push_after_an_outage_waits_for_its_part_of_the_spread(
    parts: Parts, central: FakeCentral
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    central.spread = 10_000
    await both_know(parts, central)
    async with linked(parts, central, chance=lambda: 0.25, sleep=sleep) as link:
        for outage in range(2):
            await link.connectivity.check_connectivity()
            for _ in range(2):
                await says(parts, 1)
                await link.processor.process_queue()
            central.health = "refuses"
            for _ in range(3):
                await link.connectivity.check_connectivity()
            central.health = "well"
            assert [seconds for seconds in slept if seconds] == [2.5] * (outage + 1)


# Patience


async def test_nothing_is_pushed_while_offline(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    await says(parts, 1)
    async with linked(parts, central) as link:
        assert (await link.processor.process_queue()).remaining == 1
    assert central.batches == []


async def test_an_arrival_wakes_the_processor(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.start()
        await link.processor.start()
        for _ in range(3):
            (id,) = await says(parts, 1)
            await central.heard(lambda c, id=id: id in c.effects)  # type: ignore[misc]


async def test_a_central_that_is_well_but_takes_no_pushes_is_left_in_peace(parts: Parts, central: FakeCentral) -> None:
    """Each failed push has central's health looked at, and finds it well; that must not undo the backoff."""
    await both_know(parts, central)
    await says(parts, 1)
    central.push = "broken"
    async with linked(parts, central) as link:
        await link.connectivity.start()
        await link.processor.start()
        await central.heard(lambda c: len(c.batches) >= 2)
        for _ in range(200):
            await asyncio.sleep(0)
            await says(parts, 1)
        assert len(central.batches) == 2


async def test_the_end_of_an_outage_ends_the_backoff(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 1)
    central.push = "refuses"
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.start()
        await central.heard(lambda c: len(c.batches) == 1)
        central.all("refuses")
        for _ in range(3):
            await link.connectivity.check_connectivity()
        assert not link.connectivity.is_online
        central.all("well")
        await link.connectivity.check_connectivity()
        await central.heard(lambda c: c.effects == ids)


async def test_a_short_silence_is_over_when_central_answers_again(parts: Parts, central: FakeCentral) -> None:
    """Too short for an outage: the backoff of a minute is not waited for."""
    await both_know(parts, central)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.start()
        central.all("refuses")
        ids = await says(parts, 1)
        await central.heard(lambda c: len(c.batches) == 1)
        while link.connectivity.may_wait:
            await asyncio.sleep(0)
        assert link.connectivity.is_online
        central.all("well")
        await link.connectivity.check_connectivity()
        await central.heard(lambda c: c.effects == ids)


async def test_central_may_ask_for_patience_and_gets_it(parts: Parts, central: FakeCentral) -> None:
    """Retry-After is seven seconds; the backoff alone would be a minute or nothing."""
    await both_know(parts, central)
    await says(parts, 1)
    for chance, pushes in ((0.0, 1), (0.5, 1)):
        central.push, central.batches = "busy", []
        async with linked(parts, central, retry_delay=0.001, chance=lambda chance=chance: chance) as link:
            await link.connectivity.check_connectivity()
            await link.processor.start()
            await central.heard(lambda c: len(c.batches) >= 1)
            for _ in range(100):
                await asyncio.sleep(0.001)
            assert len(central.batches) == pushes


@pytest.mark.parametrize(("failure", "goes_on_at"), [("turn_away", 20), ("drop", 5)])
async def test_a_drain_that_central_turned_away_goes_on_as_large_as_it_was(
    parts: Parts, central: FakeCentral, failure: str, goes_on_at: int
) -> None:
    """A batch that never arrived may have been too large for the line; one that was turned away was not."""
    await both_know(parts, central)
    ids = await says(parts, 60)
    setattr(central, failure, 3)
    async with linked(parts, central, batch_size=5) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        sizes = [len(batch) for batch in central.batches]
        assert sizes[:4] == [5, 10, 20, goes_on_at]
        await says(parts, 7)
        await link.processor.process_queue()
        assert [len(batch) for batch in central.batches[len(sizes) :]] == [5, 2]
    assert central.effects[:60] == ids


async def test_whoever_waited_for_a_push_that_failed_is_patient_too(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    await says(parts, 1)
    central.slow_from, central.lose_answers = 1, 1
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        first = asyncio.create_task(link.processor.push_unless_resting())
        await central.heard(lambda c: len(c.batches) == 1)
        second = asyncio.create_task(link.processor.push_unless_resting())
        await asyncio.sleep(0)
        central.release()
        assert len((await first).errors) == 1
        assert (await second).remaining == 1
    assert len(central.batches) == 1


async def test_a_machines_doubt_makes_a_rest_that_central_asked_for_no_shorter(
    parts: Parts, central: FakeCentral
) -> None:
    """Its report was not confirmed in time, so central is looked at, and is well."""
    await both_know(parts, central)
    await says(parts, 1)
    central.push = "busy"
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.push_unless_resting()
        link.connectivity.doubt()
        assert await link.connectivity.check_connectivity()
        await link.processor.push_unless_resting()
    assert len(central.batches) == 1


async def test_whoever_insists_makes_no_rest_shorter(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    await says(parts, 1)
    central.push = "broken"
    async with linked(parts, central, retry_delay=0.05) as link:
        await link.connectivity.check_connectivity()
        await link.processor.start()
        await central.heard(lambda c: len(c.batches) == 1)
        central.push = "busy"  # for seven seconds
        await link.processor.process_queue()
        pushes = len(central.batches)
        await asyncio.sleep(0.15)
    assert len(central.batches) == pushes


async def test_a_postponed_item_goes_when_it_is_due_without_being_called(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 1)
    central.put_off = {"n1"}
    async with linked(parts, central, retry_delay=5.0) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        central.put_off = set()
        parts.clock.advance(60)
        await link.processor.start()
        await central.heard(lambda c: c.effects == ids)


async def test_stop_ends_a_push_under_way_and_loses_nothing(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 2)
    central.push = "hangs"
    async with linked(parts, central, patience=60) as link:
        await link.connectivity.check_connectivity()
        await link.processor.start()
        while not central.batches:
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await link.processor.stop()
            await link.processor.stop()
    assert [item.id for item in await parts.waiting()] == ids


# What is taken while a push is under way


async def test_what_one_push_brought_is_kept_while_the_next_is_under_way(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 12)
    async with linked(parts, central, batch_size=4, batch_max=4) as link:
        await link.connectivity.check_connectivity()
        central.slow_from = 2
        drain = asyncio.create_task(link.processor.process_queue())
        await central.heard(lambda c: len(c.batches) == 2)
        await asyncio.wait_for(parts.queue.settled(ids[3]), 5)
        assert [item.id for item in await parts.waiting()] == ids[4:]
        for id in (ids[4], ids[8]):  # one under way, one that follows it
            with pytest.raises(Clash, match="on its way"):
                await parts.queue.discard(id, "", "ada")
        central.release()
        assert (await drain).processed == 12
    assert central.effects == ids


async def test_what_could_not_be_taken_is_not_on_its_way(parts: Parts, central: FakeCentral) -> None:
    """The disk is full as items are taken: a person can give them up, and not only once the next drain has ended."""
    await both_know(parts, central)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await says(parts, 1)
        await link.processor.process_queue()  # its session is open: the first write of the next drain is the taking
        (id,) = await says(parts, 1)
        await parts.database.store.write(limit_pages)
        drain = asyncio.create_task(link.processor.process_queue())
        too_large = asyncio.create_task(parts.database.store.write(lambda tx: set_meta(tx, "x", "x" * 10**6)))
        assert (await drain).errors == ["There is no space left; nothing was stored."]
        with pytest.raises(StorageFull):
            await too_large
        assert len(central.batches) == 1
        await parts.queue.discard(id, "", "ada")


def limit_pages(tx: Transaction) -> None:
    pages = tx.execute("PRAGMA page_count").fetchone()[0]
    tx.execute(f"PRAGMA max_page_count = {pages + 20}")


async def test_nothing_overtakes_what_central_put_off(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    ids = await says(parts, 12)
    central.put_off = {"n1"}
    async with linked(parts, central, batch_size=5) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        assert central.batches == [ids[:5]]
        await parts.queue.requeue(ids[0])
        central.put_off = set()
        await link.processor.process_queue()
    assert central.effects == ids


async def test_what_was_taken_before_a_restore_is_taken_anew(parts: Parts, central: FakeCentral) -> None:
    """The feed tells of central's new life between the taking and the push: what was settled goes first again."""
    await both_know(parts, central)
    settled = await says(parts, 2)
    async with linked(parts, central, batch_size=2, batch_max=2) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        ids = settled + await says(parts, 4)
        central.slow_from = len(central.batches) + 1
        drain = asyncio.create_task(link.processor.process_queue())
        await central.heard(lambda c: len(c.batches) == 2)
        central.restore(dict(central.nodes))
        await parts.mirror.begin_generation(central.generation)
        central.effects.clear()
        central.release()
        await drain
        assert central.effects == ids


async def test_a_central_that_grows_slow_is_not_hurried(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    await says(parts, 30)
    async with linked(parts, central, batch_size=5) as link:
        await link.connectivity.check_connectivity()
        central.slow_from = 1
        drain = asyncio.create_task(link.processor.process_queue())
        await central.heard(lambda c: len(c.batches) == 1)
        parts.clock.advance(3.0)
        central.release()
        await drain
    assert [len(batch) for batch in central.batches] == [5, 5, 10, 10]


async def test_what_waited_for_its_turn_tells_its_age_as_it_goes(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    await says(parts, 8)
    async with linked(parts, central, batch_size=4, batch_max=4) as link:
        await link.connectivity.check_connectivity()
        central.slow_from = 1
        drain = asyncio.create_task(link.processor.process_queue())
        await central.heard(lambda c: len(c.batches) == 1)
        await parts.database.store.write(lambda tx: None)  # behind the taking of what follows
        parts.clock.advance(0.4)
        central.release()
        await drain
    first, second = central.ages
    assert first == [0] * 4
    assert second == pytest.approx([400] * 4, abs=2)
