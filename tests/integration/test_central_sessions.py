"""One writer for each credential, seen in the site's health; and whether its sums agree."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pureboot.central.watch import Watch
from tests.support.central import RunningCentral, SetClock, SpeakingAgent, running_central

MAC = "52:54:00:aa:bb:01"


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    return await central.speaking_agent((await central.new_site("attic"))["id"])


async def ask(agent: SpeakingAgent, epoch: str, *previous: str) -> httpx2.Response:
    body = {"agent_id": agent.id, "epoch": epoch, "previous_epochs": previous}
    return await agent.client.post("/api/v1/sync/session", json=body)


async def fence(agent: SpeakingAgent, epoch: str, *previous: str) -> int:
    answer = await ask(agent, epoch, *previous)
    assert answer.status_code == 200, answer.text
    assert answer.json()["lease_seconds"] == 90
    return int(answer.json()["fence"])


def refused(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "fenced")


async def health(central: RunningCentral) -> dict[str, Any]:
    found: dict[str, Any] = await central.ask("GET", "/sites/attic/health")
    return found


async def test_a_second_living_copy_is_refused_and_an_operator_sees_it(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await fence(agent, "e1")
    refused(await ask(agent, "e2"))
    refused(await ask(agent, "e2", "e0"))
    [notice] = (await health(central))["notices"]
    assert (notice["kind"], notice["subject"], notice["times"]) == ("fenced", agent.id, 2)
    assert (notice["detail"]["epoch"], notice["detail"]["holder_epoch"]) == ("e2", "e1")


async def test_a_copy_that_is_started_again_and_again_is_one_alert(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    await fence(agent, "e1")
    for start in range(4):
        clock.advance(10)
        refused(await ask(agent, f"copy{start}"))
    [notice] = (await health(central))["notices"]
    assert (notice["times"], notice["detail"]["epoch"], notice["ended_at"]) == (4, "copy3", None)


async def test_who_asks_again_keeps_its_fence(agent: SpeakingAgent, clock: SetClock) -> None:
    first = await fence(agent, "e1")
    clock.advance(80)
    assert await fence(agent, "e1") == first
    clock.advance(80)
    refused(await ask(agent, "e2"))


async def test_a_lease_that_ran_out_goes_to_the_next_and_the_first_is_fenced_off(
    agent: SpeakingAgent, clock: SetClock
) -> None:
    first = await fence(agent, "e1")
    clock.advance(91)
    assert await fence(agent, "e2") == first + 1
    refused(await ask(agent, "e1"))


async def test_a_restart_takes_over_its_own_lease(agent: SpeakingAgent) -> None:
    first = await fence(agent, "e1")
    assert await fence(agent, "e2", "e1") == first + 1


async def test_a_restart_takes_over_whichever_of_its_lives_was_the_last_to_be_let_in(agent: SpeakingAgent) -> None:
    """The answer to e2 was lost, and e3 was killed before it asked."""
    await fence(agent, "e1")
    second = await fence(agent, "e2", "e1")
    assert await fence(agent, "e4", "e3", "e2", "e1") == second + 1


async def test_a_stale_fence_applies_nothing(central: RunningCentral, agent: SpeakingAgent) -> None:
    old = await fence(agent, "e1")
    new = await fence(agent, "e2", "e1")
    item = agent.registration("n1", MAC)
    accounts = [{"epoch": "e1", "made": 9, "settled": 1}]
    refused(await agent.post(item, fence=old, epoch_accounts=accounts))
    assert (await central.ask("GET", "/nodes"))["items"] == []
    said = await health(central)
    assert (said["epoch_gaps"], [notice["detail"]["epoch"] for notice in said["notices"]]) == ([], ["e1"])
    assert (await agent.post(item, fence=new)).json()["results"][0]["outcome"] == "applied"


async def test_pushing_prolongs_the_lease(agent: SpeakingAgent, clock: SetClock) -> None:
    number = await fence(agent, "e1")
    for _ in range(3):
        clock.advance(60)
        assert (await agent.post(fence=number)).status_code == 200
    refused(await ask(agent, "e2"))


@pytest.fixture
async def set_back(central: RunningCentral, agent: SpeakingAgent, clock: SetClock) -> int:
    """The fence of e1, which asked by a clock that was ahead; the watch goes on."""
    clock.advance(400 * 86_400)
    await Watch(central.db, clock).round()
    number = await fence(agent, "e1")
    clock.advance(-400 * 86_400)
    await Watch(central.db, clock).round()
    return number


async def test_a_lease_of_a_clock_that_was_ahead_runs_out_after_that_was_set_back(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock, set_back: int
) -> None:
    for _ in range(2):
        refused(await ask(agent, "e2"))
        clock.advance(46)
        await Watch(central.db, clock).round()
    assert await fence(agent, "e2") == set_back + 1


async def test_whoever_pushes_after_it_was_set_back_keeps_its_lease(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock, set_back: int
) -> None:
    clock.advance(46)
    await Watch(central.db, clock).round()
    assert (await agent.post(fence=set_back)).status_code == 200
    clock.advance(46)
    await Watch(central.db, clock).round()
    refused(await ask(agent, "e2"))


async def test_how_long_a_lease_lasts_is_a_setting(tmp_path: Path, clock: SetClock) -> None:
    async with running_central(tmp_path / "brief", clock, session_lease=5) as central:
        agent = await central.speaking_agent((await central.new_site("attic"))["id"])
        grant = (await ask(agent, "e1")).json()
        assert grant["lease_seconds"] == 5
        clock.advance(4)
        assert (await agent.post(fence=grant["fence"])).status_code == 200
        clock.advance(4)
        refused(await ask(agent, "e2"))
        clock.advance(2)
        assert (await ask(agent, "e2")).status_code == 200


async def test_an_agent_that_knows_no_sessions_may_push(agent: SpeakingAgent) -> None:
    await fence(agent, "e1")
    assert (await agent.post(agent.registration("n1", MAC))).status_code == 200


async def test_a_replaced_agent_may_still_push_what_it_holds(central: RunningCentral, agent: SpeakingAgent) -> None:
    await fence(agent, "e1")
    newer = await central.speaking_agent("attic")
    await fence(newer, "e9")
    assert (await agent.post(agent.registration("n1", MAC), fence=await fence(agent, "e1"))).status_code == 200


async def test_of_copies_that_ask_at_once_one_is_served(agent: SpeakingAgent) -> None:
    answers = await asyncio.gather(*(ask(agent, f"e{number}") for number in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5


async def test_a_session_is_the_agents_own(central: RunningCentral, agent: SpeakingAgent) -> None:
    other = await central.speaking_agent((await central.new_site("cellar"))["id"])
    answer = await agent.client.post("/api/v1/sync/session", json={"agent_id": other.id, "epoch": "e1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_yours")


@pytest.mark.parametrize("body", [{"epoch": ""}, {"epoch": "x" * 65}, {"epoch": 1}, {}, {"epoch": "e", "more": 1}])
async def test_a_session_that_cannot_be_read_is_422(agent: SpeakingAgent, body: dict[str, Any]) -> None:
    answer = await agent.client.post("/api/v1/sync/session", json={"agent_id": agent.id} | body)
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "wrong", [{"fence": -1}, {"fence": 2**63}, {"fence": "x"}, {"epoch_accounts": [{"epoch": "e"}]}]
)
async def test_a_push_with_a_wrong_field_is_422(agent: SpeakingAgent, wrong: dict[str, Any]) -> None:
    assert (await agent.post(**wrong)).status_code == 422


# Sums


def account(made: int, settled: int, discarded: int = 0, queued: int = 0, epoch: str = "e1") -> dict[str, Any]:
    return {"epoch": epoch, "made": made, "settled": settled, "discarded": discarded, "queued": queued}


async def test_sums_that_agree_are_no_news(central: RunningCentral, agent: SpeakingAgent) -> None:
    await agent.post(epoch_accounts=[account(9, 5, 1, 3), account(2, 2, epoch="e0")])
    assert (await health(central))["epoch_gaps"] == []


async def test_a_gap_is_shown_with_what_central_has(central: RunningCentral, agent: SpeakingAgent) -> None:
    await agent.post(agent.registration("n1", MAC), epoch_accounts=[account(9, 5)])
    [gap] = (await health(central))["epoch_gaps"]
    assert (gap["epoch"], gap["made"], gap["received"], gap["gap"]) == ("e1", 9, 1, 4)


async def test_sums_that_no_epoch_can_have_are_refused_and_the_largest_shown(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    most = 10**15
    assert (await agent.post(epoch_accounts=[account(0, 2**63 - 1, 2**63 - 1, 2**63 - 1)])).status_code == 422
    assert (await health(central))["epoch_gaps"] == []
    assert (await agent.post(epoch_accounts=[account(0, most, most, most)])).status_code == 200
    assert [gap["gap"] for gap in (await health(central))["epoch_gaps"]] == [-3 * most]


async def test_what_an_agent_restored_from_its_backup_forgot_stays_counted(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await agent.post(epoch_accounts=[account(9, 6, 0, 3)])
    await agent.post(epoch="e2", epoch_accounts=[account(5, 5)])
    [gap] = (await health(central))["epoch_gaps"]
    assert (gap["made"], gap["settled"], gap["queued"], gap["gap"]) == (9, 6, 0, 3)


@pytest.mark.parametrize("late", [account(7, 2, 0, 5), account(9, 2, 0, 7), account(9, 5, 0, 4)])
@pytest.mark.parametrize("teller", ["e1", "e2"])
async def test_sums_that_were_long_on_their_way_make_no_gap(
    central: RunningCentral, agent: SpeakingAgent, teller: str, late: dict[str, Any]
) -> None:
    told_of_itself = teller == late["epoch"]
    await agent.post(epoch=teller, epoch_accounts=[account(9, 6, 1, 2)])
    await agent.post(epoch=teller, epoch_accounts=[late])
    # A life that is over makes no more items: to another, fewer of them are those of a file from a backup.
    assert bool((await health(central))["epoch_gaps"]) is (not told_of_itself and late["made"] != 9)


# Items that somebody gave up


def discard(agent: SpeakingAgent, lane: str) -> dict[str, Any]:
    body = {"item_id": "i7", "item_type": "state_update", "lane": lane, "reason": "broken disk", "person": "ann"}
    return agent.item("discard", lane, body)


async def test_a_discarded_item_is_an_event_of_its_node(central: RunningCentral, agent: SpeakingAgent) -> None:
    await agent.push(agent.registration("n1", MAC))
    item = discard(agent, "n1")
    for outcome in ("applied", "duplicate"):
        assert [result.outcome.value for result in (await agent.push(item)).results] == [outcome]
    [event] = (await central.ask("GET", "/nodes/n1/events"))["items"]
    assert (event["event"], event["message"], event["item_id"]) == ("sync_discarded", "broken disk", item["id"])
    assert (event["metadata"]["item_id"], event["metadata"]["person"]) == ("i7", "ann")


@pytest.mark.parametrize("whose", ["nobody", "another site"])
async def test_of_a_node_central_does_not_know_here_it_is_the_sites_notice(
    central: RunningCentral, agent: SpeakingAgent, whose: str
) -> None:
    if whose == "another site":
        other = await central.speaking_agent((await central.new_site("cellar"))["id"])
        await other.push(other.registration("n1", MAC))
    item = discard(agent, "n1")
    for outcome in ("applied", "duplicate"):
        answer = await agent.push(item)
        assert [result.outcome.value for result in answer.results] == [outcome]
        assert answer.nodes == []
    [notice] = (await health(central))["notices"]
    assert (notice["kind"], notice["subject"], notice["times"]) == ("sync_discarded", "i7", 1)
    assert notice["detail"]["reason"] == "broken disk"


async def test_a_discard_that_cannot_be_read_is_rejected(agent: SpeakingAgent) -> None:
    answer = await agent.push(agent.item("discard", "n1", {"item_id": "i7"}))
    assert [result.outcome.value for result in answer.results] == ["rejected"]
