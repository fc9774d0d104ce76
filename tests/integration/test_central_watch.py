"""What central notices of its sites by itself: outages and alerts."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pureboot.central.alerts import reconcile
from pureboot.central.watch import Watch
from tests.support.central import RunningCentral, SetClock, SpeakingAgent, running_central

# Seconds between two rounds of the watch here: less than what would be a gap in it.
STEP = 50.0


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    return await central.speaking_agent((await central.new_site("attic"))["id"])


async def beat(agent: SpeakingAgent, report: dict[str, Any] | None = None, **metrics: Any) -> None:
    body = {"agent_id": agent.id, "interval_seconds": 60, "metrics": {**metrics, "report": report}}
    answer = await agent.client.post("/api/v1/agents/heartbeat", json=body)
    assert answer.status_code == 200, answer.text


async def look(central: RunningCentral, clock: SetClock) -> None:
    await Watch(central.db, clock).round()


async def silence(central: RunningCentral, clock: SetClock, seconds: float) -> None:
    """Time passes while the watch goes on."""
    await look(central, clock)
    while seconds > 0:
        clock.advance(min(seconds, STEP))
        seconds -= STEP
        await look(central, clock)


async def outages(central: RunningCentral) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await central.ask("GET", "/sites/attic/outages"))["items"]
    return found


async def alerts(central: RunningCentral, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await central.ask("GET", "/alerts", params=query))["items"]
    return found


async def test_a_silence_is_an_outage_from_the_last_sign_of_life_to_the_next(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await beat(agent)
    last = clock.now()
    await silence(central, clock, 120)
    assert await outages(central) == []
    await silence(central, clock, 100)
    [open_] = await outages(central)
    assert (open_["began_at"], open_["offline_at"], open_["ended_at"]) == (_text(last), None, None)
    await silence(central, clock, 200)
    [open_] = await outages(central)
    assert open_["offline_at"] is not None
    assert open_["account"].startswith("It lasts.")
    told = {"last_outage": {"seconds": 400, "ended_seconds_ago": 20}}
    await beat(agent, told, uptime_seconds=90_000)
    [ended] = await outages(central)
    assert (ended["ended_at"], ended["agent_offline_seconds"]) == (_text(clock.now()), 400)
    assert ended["account"] == "The agent ran all the time and did not reach central."
    await silence(central, clock, 100)
    assert len(await outages(central)) == 1


@pytest.mark.parametrize(
    ("metrics", "report", "account"),
    [
        ({"uptime_seconds": 5}, None, "The agent was started again meanwhile"),
        ({"uptime_seconds": 9999}, None, "The agent noticed no outage"),
        # An outage the agent saw before this one began is no account of this one.
        (
            {"uptime_seconds": 9999},
            {"last_outage": {"seconds": 30, "ended_seconds_ago": 5000}},
            "The agent noticed no outage",
        ),
    ],
)
async def test_an_outage_says_what_is_known_and_no_more(
    central: RunningCentral,
    clock: SetClock,
    agent: SpeakingAgent,
    metrics: dict[str, Any],
    report: dict[str, Any] | None,
    account: str,
) -> None:
    await beat(agent)
    await silence(central, clock, 400)
    await beat(agent, report, **metrics)
    [outage] = await outages(central)
    assert outage["account"].startswith(account)


async def test_nobody_is_called_silent_for_what_central_could_not_hear(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await look(central, clock)
    await beat(agent)
    clock.advance(3600)  # central is away, and its watch with it
    await look(central, clock)
    await silence(central, clock, 100)
    assert (await outages(central), await alerts(central)) == ([], [])
    await beat(agent, {"last_outage": {"seconds": 3600, "ended_seconds_ago": 0}}, uptime_seconds=90_000)
    [outage] = await outages(central)
    assert outage["account"].startswith("Central itself was away")
    await silence(central, clock, 60)
    assert await alerts(central) == []


async def test_who_does_not_come_back_after_central_does_is_silent_then(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await look(central, clock)
    await beat(agent)
    last = clock.now()
    clock.advance(3600)
    await silence(central, clock, 150)
    [outage] = await outages(central)
    assert (outage["began_at"], outage["ended_at"]) == (_text(last), None)


@pytest.mark.parametrize("ahead", [3600.0, 400 * 86_400.0])
async def test_who_was_last_heard_by_a_clock_that_was_ahead_is_silent_from_when_it_was_set_back(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent, ahead: float
) -> None:
    clock.advance(ahead)
    await look(central, clock)
    await beat(agent)
    clock.advance(-ahead)
    set_back = clock.now()
    await silence(central, clock, 120)
    assert (await outages(central), await status(central)) == ([], "online")
    await silence(central, clock, 200)
    [outage] = await outages(central)
    assert (outage["began_at"], outage["offline_at"] is None) == (_text(set_back), False)
    [gone] = await alerts(central)
    assert (gone["kind"], gone["severity"], await status(central)) == ("site_silent", "critical", "offline")
    await beat(agent)
    await look(central, clock)
    assert [outage["ended_at"] for outage in await outages(central)] == [_text(clock.now())]


async def test_an_outage_that_began_by_a_clock_that_was_ahead_ends_with_the_next_sign_of_life(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    for back in (50.0, 3600.0):
        await beat(agent)
        await silence(central, clock, 200)
        assert (await alerts(central))[0]["kind"] == "site_silent"
        clock.advance(-back)
        await look(central, clock)
        await beat(agent)
        await look(central, clock)
        assert [alert["kind"] for alert in await alerts(central)] == ["site_returned"]
        found = [(outage["ended_at"], outage["began_at"]) for outage in await outages(central)]
        assert min(found)[0] == _text(clock.now())
        assert all(began <= ended for ended, began in found)


async def test_an_outage_that_a_clock_ahead_made_ends_when_that_is_set_back(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await look(central, clock)
    await beat(agent)
    last = clock.now()
    clock.advance(400 * 86_400)
    await look(central, clock)
    await beat(agent)
    clock.advance(600 - 400 * 86_400)
    await look(central, clock)
    [outage] = await outages(central)
    assert (outage["began_at"], outage["ended_at"]) == (_text(last), _text(clock.now()))


async def test_a_clock_that_is_behind_for_a_while_takes_nothing_away(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await look(central, clock)
    await beat(agent)
    last = clock.now()
    clock.advance(-9000 * 86_400)
    await silence(central, clock, 100)
    clock.advance(9000 * 86_400)
    await silence(central, clock, 150)
    [outage] = await outages(central)
    assert outage["began_at"] == _text(last)


async def test_a_clock_that_is_ahead_for_a_while_ends_nothing_that_nobody_saw(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    async def kinds() -> set[str]:
        await silence(central, clock, 100)
        await beat(agent)
        return {alert["kind"] for alert in await alerts(central)}

    await beat(agent)
    await silence(central, clock, 200)
    clock.advance(400 * 86_400)
    assert await kinds() == {"site_silent"}
    assert await kinds() == {"site_returned"}
    clock.advance(-400 * 86_400)
    set_back = clock.now()
    assert await kinds() == {"site_returned"}
    for hours, standing in ((23, {"site_returned"}), (25, set())):
        later = set_back + timedelta(hours=hours)
        await central.db.write(lambda conn, later=later: reconcile(conn, {}, set_back, later))  # type: ignore[misc]
        assert {alert["kind"] for alert in await alerts(central)} == standing


async def status(central: RunningCentral) -> str:
    return str((await central.ask("GET", "/sites/attic"))["agent_status"])


async def test_an_operator_is_told_when_a_site_goes_and_when_it_returns(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await beat(agent)
    await silence(central, clock, 200)
    [gone] = await alerts(central)
    assert (gone["kind"], gone["severity"], gone["site_name"], gone["ended_at"]) == (
        "site_silent",
        "warning",
        "attic",
        None,
    )
    seen = await central.ask("POST", f"/alerts/{gone['id']}/acknowledge")
    assert (seen["acknowledged_by"], seen["ended_at"]) == ("admin", None)
    await silence(central, clock, 200)
    [gone] = await alerts(central)
    # It became worse than what was acknowledged.
    assert (gone["severity"], gone["acknowledged_by"]) == ("critical", None)
    await beat(agent)
    await look(central, clock)
    [returned] = await alerts(central)
    assert returned["kind"] == "site_returned"
    [_, gone] = await alerts(central, status="all")
    assert (gone["kind"], gone["ended_at"]) == ("site_silent", _text(clock.now()))
    seen = await central.ask("POST", f"/alerts/{returned['id']}/acknowledge")
    assert seen["ended_at"] == _text(clock.now())
    assert await alerts(central) == []


async def test_a_site_that_goes_again_is_a_new_alert(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    for _ in range(2):
        await beat(agent)
        await silence(central, clock, 200)
    await beat(agent)
    await look(central, clock)
    kinds = [alert["kind"] for alert in await alerts(central, status="all", site="attic")]
    assert kinds.count("site_silent") == 2
    # That it came back is one thing, told twice.
    [returned] = await alerts(central)
    assert (returned["kind"], returned["times"]) == ("site_returned", 2)


async def test_a_return_that_nobody_acknowledged_stands_for_a_day(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await beat(agent)
    await silence(central, clock, 200)
    await beat(agent)
    await look(central, clock)
    assert len(await alerts(central)) == 1
    clock.advance(86_500)
    await look(central, clock)
    # Nobody could see it while central was away.
    assert len(await alerts(central)) == 1
    for _ in range(40):
        await silence(central, clock, 100)
        await beat(agent)
    assert await alerts(central) == []


@pytest.mark.parametrize("count", [-1, 2**31])
async def test_a_count_that_no_site_can_have_is_refused_and_not_stored(agent: SpeakingAgent, count: int) -> None:
    """The watch reads it as a number of the database's."""
    body = {"agent_id": agent.id, "interval_seconds": 60, "metrics": {"failed_queue_items": count}}
    answer = await agent.client.post("/api/v1/agents/heartbeat", json=body)
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    ("told", "seconds"),
    # The last ended before this outage began: it is no account of it.
    [((10**30, 0), 2**31 - 1), ((1e30, 0), 2**31 - 1), ((-5, -(10**12)), 0), ((5, 10**18), None)],
    ids=str,
)
async def test_an_outage_as_a_broken_clock_tells_it_is_cut_to_what_can_be(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent, told: tuple[float, float], seconds: int | None
) -> None:
    """Refused, the site would be silent."""
    await beat(agent)
    await silence(central, clock, 400)
    await beat(agent, {"last_outage": dict(zip(("seconds", "ended_seconds_ago"), told, strict=True))})
    [outage] = await outages(central)
    now = _text(clock.now())
    back_at = None if seconds is None else now
    assert (outage["ended_at"], outage["agent_offline_seconds"], outage["agent_back_at"]) == (now, seconds, back_at)


async def test_conflicts_and_failed_items_are_one_alert_a_site_and_counted(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await central.ask("PATCH", "/sites/attic", json={"conflict_resolution": "manual"})
    for n in (1, 2):
        mac = f"52:54:00:aa:bb:0{n}"
        await central.ask(
            "POST", "/nodes", 201, json={"mac_address": mac, "home_site_id": "attic", "state": "installed"}
        )
        node = await central.node(mac)
        await central.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "reprovision"})
        pushed = await agent.push(agent.step(node["id"], "installed", "active", base=node["state_rev"]))
        assert pushed.results[0].outcome == "conflict"
    await beat(agent, failed_queue_items=3)
    await look(central, clock)
    found = {alert["kind"]: alert for alert in await alerts(central)}
    assert (found["conflicts"]["times"], found["items_failed"]["times"]) == (2, 3)
    assert found["conflicts"]["message"].startswith("2 conflicts wait")
    [first, second] = (await central.ask("GET", "/sites/attic/conflicts"))["items"]
    for conflict, left in ((first, 1), (second, 0)):
        path = f"/sites/attic/conflicts/{conflict['id']}/resolve"
        await central.ask("POST", path, json={"resolution": "keep_central"})
        await look(central, clock)
        assert sum(alert["times"] for alert in await alerts(central) if alert["kind"] == "conflicts") == left
    await beat(agent, failed_queue_items=0)
    await look(central, clock)
    assert await alerts(central) == []


async def test_a_damaged_file_is_an_alert_until_it_is_taken_away(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    other = await central.speaking_agent((await central.new_site("cellar"))["id"])
    await beat(other, {})
    await beat(agent, {"damaged_files": ["agent.db.damaged-20260128T120000"]})
    await look(central, clock)
    [alert] = await alerts(central)
    assert (alert["site_name"], alert["kind"], alert["severity"]) == ("attic", "file_damaged", "warning")
    assert "agent.db.damaged-20260128T120000" in alert["message"]
    await beat(agent, {"damaged_files": []})
    await look(central, clock)
    assert await alerts(central) == []


async def test_the_first_who_acknowledges_is_who_did(central: RunningCentral, agent: SpeakingAgent) -> None:
    for epoch in ("e1", "e2"):
        await agent.client.post("/api/v1/sync/session", json={"agent_id": agent.id, "epoch": epoch})
    [fenced] = await alerts(central)
    assert (fenced["kind"], fenced["severity"], fenced["subject"]) == ("fenced", "critical", agent.id)
    path = f"/alerts/{fenced['id']}/acknowledge"
    assert await central.ask("POST", path) == await central.ask("POST", path)
    assert (await central.ask("POST", "/alerts/none/acknowledge", 404))["error"]["code"] == "unknown_alert"
    # It happens again: what was seen is another one.
    await agent.client.post("/api/v1/sync/session", json={"agent_id": agent.id, "epoch": "e2"})
    assert [alert["acknowledged_by"] for alert in await alerts(central, status="all")] == [None, "admin"]
    assert len((await central.ask("GET", "/sites/attic/health"))["notices"]) == 2


async def test_two_watches_at_once_notice_once(central: RunningCentral, clock: SetClock, agent: SpeakingAgent) -> None:
    await beat(agent)
    for _ in range(5):
        clock.advance(STEP)
        await asyncio.gather(*(look(central, clock) for _ in range(4)))
    assert (len(await outages(central)), len(await alerts(central, status="all"))) == (1, 1)


async def test_a_heartbeat_beside_the_watch_leaves_no_outage_open(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await beat(agent)
    await silence(central, clock, 100)
    clock.advance(STEP)
    await asyncio.gather(look(central, clock), beat(agent), look(central, clock))
    await look(central, clock)
    assert [outage["ended_at"] is None for outage in await outages(central)] == [False]


async def test_a_removed_site_takes_its_alerts_and_outages_along(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await beat(agent)
    await silence(central, clock, 400)
    await central.ask("DELETE", "/sites/attic", 204)
    await look(central, clock)
    assert await alerts(central, status="all") == []
    assert central.sql("SELECT id FROM site_outage") == central.sql("SELECT id FROM alert") == []


async def test_an_alert_whose_site_is_gone_is_unknown(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    """As the watch leaves one that it began while the site was removed."""
    await beat(agent, failed_queue_items=1)
    await look(central, clock)
    [alert] = await alerts(central)
    central.sql("UPDATE alert SET site_id = 'gone'")
    refused = await central.ask("POST", f"/alerts/{alert['id']}/acknowledge", 404)
    assert refused["error"]["code"] == "unknown_alert"
    [left] = central.sql("SELECT acknowledged_by FROM alert")
    assert left[0] is None


async def test_lists_have_pages_and_old_things_are_forgotten(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    for _ in range(3):
        await beat(agent)
        await silence(central, clock, 200)
    await beat(agent)
    first = await central.ask("GET", "/sites/attic/outages", params={"limit": 2})
    rest = await central.ask("GET", "/sites/attic/outages", params={"limit": 2, "cursor": first["next_cursor"]})
    found = [outage["began_at"] for outage in first["items"] + rest["items"]]
    assert (len(found), found, rest["next_cursor"]) == (3, sorted(found, reverse=True), None)
    one = await central.ask("GET", "/alerts", params={"limit": 1, "status": "all"})
    two = await central.ask("GET", "/alerts", params={"limit": 1, "status": "all", "cursor": one["next_cursor"]})
    assert one["items"][0]["id"] > two["items"][0]["id"]
    await look(central, clock)
    clock.advance(2 * 86_400)
    for _ in range(40):
        await silence(central, clock, 100)
        await beat(agent)
    clock.advance(400 * 86_400)
    await _forget(central, clock)
    assert (await outages(central), await alerts(central, status="all")) == ([], [])


async def test_alerts_are_counted_for_monitoring(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await beat(agent, failed_queue_items=1)
    await look(central, clock)
    said = (await central.admin.get("/metrics")).text
    assert 'pureboot_central_alerts{severity="warning"} 1.0' in said
    assert "pureboot_central_alerts_unacknowledged 1.0" in said


async def test_what_was_noticed_outlives_central(tmp_path: Path, clock: SetClock) -> None:
    async def running() -> AsyncIterator[RunningCentral]:
        async with running_central(tmp_path, clock) as central:
            yield central

    async for central in running():
        await central.new_site("attic")
        agent = await central.speaking_agent("attic")
        await beat(agent)
        await silence(central, clock, 400)
    async for central in running():
        clock.advance(30)
        await look(central, clock)
        assert [alert["kind"] for alert in await alerts(central)] == ["site_silent"]


async def _forget(central: RunningCentral, clock: SetClock) -> None:
    from pureboot.central import alerts, commands, outages

    for part in (alerts, commands, outages):
        await central.db.write(lambda conn, part=part: part.forget(conn, clock.now()))  # type: ignore[misc]


def _text(when: Any) -> str:
    return str(when.strftime("%Y-%m-%dT%H:%M:%SZ"))


async def test_a_record_stands_at_no_time_and_is_in_the_sites_notices(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    body = {"item_id": "i1", "item_type": "event", "lane": "nobody", "reason": "swapped", "person": "ada"}
    pushed = await agent.push(agent.item("discard", "nobody", body))
    assert pushed.results[0].outcome == "applied"
    assert await alerts(central) == []
    [record] = (await central.ask("GET", "/sites/attic/health"))["notices"]
    assert (record["kind"], record["detail"]["reason"], record["ended_at"]) == (
        "sync_discarded",
        "swapped",
        record["first_at"],
    )
