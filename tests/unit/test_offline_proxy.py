"""Central as machines' writes see it (user's contract, task 5): committed here first, online or not."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.proxy import CentralProxy
from pureboot.agent.queue import QueueItem, SyncQueue
from pureboot.core.changes import NodeEvent
from pureboot.core.errors import CentralUnavailable, IllegalEdge, Invalid, Malformed
from pureboot.core.lifecycle import NodeState
from pureboot.core.mac import MacAddress
from tests.fakes import Behaviour, FakeCentral
from tests.support.link import URL, Link, linked
from tests.support.parts import EPOCH, MAC, Parts, opened

S = NodeState


@pytest.fixture
def central() -> FakeCentral:
    return FakeCentral()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with opened(tmp_path / "agent.db") as parts:
        yield parts


async def both_know(parts: Parts, central: FakeCentral, state: NodeState = S.INSTALLED) -> None:
    document = central.add("n1", MAC, state)
    await parts.knows("n1", MAC, **document.model_dump(include={"state", "attempt", "version", "state_rev"}))


async def online(link: Link) -> None:
    await link.connectivity.check_connectivity()
    await link.processor.start()


# The user's contract


async def test_queue_registration_when_offline(tmp_path: Path, central: FakeCentral) -> None:
    """Built as the contract builds it: a monitor, a queue, and nothing else."""
    monitor = ConnectivityMonitor(URL, transport=central)
    queue = SyncQueue(tmp_path / "queue.db")
    await queue.initialize()
    proxy = CentralProxy(URL, monitor, queue, transport=central)
    answer = await proxy.register_node({"mac_address": MAC, "vendor": "QEMU", "unknown": "field"})
    assert (answer["status"], answer["offline"]) == ("queued", True)
    (item,) = await queue.peek()
    assert (item.id, item.item_type) == (answer["queue_id"], "registration")
    assert item.payload == {
        "node_id": answer["id"],
        "mac_addresses": [MAC],
        "hostname": "",
        "facts": {"vendor": "QEMU"},
    }
    assert central.batches == []
    await monitor.stop()
    queue.database.close()


async def test_queue_state_update_when_offline(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    async with linked(parts, central) as link:
        answer = await link.proxy.update_node_state("n1", "active")
    assert (answer["status"], answer["offline"], answer["state"]) == ("queued", True, "active")
    (item,) = await parts.waiting()
    assert (item.id, item.item_type, item.lane) == (answer["queue_id"], "state_update", "n1")
    assert (item.payload["from_state"], item.payload["to_state"]) == ("installed", "active")
    assert central.batches == []


async def test_normal_operation_when_online(parts: Parts, central: FakeCentral) -> None:
    """The answer is central's word; the queue was not bypassed."""
    async with linked(parts, central) as link:
        await online(link)
        registered = await link.proxy.register_node({"mac": MAC})
        assert (registered["status"], registered["offline"]) == ("applied", False)
        central.move(registered["id"], S.INSTALLED)
        document = central.nodes[registered["id"]]
        await parts.knows(document.id, MAC, **document.model_dump(include={"state", "version", "state_rev"}))
        moved = await link.proxy.update_node_state(registered["id"], "active")
        assert (moved["status"], moved["state"]) == ("applied", "active")
    assert central.effects == [registered["queue_id"], moved["queue_id"]]
    assert central.nodes[registered["id"]].state is S.ACTIVE
    assert parts.queue.pending_count == 0


async def test_return_queued_status(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    async with linked(parts, central) as link:
        for answer in (
            await link.proxy.register_node({"mac_address": "52:54:00:00:00:09"}),
            await link.proxy.update_node_state("n1", "active"),
            await link.proxy.update_node_state("nobody here knows", "active"),
        ):
            assert answer["status"] == "queued"
            assert answer["offline"] is True
            assert answer["queue_id"] in {item.id for item in await parts.waiting()}


# What else a write can come to


async def test_without_a_monitor_nothing_waits(tmp_path: Path) -> None:
    queue = SyncQueue(tmp_path / "queue.db")
    await queue.initialize()
    answer = await CentralProxy(URL, None, queue, write_confirm_budget=60).register_node({"mac": MAC})
    assert (answer["status"], answer["offline"]) == ("queued", True)
    queue.database.close()


async def test_without_a_queue_nothing_is_promised() -> None:
    with pytest.raises(CentralUnavailable):
        await CentralProxy(URL).register_node({"mac": MAC})


@pytest.mark.parametrize("behaviour", ["hangs", "refuses", "broken", "garbage", "busy", "unauthorised"])
async def test_a_write_is_answered_in_time_and_safe_whatever_central_does(
    parts: Parts, central: FakeCentral, behaviour: Behaviour
) -> None:
    async with linked(parts, central, budget=0.05) as link:
        await online(link)
        central.push = behaviour
        async with asyncio.timeout(5):
            answer = await link.proxy.register_node({"mac": MAC})
        assert (answer["status"], answer["offline"]) == ("queued", False)
        assert [item.id for item in await parts.waiting()] == [answer["queue_id"]]


async def test_only_the_first_write_waits_for_a_central_that_hangs(parts: Parts, central: FakeCentral) -> None:
    async with linked(parts, central, budget=0.05, patience=30) as link:
        await online(link)
        central.all("hangs")
        await link.proxy.register_node({"mac": MAC})
        assert not link.connectivity.may_wait
        link_budget = asyncio.get_running_loop().time()
        for n in range(20):
            await link.proxy.register_node({"mac": f"52:54:00:00:00:{n:02x}"} if n else {"mac": MAC})
        assert asyncio.get_running_loop().time() - link_budget < 20 * 0.05


@pytest.mark.parametrize("behaviour", ["busy", "unauthorised", "fenced"])
async def test_nobody_waits_for_a_central_that_is_well_and_takes_no_pushes(
    parts: Parts, central: FakeCentral, behaviour: Any
) -> None:
    await both_know(parts, central)
    async with linked(parts, central, budget=60) as link:
        await link.connectivity.check_connectivity()
        central.fenced = "another" if behaviour == "fenced" else ""
        central.push = "well" if behaviour == "fenced" else behaviour
        await parts.journal.record("n1", NodeEvent("n1", "e"))
        await link.processor.process_queue()
        await link.connectivity.check_connectivity()
        async with asyncio.timeout(5):
            answer = await link.proxy.update_node_state("n1", "active")
        assert (answer["status"], answer["offline"]) == ("queued", False)
        central.fenced, central.push = "", "well"
        parts.clock.advance(90)
        await link.processor.process_queue()
        assert link.connectivity.may_wait
    assert parts.queue.pending_count == 0


async def test_a_write_that_says_nothing_new_is_answered_at_once(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    async with linked(parts, central) as link:
        again = await link.proxy.update_node_state("n1", "installed")
        known = await link.proxy.register_node({"mac": MAC})
    assert (again["status"], again["edge"], again["queue_id"]) == ("already", "already", None)
    assert (known["status"], known["queue_id"]) == ("applied", None)


async def test_a_registration_that_waits_is_no_more_at_central_for_being_repeated(
    parts: Parts, central: FakeCentral
) -> None:
    await both_know(parts, central)
    async with linked(parts, central) as link:
        first, again = [await link.proxy.register_node({"mac": MAC, "vendor": "QEMU"}) for _ in range(2)]
        assert (again["status"], again["queue_id"]) == ("queued", first["queue_id"])
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        told = await link.proxy.register_node({"mac": MAC, "vendor": "QEMU"})
    assert (told["status"], told["queue_id"]) == ("applied", None)


async def test_a_conflict_is_told_to_whoever_waited(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    central.move("n1", S.REPROVISION)
    async with linked(parts, central) as link:
        await online(link)
        answer = await link.proxy.update_node_state("n1", "active")
    assert (answer["status"], answer["conflict_id"], answer["reason"]) == ("conflict", "conflict-1", "moved")


async def test_a_refusal_is_told_to_whoever_waited(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    central.refused = {"n1"}
    async with linked(parts, central) as link:
        await online(link)
        answer = await link.proxy.update_node_state("n1", "active")
    assert (answer["status"], answer["reason"]) == ("rejected", "refused: by this test.")


@pytest.mark.parametrize(
    ("registration", "error"),
    [({"mac_address": "nonsense"}, Malformed), ({}, Invalid), ({"mac": 7}, Invalid), ({"mac": "0" * 12}, Malformed)],
)
async def test_a_registration_nobody_can_read_stores_nothing(
    parts: Parts, central: FakeCentral, registration: dict[str, Any], error: type[Exception]
) -> None:
    async with linked(parts, central) as link:
        with pytest.raises(error):
            await link.proxy.register_node(registration)
    assert (parts.cache.count(), await parts.waiting()) == (0, [])


async def test_a_state_nobody_knows_and_an_edge_there_is_not_store_nothing(parts: Parts, central: FakeCentral) -> None:
    await both_know(parts, central)
    async with linked(parts, central) as link:
        with pytest.raises(Invalid):
            await link.proxy.update_node_state("n1", "sleeping")
        with pytest.raises(IllegalEdge):
            await link.proxy.update_node_state("n1", "retired")
    assert await parts.waiting() == []


async def test_what_was_queued_for_a_node_nobody_here_knows_harms_nothing_later(
    parts: Parts, central: FakeCentral
) -> None:
    async with linked(parts, central) as link:
        await link.proxy.update_node_state("n1", "active")
        await both_know(parts, central)
        assert parts.node().state is S.INSTALLED
        await link.connectivity.check_connectivity()
        result = await link.processor.process_queue()
        assert (result.failed, result.remaining) == (1, 0)  # central judges, and shows why
        assert (await link.proxy.update_node_state("n1", "active"))["edge"] == "applied"


async def test_what_is_on_disk_is_there_for_the_next_life(parts: Parts, central: FakeCentral, tmp_path: Path) -> None:
    async with linked(parts, central) as link:
        answer = await link.proxy.register_node({"mac": MAC})
    parts.database.close()
    with opened(tmp_path / "agent.db") as again:
        node = again.cache.by_mac(MacAddress.parse(MAC))
        assert node is not None
        async with linked(again, central) as link:
            await link.connectivity.check_connectivity()
            await link.processor.process_queue()
    assert central.effects == [answer["queue_id"]]


async def test_a_report_behind_one_that_is_stuck_does_not_wait_and_puts_nobody_in_doubt(
    parts: Parts, central: FakeCentral
) -> None:
    await both_know(parts, central)
    async with linked(parts, central, budget=5) as link:
        await online(link)
        stuck = await parts.queue.enqueue(
            QueueItem(id="stuck", item_type="event", payload={"event": "e"}, created_at=EPOCH, lane="n1")
        )
        await parts.queue.mark_failed(stuck, "it never got through")
        began = asyncio.get_running_loop().time()
        answer = await link.proxy.update_node_state("n1", "active")
        assert asyncio.get_running_loop().time() - began < 1
        assert answer["status"] == "queued"
        assert link.connectivity.may_wait
