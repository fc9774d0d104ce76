"""Where a site's change meets what central did meanwhile, and how it is settled (PROTOCOL 5)."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pureboot.core.reconcile import Resolution
from pureboot.wire.messages import ConflictDocument, PushAnswer
from tests.support.central import RunningCentral, SetClock, SpeakingAgent

MAC = "52:54:00:aa:bb:01"


@pytest.fixture(autouse=True)
def nothing_stumbled(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A push that is rolled back and settled item by item would look the same from outside."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"] == []


@pytest.fixture
async def obedient(central: RunningCentral) -> SpeakingAgent:
    """An agent of a site where central wins."""
    return await central.speaking_agent((await central.new_site("attic"))["id"])


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    """An agent of a site where a person settles conflicts."""
    return await central.speaking_agent((await central.new_site("cellar", conflict_resolution="manual"))["id"])


async def diverged(central: RunningCentral, agent: SpeakingAgent, state: str = "discovered") -> dict[str, Any]:
    """An approved node that central moved to `state`; the item with which the site, unaware, begins its install."""
    await agent.push(agent.registration("n1", MAC))
    rev = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"}))["state_rev"]
    await central.ask("PATCH", "/nodes/n1/state", json={"state": state, "force": True, "comment": "meanwhile"})
    return agent.step("n1", "pending", "installing", 1, base=rev)


async def conflicts(central: RunningCentral, agent: SpeakingAgent, status: str = "pending") -> list[dict[str, Any]]:
    path = f"/sites/{agent.site_id}/conflicts"
    rows: list[dict[str, Any]] = (await central.ask("GET", path, params={"status": status}))["items"]
    return rows


async def resolve(
    central: RunningCentral, agent: SpeakingAgent, id: str | None, how: str, status: int = 200
) -> dict[str, Any]:
    path = f"/sites/{agent.site_id}/conflicts/{id}/resolve"
    answer: dict[str, Any] = await central.ask("POST", path, status, json={"resolution": how, "comment": "I looked"})
    return answer


async def state_of(central: RunningCentral, node: str = "n1") -> tuple[str, int]:
    document = await central.ask("GET", f"/nodes/{node}")
    return document["state"], document["attempt"]


def outcomes(answer: PushAnswer) -> list[tuple[str, Resolution | None]]:
    return [(result.outcome.value, result.resolution) for result in answer.results]


async def test_where_central_wins_the_conflict_is_settled_at_once_and_kept(
    central: RunningCentral, obedient: SpeakingAgent
) -> None:
    item = await diverged(central, obedient)
    answer = await obedient.push(item)
    assert outcomes(answer) == [("conflict", Resolution.KEEP_CENTRAL)]
    assert answer.nodes[0].state == "discovered"
    assert await conflicts(central, obedient) == []
    [row] = await conflicts(central, obedient, "resolved")
    assert row["local_chain"] == [item["id"]]
    assert (row["base_state"], row["local_state"], row["central_state"]) == ("pending", "installing", "discovered")
    assert (row["resolution"], row["resolved_by"]) == ("keep_central", "strategy central_wins")
    assert ConflictDocument.model_validate(row) == answer.conflicts[0]


async def test_what_follows_in_the_chain_shares_the_outcome(central: RunningCentral, obedient: SpeakingAgent) -> None:
    item = await diverged(central, obedient)
    told = obedient.event("n1", "install_progress", after=item["id"])
    done = obedient.step("n1", "installing", "installed", 1, after=told["id"])
    answer = await obedient.push(item, told, done)
    keep = Resolution.KEEP_CENTRAL
    assert outcomes(answer) == [("conflict", keep), ("applied", None), ("conflict", keep)]
    [row] = await conflicts(central, obedient, "all")
    assert row["local_chain"] == [item["id"], done["id"]]
    assert await state_of(central) == ("discovered", 0)


async def test_a_chain_of_several_pushes_is_one_conflict(central: RunningCentral, agent: SpeakingAgent) -> None:
    item = await diverged(central, agent)
    first = await agent.push(item)
    conflict_id = first.results[0].conflict_id
    await agent.push(agent.step("n1", "installing", "installed", 1, after=item["id"]))
    await agent.push(agent.step("n1", "installed", "active", 1, conflict_id=conflict_id))
    [row] = await conflicts(central, agent)
    assert (row["id"], len(row["local_chain"]), row["local_state"]) == (conflict_id, 3, "active")


async def test_a_conflict_is_as_young_as_the_last_item_of_its_chain(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    item = await diverged(central, agent) | {"age_ms": 120_000}
    done = agent.step("n1", "installing", "installed", 1, after=item["id"], age_ms=60_000)
    for age, pushed in ((120, item), (60, done)):
        [conflict] = (await agent.push(pushed)).conflicts
        assert conflict.local_updated_at == clock.now() - timedelta(seconds=age)


async def test_one_node_has_one_open_conflict(central: RunningCentral, agent: SpeakingAgent) -> None:
    first = await agent.push(await diverged(central, agent))
    unlinked = await agent.push(agent.step("n1", "installing", "installed", 1))
    assert outcomes(unlinked) == [("conflict", None)]
    assert unlinked.results[0].conflict_id == first.results[0].conflict_id
    assert len(await conflicts(central, agent)) == 1


async def test_keep_local_replays_the_chain_in_the_persons_name(central: RunningCentral, agent: SpeakingAgent) -> None:
    item = await diverged(central, agent)
    done = agent.step("n1", "installing", "installed", 1, after=item["id"])
    answer = await agent.push(item, done)
    resolved = await resolve(central, agent, answer.results[0].conflict_id, "keep_local")
    assert (resolved["status"], resolved["resolution"], resolved["resolved_by"]) == ("resolved", "keep_local", "admin")
    assert await state_of(central) == ("installed", 1)
    rows = (await central.ask("GET", "/nodes/n1/history"))["items"][-2:]
    assert [(row["from_state"], row["to_state"], row["forced"]) for row in rows] == [
        ("discovered", "installing", True),
        ("installing", "installed", False),
    ]
    assert [(row["item_id"], row["actor"], row["comment"]) for row in rows] == [
        (item["id"], "admin", "I looked"),
        (done["id"], "admin", "I looked"),
    ]


async def test_after_keep_local_the_chain_goes_on_as_if_nothing_had_been(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    item = await diverged(central, agent)
    answer = await agent.push(item)
    await resolve(central, agent, answer.results[0].conflict_id, "keep_local")
    done = agent.step("n1", "installing", "installed", 1, after=item["id"])
    up = agent.step("n1", "installed", "active", 1, after=done["id"])
    assert outcomes(await agent.push(done, up)) == [("applied", None), ("applied", None)]
    assert await state_of(central) == ("active", 1)


async def test_keep_central_changes_nothing_but_is_told(central: RunningCentral, agent: SpeakingAgent) -> None:
    answer = await agent.push(await diverged(central, agent))
    since, before = (await agent.changes()).next, await central.ask("GET", "/nodes/n1")
    await resolve(central, agent, answer.results[0].conflict_id, "keep_central")
    after = await central.ask("GET", "/nodes/n1")
    assert (after["state"], after["state_rev"]) == (before["state"], before["state_rev"])
    assert after["version"] == before["version"] + 1
    told = {item.type: item.doc for item in (await agent.changes(since)).items}
    assert told["node"] == after
    assert told["conflict"]["resolution"] == "keep_central"


async def test_what_comes_late_to_a_conflict_kept_for_central_is_kept_with_it(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    item = await diverged(central, agent)
    id = (await agent.push(item)).results[0].conflict_id
    await resolve(central, agent, id, "keep_central")
    late = agent.step("n1", "installing", "installed", 1, after=item["id"])
    assert outcomes(await agent.push(late)) == [("conflict", Resolution.KEEP_CENTRAL)]
    [row] = await conflicts(central, agent, "resolved")
    assert row["local_chain"] == [item["id"], late["id"]]


async def test_a_deleted_node_is_missing_and_cannot_be_kept_for_the_site(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    item = await diverged(central, agent)
    await central.ask("DELETE", "/nodes/n1", 204)
    answer = await agent.push(item)
    assert answer.conflicts[0].conflict_type == "missing_central"
    assert (answer.conflicts[0].node_mac, answer.conflicts[0].central_state) == (MAC, "absent")
    assert (answer.nodes[0].state, answer.nodes[0].doc) == ("absent", None)
    id = answer.conflicts[0].id
    assert (await resolve(central, agent, id, "keep_local", 409))["error"]["code"] == "node_deleted"
    await resolve(central, agent, id, "keep_central")


async def test_where_central_wins_a_deleted_node_stays_deleted(
    central: RunningCentral, obedient: SpeakingAgent
) -> None:
    item = await diverged(central, obedient)
    await central.ask("DELETE", "/nodes/n1", 204)
    assert outcomes(await obedient.push(item)) == [("conflict", Resolution.KEEP_CENTRAL)]


async def test_a_retired_node_cannot_be_kept_for_the_site(central: RunningCentral, agent: SpeakingAgent) -> None:
    answer = await agent.push(await diverged(central, agent, "retired"))
    id = answer.results[0].conflict_id
    assert (await resolve(central, agent, id, "keep_local", 409))["error"]["code"] == "node_retired"
    assert await state_of(central) == ("retired", 0)


async def test_a_claim_is_not_settled_by_keep_local(
    central: RunningCentral, agent: SpeakingAgent, obedient: SpeakingAgent
) -> None:
    await obedient.push(obedient.registration("n1", MAC))
    answer = await agent.push(agent.registration("n9", MAC))
    id = answer.results[0].conflict_id
    assert (await resolve(central, agent, id, "keep_local", 409))["error"]["code"] == "not_available"
    await resolve(central, agent, id, "keep_central")


async def test_a_conflict_is_resolved_once(central: RunningCentral, agent: SpeakingAgent) -> None:
    id = (await agent.push(await diverged(central, agent))).results[0].conflict_id
    await resolve(central, agent, id, "keep_local")
    error = (await resolve(central, agent, id, "keep_central", 409))["error"]
    assert (error["code"], "keep_local" in error["message"]) == ("already_resolved", True)


async def test_a_conflict_belongs_to_its_site(
    central: RunningCentral, agent: SpeakingAgent, obedient: SpeakingAgent
) -> None:
    id = (await agent.push(await diverged(central, agent))).results[0].conflict_id
    assert (await resolve(central, obedient, id, "keep_central", 404))["error"]["code"] == "unknown_conflict"
    assert (await resolve(central, agent, "nothing", "keep_central", 404))["error"]["code"] == "unknown_conflict"


async def test_facts_hold_whoever_wins(central: RunningCentral, obedient: SpeakingAgent) -> None:
    item = await diverged(central, obedient)
    item["body"]["facts"] = {"ip_address": {"from": None, "to": "10.0.0.9"}}
    await obedient.push(item)
    assert (await central.ask("GET", "/nodes/n1"))["facts"]["ip_address"] == "10.0.0.9"


async def test_the_list_has_pages(central: RunningCentral, agent: SpeakingAgent) -> None:
    for number in range(3):
        node, mac = f"n{number}", f"52:54:00:00:00:{number:02x}"
        await agent.push(agent.registration(node, mac))
        await central.ask("DELETE", f"/nodes/{node}", 204)
        await agent.push(agent.step(node, "discovered", "retired", body={"triggered_by": "node"}))
    path = f"/sites/{agent.site_id}/conflicts"
    first = await central.ask("GET", path, params={"limit": 2})
    rest = await central.ask("GET", path, params={"limit": 2, "cursor": first["next_cursor"]})
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
