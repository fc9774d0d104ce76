"""Every cell of the conflict matrix (PROTOCOL 5), through the real push: what changed at the site, what central did
since the base, and what each strategy makes of it."""

from typing import Any

import pytest

from pureboot.core.reconcile import Strategy
from pureboot.wire.messages import PushAnswer
from tests.support.central import RunningCentral, SetClock, SpeakingAgent

MAC, OTHER_MAC, THIRD_MAC = "52:54:00:aa:bb:01", "52:54:00:aa:bb:02", "52:54:00:aa:bb:03"

pytestmark = pytest.mark.parametrize("strategy", sorted(Strategy))


@pytest.fixture
async def agent(central: RunningCentral, strategy: str) -> SpeakingAgent:
    """Of a site of that strategy."""
    return await central.speaking_agent((await central.new_site("cellar", conflict_resolution=strategy))["id"])


@pytest.fixture
async def other(central: RunningCentral) -> SpeakingAgent:
    """Of another site."""
    return await central.speaking_agent((await central.new_site("attic"))["id"])


async def approved(central: RunningCentral, agent: SpeakingAgent, node: str = "n1", mac: str = MAC) -> int:
    """A machine of the site that is approved; the revision of its state."""
    await agent.push(agent.registration(node, mac))
    rev: int = (await central.ask("PATCH", f"/nodes/{node}/state", json={"state": "pending"}))["state_rev"]
    return rev


async def force(central: RunningCentral, state: str, node: str = "n1") -> None:
    body = {"state": state, "force": True, "comment": "meanwhile"}
    await central.ask("PATCH", f"/nodes/{node}/state", json=body)


async def stage_of(central: RunningCentral, node: str = "n1") -> tuple[str, int]:
    document = await central.ask("GET", f"/nodes/{node}")
    return document["state"], document["attempt"]


def outcomes(answer: PushAnswer) -> list[tuple[str, str | None]]:
    return [(result.outcome.value, result.resolution) for result in answer.results]


async def all_conflicts(central: RunningCentral) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await central.ask("GET", "/conflicts", params={"status": "all"}))["items"]
    return rows


async def the_conflict(central: RunningCentral) -> tuple[str, str | None]:
    """Its type and its resolution; it is the only one."""
    [row] = await all_conflicts(central)
    settled = row["status"] == "resolved"
    assert row["resolved_by"] == (f"strategy {row['strategy']}" if settled else None)
    return row["conflict_type"], row["resolution"]


# Nothing of it is a conflict


async def test_clean_here_and_changed_at_central_is_refreshed(central: RunningCentral, agent: SpeakingAgent) -> None:
    await approved(central, agent)
    await force(central, "active")
    answer = await agent.push(agent.event("n1", "boot_started"))
    assert outcomes(answer) == [("applied", None)]
    assert answer.nodes[0].doc is not None
    assert answer.nodes[0].doc.state == "active"
    assert await all_conflicts(central) == []


async def test_changed_here_and_the_same_at_central_is_applied(central: RunningCentral, agent: SpeakingAgent) -> None:
    rev = await approved(central, agent)
    answer = await agent.push(agent.step("n1", "pending", "installing", 1, base=rev))
    assert outcomes(answer) == [("applied", None)]
    assert await stage_of(central) == ("installing", 1)
    assert await all_conflicts(central) == []


async def test_changed_on_both_sides_to_the_same_end_is_converged(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    rev = await approved(central, agent)
    await force(central, "installing")
    answer = await agent.push(agent.step("n1", "pending", "installing", 1, base=rev))
    assert outcomes(answer) == [("applied", None)]
    assert await all_conflicts(central) == []


async def test_missing_local_is_fetched_again_and_replayed(central: RunningCentral, agent: SpeakingAgent) -> None:
    """The site lost its cache: it knows the machine under an id of its own, and what it did with it counts."""
    await approved(central, agent)
    await force(central, "installing")
    first = agent.registration("n9", MAC)
    done = agent.step("n9", "installing", "installed", 1, after=first["id"])
    answer = await agent.push(first)
    assert answer.results[0].canonical_id == "n1"
    assert [node.doc.state for node in answer.nodes if node.doc] == ["installing"]
    node = await central.ask("GET", "/nodes/n1")
    answer = await agent.push(done | {"after": None, "base": {"generation": 1, "state_rev": node["state_rev"]}})
    assert outcomes(answer) == [("applied", None)]
    assert await stage_of(central) == ("installed", 1)
    assert await all_conflicts(central) == []


async def test_created_here_with_a_mac_of_this_site_is_one_node(central: RunningCentral, agent: SpeakingAgent) -> None:
    await approved(central, agent)
    answer = await agent.push(agent.registration("n9", MAC, OTHER_MAC))
    assert (outcomes(answer), answer.results[0].canonical_id) == ([("applied", None)], "n1")
    assert (await central.ask("GET", "/nodes/n9"))["mac_addresses"] == [MAC, OTHER_MAC]
    assert await all_conflicts(central) == []


# state_mismatch: changed here, and to another state at central


@pytest.mark.parametrize("renamed", [False, True])
async def test_state_mismatch_where_the_site_was_certainly_later(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock, strategy: str, renamed: bool
) -> None:
    """Than central's move, whatever else was edited there since."""
    rev = await approved(central, agent)
    await force(central, "discovered")
    clock.advance(600)
    if renamed:
        await central.ask("PATCH", "/nodes/n1", json={"hostname": "rack7"})
    answer = await agent.push(agent.step("n1", "pending", "installing", 1, base=rev, age_ms=60_000, u_ms=1000))
    resolution = {
        "central_wins": "keep_central",
        "last_write": "keep_local",
        "site_wins": "keep_local",
        "manual": None,
    }[strategy]
    assert outcomes(answer) == [("conflict", resolution)]
    assert await the_conflict(central) == ("state_mismatch", resolution)
    kept = resolution == "keep_local"
    assert await stage_of(central) == (("installing", 1) if kept else ("discovered", 0))
    last = (await central.ask("GET", "/nodes/n1/history"))["items"][-1]
    if kept:
        assert (last["actor"], last["forced"], last["item_id"]) == (f"strategy {strategy}", True, answer.results[0].id)


@pytest.mark.parametrize(("age", "uncertainty"), [(900_000, 0), (590_000, 20_000)], ids=["earlier", "in doubt"])
async def test_state_mismatch_where_the_site_was_not_certainly_later(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock, strategy: str, age: int, uncertainty: int
) -> None:
    rev = await approved(central, agent)
    await force(central, "discovered")
    clock.advance(600)
    await agent.push(agent.step("n1", "pending", "installing", 1, base=rev, age_ms=age, u_ms=uncertainty))
    resolution = {
        "central_wins": "keep_central",
        "last_write": "keep_central",
        "site_wins": "keep_local",
        "manual": None,
    }[strategy]
    assert await the_conflict(central) == ("state_mismatch", resolution)
    assert await stage_of(central) == (("installing", 1) if resolution == "keep_local" else ("discovered", 0))


@pytest.mark.parametrize("protected", ["deprovisioning", "migrating", "retired"])
async def test_state_mismatch_that_no_policy_may_keep_for_the_site(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock, strategy: str, protected: str
) -> None:
    rev = await approved(central, agent)
    await force(central, protected)
    clock.advance(600)
    await agent.push(agent.step("n1", "pending", "installing", 1, base=rev))
    resolution = "keep_central" if strategy == "central_wins" else None
    assert await the_conflict(central) == ("state_mismatch", resolution)
    assert (await stage_of(central))[0] == protected


async def test_state_mismatch_of_an_approval_made_at_the_site(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock, strategy: str
) -> None:
    """No policy moves a node into pending from the site's side."""
    await central.ask("PATCH", f"/sites/{agent.site_id}", json={"autonomy_level": "full"})
    await agent.push(agent.registration("n1", MAC))
    await force(central, "active")
    clock.advance(600)
    await agent.push(agent.step("n1", "discovered", "pending", base=1, autonomy="full"))
    assert await the_conflict(central) == ("state_mismatch", "keep_central" if strategy == "central_wins" else None)
    assert (await stage_of(central))[0] == "active"


async def test_state_mismatch_of_a_late_report_closes_no_other_attempt(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock, strategy: str
) -> None:
    rev = await approved(central, agent)
    begun = agent.step("n1", "pending", "installing", 1, base=rev)
    await agent.push(begun, agent.step("n1", "installing", "installing", 2, after=begun["id"]))
    clock.advance(600)
    await agent.push(agent.step("n1", "installing", "installed", 1, base=rev + 1))
    assert await the_conflict(central) == ("state_mismatch", "keep_central" if strategy == "central_wins" else None)
    assert await stage_of(central) == ("installing", 2)


async def test_state_mismatch_of_a_node_that_moved_to_another_site(
    central: RunningCentral, agent: SpeakingAgent, other: SpeakingAgent, clock: SetClock, strategy: str
) -> None:
    """Events of the former home apply; its edges are a conflict, which no policy keeps for it."""
    rev = await approved(central, agent)
    await central.ask("PATCH", "/nodes/n1", json={"home_site_id": other.site_id})
    clock.advance(600)
    answer = await agent.push(agent.event("n1", "boot_started"), agent.step("n1", "pending", "installing", 1, base=rev))
    assert [outcome for outcome, _ in outcomes(answer)] == ["applied", "conflict"]
    resolution = {"central_wins": "keep_central"}.get(strategy)
    assert await the_conflict(central) == ("state_mismatch", resolution)
    assert await stage_of(central) == ("pending", 0)


# missing_central: changed here, and deleted at central


async def test_missing_central(central: RunningCentral, agent: SpeakingAgent, clock: SetClock, strategy: str) -> None:
    rev = await approved(central, agent)
    await central.ask("DELETE", "/nodes/n1", 204)
    clock.advance(600)
    step = agent.step("n1", "pending", "installing", 1, base=rev)
    answer = await agent.push(agent.event("n1", "install_started"), step)
    assert [outcome for outcome, _ in outcomes(answer)] == ["applied", "conflict"]
    resolution = "keep_central" if strategy in ("central_wins", "last_write") else None
    assert await the_conflict(central) == ("missing_central", resolution)
    await central.ask("GET", "/nodes/n1", 404)
    events = (await central.ask("GET", "/nodes/n1/events"))["items"]
    assert [event["event"] for event in events] == ["install_started"]


# Which machine it is, or whose: always a person


async def test_site_claim_of_a_machine_of_another_site(
    central: RunningCentral, agent: SpeakingAgent, other: SpeakingAgent
) -> None:
    await approved(central, other)
    claim = agent.registration("n9", MAC)
    answer = await agent.push(
        claim,
        agent.event("n9", "boot_started", after=claim["id"]),
        agent.step("n9", "pending", "installing", 1, after=claim["id"]),
    )
    assert outcomes(answer) == [("conflict", None), ("applied", None), ("conflict", None)]
    [row] = await all_conflicts(central)
    assert (row["conflict_type"], row["status"], len(row["local_chain"])) == ("site_claim", "pending", 2)
    events = (await central.ask("GET", "/nodes/n1/events"))["items"]
    assert [event["site_id"] for event in events] == [agent.site_id]
    node = await central.ask("GET", "/nodes/n1")
    assert (node["state"], node["home_site_id"]) == ("pending", other.site_id)


async def test_mac_collision_of_the_macs_of_two_nodes(central: RunningCentral, agent: SpeakingAgent) -> None:
    await agent.push(agent.registration("n1", MAC))
    await agent.push(agent.registration("n2", OTHER_MAC))
    answer = await agent.push(agent.registration("n9", OTHER_MAC, MAC, THIRD_MAC))
    assert outcomes(answer) == [("conflict", None)]
    assert await the_conflict(central) == ("mac_collision", None)


# A strategy is changed while everything runs


async def test_a_strategy_counts_from_its_change_on(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock, strategy: str
) -> None:
    rev = await approved(central, agent)
    await force(central, "discovered")
    clock.advance(600)
    for other_strategy in sorted(Strategy):
        await central.ask("PATCH", f"/sites/{agent.site_id}", json={"conflict_resolution": other_strategy})
    await central.ask("PATCH", f"/sites/{agent.site_id}", json={"conflict_resolution": "site_wins"})
    answer = await agent.push(agent.step("n1", "pending", "installing", 1, base=rev))
    assert outcomes(answer) == [("conflict", "keep_local")]
