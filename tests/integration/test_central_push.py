"""What becomes of what a site sends (PROTOCOL 2, 3, 5)."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from pureboot.central import compaction
from pureboot.central.content import Shelf
from pureboot.central.housekeeping import Housekeeping
from pureboot.central.unnamed import Unnamed
from pureboot.wire.messages import Outcome, PushAnswer
from tests.support.central import RunningCentral, SetClock, SpeakingAgent

MAC, OTHER_MAC, THIRD_MAC = "52:54:00:aa:bb:01", "52:54:00:aa:bb:02", "52:54:00:aa:bb:03"


@pytest.fixture(autouse=True)
def nothing_stumbled(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A push that is rolled back and settled item by item would look the same from outside."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"] == []


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    return await central.speaking_agent((await central.new_site("attic"))["id"])


@pytest.fixture
async def careful(central: RunningCentral) -> SpeakingAgent:
    """An agent of a site where a person settles conflicts."""
    return await central.speaking_agent((await central.new_site("cellar", conflict_resolution="manual"))["id"])


async def registered(agent: SpeakingAgent, node: str = "n1", mac: str = MAC) -> None:
    answer = await agent.push(agent.registration(node, mac))
    assert outcomes(answer) == ["applied"]


async def approved(central: RunningCentral, agent: SpeakingAgent, node: str = "n1", mac: str = MAC) -> int:
    """The revision of the state after the approval."""
    await registered(agent, node, mac)
    return int((await moved(central, node, "pending"))["state_rev"])


async def moved(central: RunningCentral, node: str, state: str, **body: Any) -> dict[str, Any]:
    document: dict[str, Any] = await central.ask("PATCH", f"/nodes/{node}/state", json={"state": state, **body})
    return document


def outcomes(answer: PushAnswer) -> list[str]:
    return [result.outcome.value for result in answer.results]


def reasons(answer: PushAnswer) -> list[str]:
    return [(result.reason or "").partition(":")[0] for result in answer.results]


# Registrations


async def test_a_new_machine_becomes_a_discovered_node_under_the_sites_own_id(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    item = agent.registration("n1", MAC, OTHER_MAC, facts={"serial_number": "S1"}, age_ms=5000)
    answer = await agent.push(item)
    assert outcomes(answer) == ["applied"]
    assert answer.results[0].canonical_id == "n1"
    node = await central.ask("GET", "/nodes/n1")
    assert (node["state"], node["version"], node["state_rev"]) == ("discovered", 1, 1)
    assert node["mac_addresses"] == [MAC, OTHER_MAC]
    assert node["facts"] == {"serial_number": "S1"}
    assert node["home_site_id"] == agent.site_id
    assert answer.nodes[0].doc is not None
    assert answer.nodes[0].doc.last_seen == clock.now() - timedelta(seconds=5)


async def test_a_machine_known_here_under_another_id_is_one_node_with_all_its_macs(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await registered(agent)
    answer = await agent.push(agent.registration("n9", MAC, OTHER_MAC, facts={"model": "M"}))
    assert outcomes(answer) == ["applied"]
    assert answer.results[0].canonical_id == "n1"
    assert [node.id for node in answer.nodes] == ["n1"]
    node = await central.ask("GET", "/nodes/n9")
    assert (node["id"], node["mac_addresses"], node["facts"]) == ("n1", [MAC, OTHER_MAC], {"model": "M"})


async def test_what_a_machine_says_of_itself_last_holds(central: RunningCentral, agent: SpeakingAgent) -> None:
    await agent.push(agent.registration("n1", MAC, facts={"ip_address": "10.0.0.7", "vendor": "QEMU"}))
    await agent.push(agent.registration("n1", MAC, facts={"ip_address": "10.0.0.9"}))
    assert (await central.ask("GET", "/nodes/n1"))["facts"] == {"ip_address": "10.0.0.9", "vendor": "QEMU"}


async def test_items_under_an_alias_reach_the_one_node(central: RunningCentral, agent: SpeakingAgent) -> None:
    await registered(agent)
    first = agent.registration("n9", MAC)
    answer = await agent.push(first, agent.event("n9", "boot_started", after=first["id"]))
    assert [result.canonical_id for result in answer.results] == ["n1", "n1"]
    assert [event["event"] for event in (await central.ask("GET", "/nodes/n9/events"))["items"]] == ["boot_started"]
    moved = await central.ask("POST", "/nodes/move", json={"ids": ["n9", "n1"], "state": "pending", "preview": False})
    assert (moved["changed"], moved["refused"]) == (1, [])


@pytest.mark.parametrize(("state", "outcome"), [("discovered", "applied"), ("active", "conflict")])
async def test_what_was_done_to_an_alias_counts_where_the_node_is_as_new_as_the_site_thought(
    central: RunningCentral, careful: SpeakingAgent, state: str, outcome: str
) -> None:
    await registered(careful)
    await moved(central, "n1", state, force=True, comment="in service")
    first = careful.registration("n9", MAC)
    await central.ask("PATCH", f"/sites/{careful.site_id}", json={"autonomy_level": "full"})
    approval = careful.step("n9", "discovered", "pending", after=first["id"], autonomy="full")
    assert outcomes(await careful.push(first, approval)) == ["applied", outcome]


async def test_a_machine_of_another_site_is_a_claim_that_a_person_settles(
    central: RunningCentral, agent: SpeakingAgent, careful: SpeakingAgent
) -> None:
    await registered(agent)
    claim = careful.registration("n9", MAC)
    answer = await careful.push(
        claim,
        careful.event("n9", "boot_started", after=claim["id"]),
        careful.step("n9", "pending", "installing", 1, after=claim["id"]),
    )
    assert outcomes(answer) == ["conflict", "applied", "conflict"]
    assert answer.results[0].conflict_id == answer.results[2].conflict_id
    assert answer.conflicts[0].conflict_type == "site_claim"
    assert answer.conflicts[0].status == "pending"
    assert answer.conflicts[0].local_chain == [claim["id"], answer.results[2].id]
    assert [(node.id, node.doc) for node in answer.nodes] == [("n1", None)]
    events = (await central.ask("GET", "/nodes/n1/events"))["items"]
    assert [event["site_id"] for event in events] == [careful.site_id]
    assert (await central.ask("GET", "/nodes/n1"))["state"] == "discovered"


async def test_a_claim_is_never_settled_by_the_sites_policy(
    central: RunningCentral, agent: SpeakingAgent, careful: SpeakingAgent
) -> None:
    await registered(careful)
    answer = await agent.push(agent.registration("n9", MAC))
    assert [conflict.status for conflict in answer.conflicts] == ["pending"]


async def test_one_machine_with_the_macs_of_two_nodes_is_a_collision(agent: SpeakingAgent) -> None:
    await registered(agent)
    await registered(agent, "n2", OTHER_MAC)
    collision = agent.registration("n9", THIRD_MAC, OTHER_MAC, MAC)
    answer = await agent.push(collision, agent.event("n9", "boot_started", after=collision["id"]))
    assert outcomes(answer) == ["conflict", "applied"]
    assert answer.conflicts[0].conflict_type == "mac_collision"
    assert answer.conflicts[0].status == "pending"
    assert answer.results[1].canonical_id == "n2"


async def test_a_machine_that_brings_the_mac_of_another_node_is_a_collision(agent: SpeakingAgent) -> None:
    await registered(agent)
    await registered(agent, "n2", OTHER_MAC)
    answer = await agent.push(agent.registration("n2", MAC))
    assert answer.conflicts[0].conflict_type == "mac_collision"


async def test_a_deleted_nodes_machine_registers_anew(central: RunningCentral, agent: SpeakingAgent) -> None:
    await registered(agent)
    await central.ask("DELETE", "/nodes/n1", 204)
    answer = await agent.push(agent.registration("n2", MAC))
    assert (outcomes(answer), answer.results[0].canonical_id) == (["applied"], "n2")


async def test_a_registration_under_a_deleted_nodes_id_is_a_conflict(
    central: RunningCentral, careful: SpeakingAgent
) -> None:
    await registered(careful)
    await central.ask("DELETE", "/nodes/n1", 204)
    answer = await careful.push(careful.registration("n1", MAC))
    assert answer.conflicts[0].conflict_type == "missing_central"
    assert answer.conflicts[0].central_state == "absent"


async def test_two_machines_in_one_push_with_one_mac_are_one_node(agent: SpeakingAgent) -> None:
    answer = await agent.push(agent.registration("n1", MAC), agent.registration("n2", MAC))
    assert [result.canonical_id for result in answer.results] == ["n1", "n1"]
    assert len(answer.nodes) == 1


# State updates


async def test_an_edge_on_the_known_revision_takes_effect_and_is_told(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    rev = await approved(central, agent)
    item = agent.step(
        "n1",
        "pending",
        "installing",
        1,
        base=rev,
        age_ms=60_000,
        body={"comment": "boot", "facts": {"ip_address": {"from": None, "to": "10.0.0.9"}}},
    )
    answer = await agent.push(item)
    assert outcomes(answer) == ["applied"]
    assert (answer.nodes[0].state, answer.nodes[0].state_rev) == ("installing", rev + 1)
    row = (await central.ask("GET", "/nodes/n1/history"))["items"][-1]
    assert (row["from_state"], row["to_state"], row["attempt"]) == ("pending", "installing", 1)
    assert (row["triggered_by"], row["item_id"], row["forced"]) == ("node", item["id"], False)
    assert (row["comment"], row["site_id"]) == ("boot", agent.site_id)
    assert row["occurred_at"] == (clock.now() - timedelta(minutes=1)).isoformat().replace("+00:00", "Z")
    assert (await central.ask("GET", "/nodes/n1"))["facts"]["ip_address"] == "10.0.0.9"


async def test_a_chain_offered_at_once_takes_effect_in_order(central: RunningCentral, agent: SpeakingAgent) -> None:
    rev = await approved(central, agent)
    begun = agent.step("n1", "pending", "installing", 1, base=rev)
    told = agent.event("n1", "install_progress", after=begun["id"])
    again = agent.step("n1", "installing", "installing", 2, after=told["id"])
    done = agent.step("n1", "installing", "installed", 2, after=again["id"])
    answer = await agent.push(begun, told, again, done)
    assert outcomes(answer) == ["applied"] * 4
    history = (await central.ask("GET", "/nodes/n1/history"))["items"][1:]
    assert [(row["to_state"], row["attempt"]) for row in history] == [
        ("installing", 1),
        ("installing", 2),
        ("installed", 2),
    ]


async def test_a_chain_goes_on_in_a_later_push(central: RunningCentral, agent: SpeakingAgent) -> None:
    rev = await approved(central, agent)
    begun = agent.step("n1", "pending", "installing", 1, base=rev)
    await agent.push(begun)
    answer = await agent.push(agent.step("n1", "installing", "installed", 1, after=begun["id"]))
    assert outcomes(answer) == ["applied"]


async def test_a_new_machines_whole_story_arrives_in_one_push(central: RunningCentral, agent: SpeakingAgent) -> None:
    await central.ask("PATCH", f"/sites/{agent.site_id}", json={"autonomy_level": "full"})
    first = agent.registration("n1", MAC, autonomy="full")
    yes = agent.step("n1", "discovered", "pending", after=first["id"], autonomy="full")
    go = agent.step("n1", "pending", "installing", 1, after=yes["id"], body={"triggered_by": "system"})
    answer = await agent.push(first, yes, go)
    assert outcomes(answer) == ["applied"] * 3
    actors = [(row["triggered_by"], row["actor"]) for row in (await central.ask("GET", "/nodes/n1/history"))["items"]]
    assert actors == [("admin", "attic"), ("system", "attic")]


async def test_where_central_is_already_nothing_changes(central: RunningCentral, agent: SpeakingAgent) -> None:
    rev = await approved(central, agent)
    before = await moved(central, "n1", "installing", force=True, comment="by hand")
    answer = await agent.push(agent.step("n1", "pending", "installing", 1, base=rev))
    assert outcomes(answer) == ["applied"]
    assert answer.nodes[0].state_rev == before["state_rev"]
    assert len((await central.ask("GET", "/nodes/n1/history"))["items"]) == 2


async def test_after_converging_the_chain_goes_on_from_centrals_revision(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    rev = await approved(central, agent)
    await moved(central, "n1", "installing", force=True, comment="by hand")
    same = agent.step("n1", "pending", "installing", 1, base=rev)
    answer = await agent.push(same, agent.step("n1", "installing", "installed", 1, after=same["id"]))
    assert (outcomes(answer), answer.nodes[0].state) == (["applied", "applied"], "installed")


async def test_an_edge_the_lifecycle_forbids_is_rejected_and_the_lane_goes_on(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    rev = await approved(central, agent)
    wrong = agent.step("n1", "pending", "active", base=rev, body={"triggered_by": "node"})
    answer = await agent.push(wrong, agent.step("n1", "pending", "installing", 1, after=wrong["id"]))
    assert outcomes(answer) == ["rejected", "applied"]
    assert reasons(answer)[0] == "illegal_edge"


async def test_what_a_site_may_not_do_is_rejected(central: RunningCentral, agent: SpeakingAgent) -> None:
    await registered(agent)
    answer = await agent.push(agent.step("n1", "discovered", "pending", base=1, autonomy="limited"))
    assert (outcomes(answer), reasons(answer)) == (["rejected"], ["forbidden"])
    retiring = agent.step("n1", "discovered", "retired", base=1, autonomy="full")
    assert reasons(await agent.push(retiring)) == ["forbidden"]


async def test_a_late_report_of_an_earlier_attempt_closes_no_later_one(
    central: RunningCentral, careful: SpeakingAgent
) -> None:
    rev = await approved(central, careful)
    begun = careful.step("n1", "pending", "installing", 1, base=rev)
    await careful.push(begun, careful.step("n1", "installing", "installing", 2, after=begun["id"]))
    late = careful.step("n1", "installing", "installed", 1, base=rev + 1)
    assert outcomes(await careful.push(late)) == ["conflict"]
    assert (await central.ask("GET", "/nodes/n1"))["attempt"] == 2


@pytest.mark.parametrize(("central_has", "outcome"), [("pending", "applied"), ("active", "conflict")])
async def test_a_base_of_another_generation_counts_where_central_has_the_node_as_the_site_saw_it(
    central: RunningCentral, careful: SpeakingAgent, central_has: str, outcome: str
) -> None:
    rev = await approved(central, careful)
    if central_has != "pending":
        await moved(central, "n1", central_has, force=True, comment="meanwhile")
    old = careful.step("n1", "pending", "installing", 1)
    old["base"] = {"generation": 0, "state_rev": rev}
    assert outcomes(await careful.push(old)) == [outcome]


# Events


@pytest.mark.parametrize("end", ["deleted", "retired"])
async def test_events_are_always_kept(central: RunningCentral, agent: SpeakingAgent, end: str) -> None:
    await registered(agent)
    if end == "deleted":
        await central.ask("DELETE", "/nodes/n1", 204)
    else:
        await moved(central, "n1", "retired")
    item = agent.event("n1", "temperature_high")
    assert outcomes(await agent.push(item)) == ["applied"]
    row = (await central.ask("GET", "/nodes/n1/events"))["items"][0]
    assert (row["event"], row["item_id"], row["site_id"]) == ("temperature_high", item["id"], agent.site_id)


async def test_a_boot_tells_when_the_node_was_seen_and_is_no_news(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    await registered(agent)
    clock.advance(3600)
    since = (await agent.changes()).next
    await agent.push(agent.event("n1", "boot_started", age_ms=10_000))
    node = await central.ask("GET", "/nodes/n1")
    assert node["last_seen"] == (clock.now() - timedelta(seconds=10)).isoformat().replace("+00:00", "Z")
    assert node["version"] == 1
    assert (await agent.changes(since)).items == []


async def test_what_arrives_late_makes_no_node_seen_earlier(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    await registered(agent)
    clock.advance(3600)
    await agent.push(agent.event("n1", "boot_started"))
    await agent.push(agent.event("n1", "heartbeat", age_ms=600_000))
    assert (await central.ask("GET", "/nodes/n1"))["last_seen"] == clock.now().isoformat().replace("+00:00", "Z")


# Again, and what cannot be


async def test_an_item_offered_again_has_no_second_effect_and_the_first_answer(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    rev = await approved(central, agent)
    item, told = agent.step("n1", "pending", "installing", 1, base=rev), agent.event("n1", "install_progress")
    first = await agent.push(item, told)
    again = await agent.push(item, told)
    assert outcomes(again) == ["duplicate", "duplicate"]
    assert [result.first for result in again.results] == [Outcome.APPLIED, Outcome.APPLIED]
    assert again.nodes == first.nodes
    assert len((await central.ask("GET", "/nodes/n1/history"))["items"]) == 2
    assert len((await central.ask("GET", "/nodes/n1/events"))["items"]) == 1


async def test_an_item_offered_again_after_years_has_no_second_effect(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    """An agent may have been off for so long. So central keeps what it was told, whatever its size."""
    await registered(agent)
    await agent.push(told := agent.event("n1", "install_progress"))
    clock.advance(10 * 365 * 86_400)
    await Housekeeping(central.db, clock, timedelta(days=30), Unnamed(Shelf(central.folder / "content"))).round()
    assert outcomes(await agent.push(told)) == ["duplicate"]
    assert len((await central.ask("GET", "/nodes/n1/events"))["items"]) == 1


async def test_a_repeat_may_name_the_canonical_lane_and_another_base(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await registered(agent)
    item = agent.registration("n9", MAC)
    await agent.push(item)
    again = await agent.push(item | {"lane": "n1", "base": {"generation": 1, "state_rev": 1}})
    assert outcomes(again) == ["duplicate"]


async def test_the_first_outcome_of_a_conflict_comes_with_its_document(
    central: RunningCentral, careful: SpeakingAgent
) -> None:
    rev = await approved(central, careful)
    await moved(central, "n1", "retired")
    item = careful.step("n1", "pending", "installing", 1, base=rev)
    first, again = await careful.push(item), await careful.push(item)
    assert (outcomes(again), again.results[0].first) == (["duplicate"], Outcome.CONFLICT)
    assert again.results[0].conflict_id == first.results[0].conflict_id
    assert again.conflicts == first.conflicts


async def test_an_id_used_for_something_else_is_rejected(central: RunningCentral, agent: SpeakingAgent) -> None:
    await registered(agent)
    item = agent.event("n1", "boot_started")
    await agent.push(item)
    answer = await agent.push(item | {"body": {"event": "first_boot"}})
    assert (outcomes(answer), reasons(answer)) == (["rejected"], ["id_reuse"])
    assert outcomes(await agent.push(item)) == ["duplicate"]


async def test_an_id_twice_in_one_push_counts_once(central: RunningCentral, agent: SpeakingAgent) -> None:
    await registered(agent)
    item = agent.event("n1", "boot_started")
    assert outcomes(await agent.push(item, item)) == ["applied", "duplicate"]


async def test_another_sites_item_id_tells_nothing(
    central: RunningCentral, agent: SpeakingAgent, careful: SpeakingAgent
) -> None:
    await registered(agent)
    item = agent.event("n1", "boot_started")
    await agent.push(item)
    answer = await careful.push(item)
    assert (reasons(answer), answer.nodes) == (["id_reuse"], [])


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"item_type": "prophecy", "body": {}}, "unknown_type"),
        ({"item_type": "event", "body": {}}, "invalid"),
        ({"item_type": "registration", "body": {"node_id": "n1", "mac_addresses": ["nonsense"]}}, "malformed_mac"),
        ({"item_type": "state_update", "body": {"from_state": "active", "to_state": "asleep"}}, "invalid"),
    ],
)
async def test_an_item_that_cannot_be_read_is_rejected_for_good(
    central: RunningCentral, agent: SpeakingAgent, item: dict[str, Any], reason: str
) -> None:
    await registered(agent)
    bad, good = agent.item("event", "n1", {}) | item, agent.event("n1", "boot_started")
    answer = await agent.push(bad, good)
    assert (outcomes(answer), reasons(answer)[0]) == (["rejected", "applied"], reason)
    assert (await agent.push(bad)).results[0].first is Outcome.REJECTED


async def test_an_unknown_node_is_rejected(agent: SpeakingAgent) -> None:
    answer = await agent.push(agent.event("nobody", "boot_started"), agent.step("nobody", "pending", "installing", 1))
    assert reasons(answer) == ["unknown_node", "unknown_node"]
    assert answer.nodes == []


async def test_another_sites_node_is_as_unknown_as_none(
    central: RunningCentral, agent: SpeakingAgent, careful: SpeakingAgent
) -> None:
    await registered(agent)
    answer = await careful.push(careful.event("n1", "boot_started"), careful.step("n1", "discovered", "retired"))
    assert reasons(answer) == ["unknown_node", "unknown_node"]
    assert answer.nodes == []
    assert (await central.ask("GET", "/nodes/n1/events"))["items"] == []


async def test_a_node_that_moved_away_keeps_events_and_disputes_edges(
    central: RunningCentral, agent: SpeakingAgent, careful: SpeakingAgent
) -> None:
    rev = await approved(central, careful)
    await central.ask("PATCH", "/nodes/n1", json={"home_site_id": "attic"})
    answer = await careful.push(
        careful.event("n1", "boot_started"), careful.step("n1", "pending", "installing", 1, base=rev)
    )
    assert outcomes(answer) == ["applied", "conflict"]
    assert answer.nodes[0].doc is None
    assert (await central.ask("GET", "/nodes/n1"))["state"] == "pending"


async def test_a_former_home_that_was_away_for_longer_than_deletions_are_told_is_still_known(
    central: RunningCentral, agent: SpeakingAgent, careful: SpeakingAgent, clock: SetClock
) -> None:
    """Not by what it said before: of a machine that only registered there is nothing but that it moved out."""
    await registered(careful)
    await central.ask("PATCH", "/nodes/n1", json={"home_site_id": "attic"})
    for days in (0, 31):
        clock.advance(days * 86400)
        for scope in await central.db.read(compaction.scopes):
            await central.db.write(
                partial(compaction.compact, scope=scope, before=clock.now() - timedelta(days=30), now=clock.now())
            )
    retired = careful.step("n1", "discovered", "retired", base=1, body={"triggered_by": "node"})
    answer = await careful.push(careful.event("n1", "boot_started"), retired)
    assert outcomes(answer) == ["applied", "conflict"]
    events = (await central.ask("GET", "/nodes/n1/events"))["items"]
    assert [(event["event"], event["site_id"]) for event in events] == [("boot_started", careful.site_id)]


async def test_a_site_cannot_register_itself_into_another_sites_node(
    central: RunningCentral, agent: SpeakingAgent, careful: SpeakingAgent
) -> None:
    await registered(agent)
    answer = await careful.push(careful.registration("n1", OTHER_MAC))
    assert answer.conflicts[0].conflict_type == "site_claim"
    node = await central.ask("GET", "/nodes/n1")
    assert (node["home_site_id"], node["mac_addresses"]) == (agent.site_id, [MAC])


# The whole request


async def test_another_generation_is_refused_whole(central: RunningCentral, agent: SpeakingAgent) -> None:
    answer = await agent.post(agent.registration("n1", MAC), generation=2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "generation_changed")
    assert (await central.ask("GET", "/nodes"))["items"] == []


async def test_another_agents_name_is_refused(agent: SpeakingAgent, careful: SpeakingAgent) -> None:
    answer = await agent.post(agent.registration("n1", MAC), agent_id=careful.id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_yours")


async def test_an_empty_push_is_answered(agent: SpeakingAgent) -> None:
    assert (await agent.push()).results == []


async def test_too_many_items_are_422(agent: SpeakingAgent) -> None:
    answer = await agent.post(*(agent.event("n1", "x") for _ in range(1001)))
    assert answer.status_code == 422


async def test_the_answer_keeps_the_order_of_the_request(central: RunningCentral, agent: SpeakingAgent) -> None:
    items = [agent.registration(f"n{i}", f"52:54:00:00:00:{i:02x}") for i in range(1, 20)]
    answer = await agent.push(*items)
    assert [result.id for result in answer.results] == [item["id"] for item in items]
