"""The one write path: a report is on disk, with the node's new state, before anyone is answered."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pureboot.agent.bounds import Bounds
from pureboot.agent.journal import Accepted, EdgeOutcome, Moved
from pureboot.agent.queue import QueueItem
from pureboot.core.changes import NodeEvent
from pureboot.core.errors import Clash, Forbidden, IllegalEdge, NotFound, StorageFull, TooManyRequests
from pureboot.core.lifecycle import Autonomy, By, Edge, NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.storage.sqlite import Transaction
from tests.support.parts import MAC, OTHER_MAC, Parts, conflict_document, opened

HERE = MacAddress.parse(MAC)
S = NodeState
PENDING, FIRST, SECOND = Stage(S.PENDING), Stage(S.INSTALLING, 1), Stage(S.INSTALLING, 2)
BEGIN = (Edge(PENDING, FIRST, By.SYSTEM),)
AGAIN = (Edge(FIRST, SECOND, By.SYSTEM),)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with opened(tmp_path / "agent.db") as parts:
        yield parts


def event(name: str, node_id: str = "n1", **fields: Any) -> NodeEvent:
    return NodeEvent(node_id, name, **fields)


async def moved(parts: Parts, state: NodeState, **fields: Any) -> Accepted:
    return await parts.journal.move("n1", state, **({"report_id": None, "boot_token": None} | fields))


async def installing(parts: Parts) -> str:
    """A machine that was given its script; its boot token."""
    await parts.knows(state=S.PENDING)
    return (await parts.journal.begin("n1", BEGIN)).node.boot_token


async def kinds(parts: Parts) -> list[str]:
    return [item.item_type for item in await parts.waiting()]


# Registration


async def test_a_new_machine_is_a_node_and_an_item(parts: Parts) -> None:
    accepted = await parts.journal.register(HERE, hostname="web1", facts={"vendor": "QEMU"})
    node = parts.cache.by_mac(HERE)
    assert node is not None
    assert (node.state, node.hostname, node.base_version) == (S.DISCOVERED, "web1", None)
    (item,) = await parts.waiting()
    assert item.id == accepted.queue_id
    assert item.lane == node.node_id
    assert (item.after, item.base_state_rev) == (None, None)
    assert item.payload == {
        "node_id": node.node_id,
        "mac_addresses": [MAC],
        "hostname": "web1",
        "facts": {"vendor": "QEMU"},
    }


async def test_a_machine_that_says_nothing_new_makes_no_item(parts: Parts) -> None:
    first = await parts.journal.register(HERE, facts={"vendor": "QEMU", "model": "pc"})
    again = await parts.journal.register(HERE, facts={"vendor": "QEMU"})
    assert again.node.node_id == first.node.node_id
    assert again.queue_id == first.queue_id  # central has not confirmed it yet: that is what is waited for
    assert await kinds(parts) == ["registration"]


async def test_a_machine_that_says_something_new_makes_one(parts: Parts) -> None:
    await parts.journal.register(HERE, facts={"vendor": "QEMU"})
    await parts.journal.register(HERE, facts={"ip_address": "10.0.0.9"})
    first, second = await parts.waiting()
    assert second.payload["facts"] == {"vendor": "QEMU", "ip_address": "10.0.0.9"}
    assert second.after == first.id


async def test_a_node_central_knows_makes_none_either(parts: Parts) -> None:
    await parts.knows(facts={"vendor": "QEMU"})
    accepted = await parts.journal.register(HERE, facts={"vendor": "QEMU"})
    assert (accepted.queue_id, await kinds(parts)) == (None, [])


async def test_what_a_known_machine_says_again_while_it_waits_is_the_same_item(parts: Parts) -> None:
    """Central has the node, and not yet what is new of it."""
    await parts.knows()
    first = await parts.journal.register(HERE, facts={"vendor": "QEMU"})
    await parts.journal.record("n1", event("e"))
    again = await parts.journal.register(HERE, facts={"vendor": "QEMU"})
    assert (again.queue_id, await kinds(parts)) == (first.queue_id, ["registration", "event"])
    assert first.queue_id is not None
    await parts.queue.dequeue(first.queue_id)
    assert (await parts.journal.register(HERE, facts={"vendor": "QEMU"})).queue_id is None


async def test_a_hostname_is_taken_where_central_has_given_none(parts: Parts) -> None:
    await parts.knows()
    await parts.journal.register(HERE, hostname="web1", facts={})
    await parts.journal.register(HERE, hostname="web1", facts={})
    (item,) = await parts.waiting()
    assert item.payload["hostname"] == "web1"
    assert parts.node().hostname == "web1"


async def test_a_machine_whose_name_central_chose_does_not_register_at_every_boot(parts: Parts) -> None:
    await parts.knows(hostname="db1")
    for _ in range(3):
        await parts.journal.register(HERE, hostname="localhost", facts={})
    assert await kinds(parts) == []
    assert parts.node().hostname == "db1"


async def test_a_registration_repeated_under_its_report_id_is_the_same_item(parts: Parts) -> None:
    first = await parts.journal.register(HERE, facts={"vendor": "A"}, report_id="r1")
    again = await parts.journal.register(HERE, facts={"vendor": "B"}, report_id="r1")
    assert again.queue_id == first.queue_id
    assert await kinds(parts) == ["registration"]


async def test_a_flood_of_new_machines_is_capped_by_the_minute(tmp_path: Path) -> None:
    with opened(tmp_path / "agent.db", registrations_per_minute=3) as parts:
        macs = [MacAddress.parse(f"52:54:00:00:00:0{n}") for n in range(1, 6)]
        for mac in macs[:3]:
            await parts.journal.register(mac, facts={})
        with pytest.raises(TooManyRequests) as refused:
            await parts.journal.register(macs[3], facts={})
        assert refused.value.retry_after == 60
        assert parts.cache.by_mac(macs[3]) is None
        await parts.journal.register(macs[0], facts={"vendor": "known machines are not counted"})
        parts.clock.advance(61)
        await parts.journal.register(macs[3], facts={})
        assert parts.cache.count() == 4


async def test_of_a_flood_that_comes_at_once_no_more_are_taken(tmp_path: Path) -> None:
    with opened(tmp_path / "agent.db", registrations_per_minute=3) as parts:
        macs = [MacAddress.parse(f"52:54:00:00:00:{n:02x}") for n in range(20)]
        made = await asyncio.gather(*(parts.journal.register(mac, facts={}) for mac in macs), return_exceptions=True)
        assert sum(isinstance(one, TooManyRequests) for one in made) == 17
        assert parts.cache.count() == 3


async def test_a_registration_that_is_made_again_with_its_group_counts_once(tmp_path: Path) -> None:
    """Another write of the group had changed something when it failed, so all of them were undone and made again."""
    with opened(tmp_path / "agent.db", registrations_per_minute=2) as parts:
        first, second = (MacAddress.parse(f"52:54:00:00:00:0{n}") for n in (1, 2))
        _, failed = await asyncio.gather(
            parts.journal.register(first, facts={}),
            parts.database.store.write(change_and_fail),
            return_exceptions=True,
        )
        assert isinstance(failed, LookupError)
        await parts.journal.register(second, facts={})
        assert parts.cache.count() == 2


def change_and_fail(tx: Transaction) -> None:
    tx.execute("INSERT INTO meta VALUES ('never', 'kept')")
    raise LookupError


async def test_a_registration_that_was_not_stored_is_not_counted(tmp_path: Path) -> None:
    with opened(tmp_path / "agent.db", registrations_per_minute=2) as parts:
        roomy, parts.queue.bounds = parts.queue.bounds, Bounds(max_items=0)
        for _ in range(3):
            with pytest.raises(StorageFull):
                await parts.journal.register(HERE, facts={})
        parts.queue.bounds = roomy
        await parts.journal.register(HERE, facts={})
        assert parts.cache.count() == 1


async def test_a_hundred_new_machines_at_once_are_a_hundred_nodes(parts: Parts) -> None:
    macs = [MacAddress.parse(f"52:54:00:00:01:{n:02x}") for n in range(100)]
    await asyncio.gather(*(parts.journal.register(mac, facts={}) for mac in macs for _ in range(2)))
    assert parts.cache.count() == parts.queue.pending_count == 100


# A machine moves its node


async def test_an_edge_is_the_state_and_an_item(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED, state_rev=7)
    accepted = await moved(parts, S.ACTIVE, comment="first boot\x00\nof it")
    assert (accepted.edge, accepted.node.state) == (EdgeOutcome.APPLIED, S.ACTIVE)
    assert parts.node().state is S.ACTIVE
    (item,) = await parts.waiting()
    assert item.id == accepted.queue_id
    assert (item.after, item.base_state_rev, item.base_generation) == (None, 7, 1)
    assert item.payload == {
        "from_state": "installed",
        "to_state": "active",
        "attempt": 0,
        "from_attempt": 0,
        "triggered_by": "node",
        "comment": "first boot  of it",
        "facts": {},
    }


async def test_a_change_of_a_node_that_central_had_before_it_was_registered_is_made_on_what_central_has(
    parts: Parts,
) -> None:
    """The registration waits still, and knew of no revision: what came after it would be a conflict with nothing."""
    await parts.journal.register(HERE, facts={})
    await parts.knows("n1", state=S.INSTALLED, state_rev=7)
    await moved(parts, S.ACTIVE)
    registered, edge = await parts.waiting()
    assert (registered.lane, registered.base_state_rev) == ("n1", None)
    assert (edge.after, edge.base_state_rev, edge.base_generation) == (None, 7, 1)


async def test_each_change_says_what_it_was_made_on(parts: Parts) -> None:
    token = await installing(parts)
    await parts.journal.record("n1", event("install_progress"), boot_token=token)
    await moved(parts, S.INSTALLED, boot_token=token)
    begun, progress, done = await parts.waiting()
    assert (begun.after, begun.base_state_rev) == (None, 1)
    assert (progress.after, progress.item_type) == (None, "event")
    assert (done.after, done.base_state_rev) == (begun.id, None)


async def test_an_edge_already_reached_makes_no_second_item(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    await moved(parts, S.ACTIVE)
    again = await moved(parts, S.ACTIVE)
    assert (again.edge, again.queue_id) == (EdgeOutcome.ALREADY, None)
    assert parts.queue.pending_count == 1


async def test_a_move_repeated_under_its_report_id_finds_its_item(parts: Parts) -> None:
    token = await installing(parts)
    first = await moved(parts, S.INSTALLED, report_id="r1", boot_token=token)
    again = await moved(parts, S.INSTALLED, report_id="r1", boot_token=token)
    assert (again.edge, again.queue_id) == (EdgeOutcome.ALREADY, first.queue_id)
    await parts.queue.dequeue(str(first.queue_id))
    settled = await moved(parts, S.INSTALLED, report_id="r1", boot_token=token)
    assert settled.queue_id == first.queue_id


async def test_an_edge_the_lifecycle_forbids_stores_nothing(parts: Parts) -> None:
    await parts.knows(state=S.ACTIVE)
    for state in (S.INSTALLED, S.RETIRED, S.PENDING, S.REPROVISION):
        with pytest.raises(IllegalEdge):
            await moved(parts, state)
    assert (parts.node().state, await kinds(parts)) == (S.ACTIVE, [])


async def test_a_node_nobody_knows_cannot_be_moved(parts: Parts) -> None:
    with pytest.raises(NotFound):
        await moved(parts, S.ACTIVE)
    with pytest.raises(NotFound):
        await parts.journal.record("n1", event("e"))
    assert await kinds(parts) == []


# Events and reports


async def test_an_event_is_kept_and_moves_nothing(parts: Parts) -> None:
    await parts.knows()
    accepted = await parts.journal.record("n1", event("fan_failed", message="fan 3", metadata={"rpm": 0}))
    (item,) = await parts.waiting()
    assert item.payload == {"event": "fan_failed", "message": "fan 3", "metadata": {"rpm": 0}, "attempt": 0}
    assert (accepted.edge, accepted.queue_id, accepted.event_queue_id) == (EdgeOutcome.NONE, item.id, item.id)
    assert parts.node().state is S.INSTALLED


async def test_the_edge_an_event_implies_is_made_with_it(parts: Parts) -> None:
    token = await installing(parts)
    accepted = await parts.journal.record("n1", event("install_complete"), boot_token=token)
    _, happened, done = await parts.waiting()
    assert (accepted.event_queue_id, accepted.queue_id) == (happened.id, done.id)
    assert (accepted.edge, parts.node().stage) == (EdgeOutcome.APPLIED, Stage(S.INSTALLED, 1))


async def test_an_event_whose_edge_is_refused_is_kept_all_the_same(parts: Parts) -> None:
    await parts.knows(state=S.RETIRED)
    accepted = await parts.journal.record("n1", event("install_complete"))
    assert (accepted.edge, await kinds(parts)) == (EdgeOutcome.REFUSED, ["event"])
    assert parts.node().state is S.RETIRED


async def test_an_event_repeated_under_its_report_id_is_the_same_items(parts: Parts) -> None:
    token = await installing(parts)
    first, again = [
        await parts.journal.record("n1", event("install_complete"), report_id="r1", boot_token=token) for _ in range(2)
    ]
    assert again.edge is EdgeOutcome.ALREADY
    assert (again.queue_id, again.event_queue_id) == (first.queue_id, first.event_queue_id)
    assert await kinds(parts) == ["state_update", "event", "state_update"]


async def test_one_report_id_serves_several_events(parts: Parts) -> None:
    token = await installing(parts)
    for name in ("install_started", "install_progress", "install_complete"):
        await parts.journal.record("n1", event(name), report_id="r1", boot_token=token)
    assert [i.payload.get("event") for i in await parts.waiting()] == [
        None,
        "install_started",
        "install_progress",
        "install_complete",
        None,
    ]


async def test_a_report_id_of_another_attempt_is_another_report(parts: Parts) -> None:
    token = await installing(parts)
    await parts.journal.record("n1", event("install_failed"), report_id="r1", boot_token=token)
    token = (await parts.journal.begin("n1", AGAIN)).node.boot_token
    again = await parts.journal.record("n1", event("install_failed"), report_id="r1", boot_token=token)
    assert again.edge is EdgeOutcome.NONE
    assert (await kinds(parts)).count("event") == 2


async def test_a_report_of_an_unknown_machine_registers_it(parts: Parts) -> None:
    accepted = await parts.journal.report(HERE, event("hello", node_id=""))
    assert await kinds(parts) == ["registration", "event"]
    assert {item.lane for item in await parts.waiting()} == {accepted.node.node_id}
    assert accepted.node.mac_address == MAC


async def test_only_the_third_failure_moves_the_node(parts: Parts) -> None:
    token = await installing(parts)
    for attempt in (1, 2, 3):
        accepted = await parts.journal.record("n1", event("install_failed"), boot_token=token)
        assert accepted.node.state is (S.INSTALL_FAILED if attempt == 3 else S.INSTALLING)
        if attempt < 3:
            origin, target = Stage(S.INSTALLING, attempt), Stage(S.INSTALLING, attempt + 1)
            token = (await parts.journal.begin("n1", (Edge(origin, target, By.SYSTEM),))).node.boot_token
    assert parts.node().stage == Stage(S.INSTALL_FAILED, 3)


async def test_observations_are_queued_for_the_nodes_that_are_still_here(parts: Parts) -> None:
    await parts.knows()
    await parts.journal.observe([event("boot_started", metadata={"boots": 3}), event("boot_started", node_id="gone")])
    (item,) = await parts.waiting()
    assert (item.lane, item.payload["metadata"]) == ("n1", {"boots": 3})


# Attempts and boot tokens


async def test_an_install_begins_with_its_edge_and_a_token(parts: Parts) -> None:
    await parts.knows(state=S.PENDING)
    accepted = await parts.journal.begin("n1", BEGIN)
    assert accepted.node.stage == FIRST
    assert len(accepted.node.boot_token) >= 32
    assert not accepted.node.begun
    assert parts.cache.by_token(accepted.node.boot_token) == accepted.node
    (item,) = await parts.waiting()
    assert (item.payload["from_state"], item.payload["to_state"], item.payload["triggered_by"]) == (
        "pending",
        "installing",
        "system",
    )


async def test_a_reprovision_is_two_edges_and_one_token(parts: Parts) -> None:
    await parts.knows(state=S.REPROVISION)
    accepted = await parts.journal.begin("n1", (Edge(Stage(S.REPROVISION), PENDING, By.SYSTEM), *BEGIN))
    first, second = await parts.waiting()
    assert (second.after, accepted.queue_id) == (first.id, second.id)
    assert parts.node().stage == FIRST


async def test_two_boots_at_once_begin_one_attempt(parts: Parts) -> None:
    await parts.knows(state=S.PENDING)
    results = await asyncio.gather(*(parts.journal.begin("n1", BEGIN) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, Accepted) for result in results) == 1
    assert sum(isinstance(result, Moved) for result in results) == 4
    assert await kinds(parts) == ["state_update"]


async def test_a_decision_made_on_what_is_gone_is_refused(parts: Parts) -> None:
    await parts.knows(state=S.PENDING)
    await parts.knows(state=S.RETIRED, version=2, state_rev=2)
    with pytest.raises(Moved):
        await parts.journal.begin("n1", BEGIN)
    assert (parts.node().state, await kinds(parts)) == (S.RETIRED, [])


async def test_two_machines_at_once_do_not_meet(parts: Parts) -> None:
    await parts.knows("n1", MAC, state=S.PENDING)
    await parts.knows("n2", OTHER_MAC, state=S.PENDING)
    one, two = await asyncio.gather(*(parts.journal.begin(node, BEGIN) for node in ("n1", "n2")))
    assert one.node.boot_token != two.node.boot_token
    assert [item.after for item in await parts.waiting()] == [None, None]


@pytest.mark.parametrize("shown", [None, "", "guessed"])
async def test_an_install_in_progress_believes_only_its_own_machine(parts: Parts, shown: str | None) -> None:
    await installing(parts)
    before = parts.node()
    with pytest.raises(Forbidden, match="boot token"):
        await moved(parts, S.INSTALLED, boot_token=shown)
    with pytest.raises(Forbidden, match="boot token"):
        await parts.journal.record("n1", event("install_failed"), boot_token=shown)
    with pytest.raises(Forbidden, match="boot token"):
        await parts.journal.report(HERE, event("hello"), boot_token=shown)
    assert (parts.node(), await kinds(parts)) == (before, ["state_update"])


async def test_the_token_of_an_earlier_attempt_opens_nothing(parts: Parts) -> None:
    old = await installing(parts)
    await parts.journal.begin("n1", AGAIN)
    with pytest.raises(Forbidden):
        await moved(parts, S.INSTALLED, boot_token=old)
    assert parts.cache.by_token(old) is None


async def test_where_no_token_was_issued_none_is_asked_for(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLING, attempt=1)
    await moved(parts, S.INSTALLED)
    await parts.journal.record("n1", event("first_boot"))
    assert parts.node().state is S.ACTIVE


async def test_a_token_is_issued_once_for_an_attempt_begun_elsewhere(parts: Parts) -> None:
    node = await parts.knows(state=S.INSTALLING, attempt=1)
    first = await parts.journal.issue_token(node)
    again = await parts.journal.issue_token(node)
    assert first.boot_token == again.boot_token != ""
    assert await kinds(parts) == []


async def test_no_token_for_a_node_that_moved_meanwhile(parts: Parts) -> None:
    node = await parts.knows(state=S.INSTALLING, attempt=1)
    await moved(parts, S.INSTALLED)
    with pytest.raises(Moved):
        await parts.journal.issue_token(node)
    assert (await parts.journal.issue_token(parts.node())).boot_token == ""


async def test_an_attempt_has_begun_once_its_files_were_served(parts: Parts) -> None:
    token = await installing(parts)
    await parts.journal.mark_begun("another")
    assert not parts.node().begun
    await parts.journal.mark_begun(token)
    assert (parts.node().begun, parts.node().boot_token) == (True, token)
    await parts.journal.begin("n1", AGAIN)
    assert not parts.node().begun
    await parts.journal.mark_begun(token)
    assert not parts.node().begun


async def test_what_the_installer_says_itself_counts_too(parts: Parts) -> None:
    token = await installing(parts)
    await parts.journal.record("n1", event("install_started"), boot_token=token)
    assert parts.node().begun


# readonly


async def test_a_readonly_site_moves_nothing_before_central_says_so(parts: Parts) -> None:
    await parts.has_autonomy(Autonomy.READONLY)
    await parts.knows(state=S.PENDING)
    first = await parts.journal.begin("n1", BEGIN)
    again = await parts.journal.begin("n1", BEGIN)
    assert again.queue_id == first.queue_id
    assert (parts.node().stage, parts.node().boot_token) == (PENDING, "")
    (item,) = await parts.waiting()
    assert item.autonomy is Autonomy.READONLY


async def test_a_readonly_site_keeps_reports_without_moving_the_node(parts: Parts) -> None:
    await parts.has_autonomy(Autonomy.READONLY)
    await parts.knows(state=S.INSTALLED)
    accepted = await parts.journal.record("n1", event("first_boot"))
    assert (parts.node().state, await kinds(parts)) == (S.INSTALLED, ["event", "state_update"])
    assert accepted.queue_id is not None


async def test_every_item_carries_the_level_it_was_accepted_at(parts: Parts) -> None:
    await parts.knows()
    for level in Autonomy:
        await parts.has_autonomy(level)
        await parts.journal.record("n1", event("e"))
    assert [item.autonomy for item in await parts.waiting()] == list(Autonomy)


# All or nothing


class Broken(Exception):
    pass


async def test_state_and_item_are_stored_together_or_not_at_all(parts: Parts, tmp_path: Path) -> None:
    """The disk refuses the item after the row was written, and the row after the item."""
    await parts.knows(state=S.INSTALLED)
    before = parts.node()
    for table, when in [("sync_queue", "INSERT"), ("node", "UPDATE")]:
        await parts.database.store.write(refuse(table, when))
        with pytest.raises(sqlite3.IntegrityError, match="refused"):
            await moved(parts, S.ACTIVE)
        with pytest.raises(sqlite3.IntegrityError, match="refused"):
            await parts.journal.record("n1", event("first_boot"))
        await parts.database.store.write(lambda tx: tx.execute("DROP TRIGGER refuse"))
    assert parts.node() == before
    assert parts.queue.pending_count == 0
    parts.database.close()
    with opened(tmp_path / "agent.db") as again:
        assert (again.node(), await again.waiting()) == (before, [])


async def test_a_registration_that_fails_leaves_no_node_behind(parts: Parts) -> None:
    await parts.database.store.write(refuse("sync_queue", "INSERT"))
    with pytest.raises(sqlite3.IntegrityError, match="refused"):
        await parts.journal.register(HERE, facts={})
    assert parts.cache.by_mac(HERE) is None
    assert parts.rows("SELECT * FROM node") == parts.rows("SELECT * FROM node_mac") == []


async def test_a_write_that_fails_after_its_first_statement_is_undone(parts: Parts) -> None:
    await parts.knows(state=S.INSTALLED)
    node = parts.node()

    def half(tx: Transaction) -> None:
        parts.cache.save(tx, node.at(Stage(S.ACTIVE), node.updated_at))
        parts.queue.append(tx, QueueItem(id="i", item_type="event", payload={}, created_at=node.updated_at, lane="n1"))
        raise Broken

    with pytest.raises(Broken):
        await parts.database.store.write(half)
    assert (parts.node(), await parts.waiting(), parts.queue.pending_count) == (node, [], 0)
    assert parts.rows("SELECT state FROM node") == [("installed",)]


def refuse(table: str, when: str) -> Any:
    trigger = f"CREATE TRIGGER refuse BEFORE {when} ON {table} BEGIN SELECT RAISE (ABORT, 'refused'); END"
    return lambda tx: tx.execute(trigger)


async def test_everything_is_there_after_a_restart(parts: Parts, tmp_path: Path) -> None:
    token = await installing(parts)
    await parts.journal.mark_begun(token)
    await parts.journal.register(MacAddress.parse(OTHER_MAC), facts={"vendor": "QEMU"})
    before = (parts.node(), [item.id for item in await parts.waiting()])
    parts.database.close()
    with opened(tmp_path / "agent.db") as again:
        assert (again.node(), [item.id for item in await again.waiting()]) == before
        assert again.cache.by_token(token) == again.node()
        assert again.cache.by_mac(MacAddress.parse(OTHER_MAC)) is not None


async def test_a_machine_whose_registration_was_given_up_registers_anew(parts: Parts) -> None:
    """Else central would never hear of it, unless its hardware changed."""
    first = await parts.journal.register(HERE, facts={"vendor": "QEMU"})
    assert (await parts.journal.register(HERE, facts={})).queue_id == first.queue_id
    await parts.queue.discard(str(first.queue_id), "", "ada")
    again = await parts.journal.register(HERE, facts={})
    assert again.queue_id not in (None, first.queue_id)
    (*_, item) = await parts.waiting()
    assert (item.item_type, item.lane, item.payload["facts"]) == (
        "registration",
        first.node.node_id,
        {"vendor": "QEMU"},
    )
    assert (await parts.journal.register(HERE, facts={})).queue_id == again.queue_id


# What administrators decide, decided at the site


@pytest.mark.parametrize("level", sorted(Autonomy))
@pytest.mark.parametrize(
    ("here", "state"),
    [(S.DISCOVERED, S.PENDING), (S.PENDING, S.DISCOVERED), (S.ACTIVE, S.REPROVISION), (S.INSTALL_FAILED, S.PENDING)],
)
async def test_only_a_full_site_does_what_administrators_do(
    parts: Parts, level: Autonomy, here: NodeState, state: NodeState
) -> None:
    await parts.knows(state=here)
    await parts.has_autonomy(level)
    if level is not Autonomy.FULL:
        with pytest.raises(Forbidden) as refused:
            await parts.journal.decree("n1", state, comment="", person="Ada")
        assert refused.value.code == "autonomy"
        assert (parts.node().state, await parts.waiting()) == (here, [])
        return
    accepted = await parts.journal.decree("n1", state, comment="because", person="Ada")
    (item,) = await parts.waiting()
    assert (accepted.node.state, item.autonomy, item.base_state_rev) == (state, "full", 1)
    assert (item.payload["triggered_by"], item.payload["comment"]) == ("admin", "Ada: because")


@pytest.mark.parametrize("state", [S.RETIRED, S.DEPROVISIONING])
async def test_no_site_takes_a_node_out_of_service(parts: Parts, state: NodeState) -> None:
    await parts.knows(state=S.ACTIVE)
    await parts.has_autonomy(Autonomy.FULL)
    with pytest.raises(Forbidden, match="at central only"):
        await parts.journal.decree("n1", state, comment="", person="Ada")


async def test_a_full_site_makes_no_edge_that_there_is_not(parts: Parts) -> None:
    await parts.knows(state=S.DISCOVERED)
    await parts.has_autonomy(Autonomy.FULL)
    with pytest.raises(IllegalEdge):
        await parts.journal.decree("n1", S.REPROVISION, comment="", person="Ada")
    again = await parts.journal.decree("n1", S.DISCOVERED, comment="", person="Ada")
    assert (again.edge, await parts.waiting()) == (EdgeOutcome.ALREADY, [])


async def test_a_disputed_node_is_not_moved_by_the_sites_people(parts: Parts) -> None:
    await parts.knows(state=S.DISCOVERED)
    await parts.has_autonomy(Autonomy.FULL)
    await parts.hears(conflict_document("c1", "n1", local_state="discovered"))
    with pytest.raises(Clash, match="disagree"):
        await parts.journal.decree("n1", S.PENDING, comment="", person="Ada")


async def test_an_approval_made_here_is_followed_by_the_machines_own_story(parts: Parts) -> None:
    await parts.has_autonomy(Autonomy.FULL)
    node = (await parts.journal.register(MacAddress.parse(MAC), facts={})).node
    await parts.journal.decree(node.node_id, S.PENDING, comment="", person="Ada")
    await parts.journal.begin(node.node_id, BEGIN)
    items = await parts.waiting()
    assert [item.after for item in items] == [None, items[0].id, items[1].id]
    assert parts.node(node.node_id).stage == Stage(S.INSTALLING, 1)
