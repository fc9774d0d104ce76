"""A site's page and the alerts, as somebody without JavaScript uses them."""

import re
from typing import Any

import pytest

from pureboot.central import commands
from pureboot.central.watch import Watch
from tests.support.browser import signed_in
from tests.support.central import RunningCentral, SetClock, SpeakingAgent

HOSTILE = "<script>alert(1)</script>\x07\u202e"
FAILED = {
    "id": "i1",
    "lane": "n1",
    "item_type": "event",
    "attempts": 3,
    "last_error": HOSTILE,
    "created_at": "2026-01-28T11:59:00Z",
}
OBEYS = ["discard", "requeue", "sync"]


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    return await central.speaking_agent((await central.new_site("attic"))["id"])


async def beat(agent: SpeakingAgent, report: dict[str, Any] | None = None, **metrics: Any) -> list[dict[str, Any]]:
    body = {"agent_id": agent.id, "interval_seconds": 60, "metrics": {**metrics, "report": report}}
    answer = await agent.client.post("/api/v1/agents/heartbeat", json=body)
    assert answer.status_code == 200, answer.text
    commands: list[dict[str, Any]] = answer.json()["commands"]
    return commands


async def silence(central: RunningCentral, clock: SetClock, seconds: int) -> None:
    watch = Watch(central.db, clock)
    await watch.round()
    for _ in range(seconds // 50):
        clock.advance(50)
        await watch.round()


async def test_a_site_shows_how_its_agent_is_and_was(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    viewer = await signed_in(central, "viewer")
    path = f"/sites/{agent.site_id}"
    assert "never been heard of" in (await viewer.get(path)).text
    await beat(agent)
    assert "Heard all the time in the last 24 hours." in (await viewer.get(path)).text
    await silence(central, clock, 600)
    page = (await viewer.get(path)).text
    assert re.search(r'<rect class="offline" x="[0-9.]+" y="2" width="[0-9.]+"', page)
    assert "1 outage in the last 24 hours: 10 min in all, the longest 10 min. One lasts." in page
    metrics = {"cache_bytes": 10**9, "cache_limit_bytes": 4 * 10**9, "cache_files": 3, "cache_hit_rate": 0.75}
    report = {"content_missing": ["images/debian/linux"], "content_missing_total": 1}
    await beat(agent, report, version="1.2.3", services={"http": "running"}, uptime_seconds=7200, **metrics)
    page = (await viewer.get(path)).text
    for told in ("1.2.3", "http running", "1.0 GB of 4.0 GB, in 3 files", "75 %", "images/debian/linux"):
        assert told in page
    assert "The agent noticed no outage" in page
    for window, words in (("7d", "7 days"), ("30d", "30 days"), ("nonsense", "24 hours")):
        assert f"in the last {words}" in (await viewer.get(f"{path}?window={window}")).text


async def test_a_failed_report_is_requeued_or_discarded_by_an_operator(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await beat(agent, {"obeys": OBEYS, "failed_items": [FAILED]}, failed_queue_items=1)
    path = f"/sites/{agent.site_id}"
    operator = await signed_in(central, "operator")
    page = (await operator.get(path)).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    answer = await operator.post(f"{path}/queue/i1/discard", page=path, reason="swapped")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}#queue")
    assert "waits for the agent" in (await operator.get(path)).text
    [command] = await beat(agent, {"obeys": OBEYS, "failed_items": [FAILED]}, failed_queue_items=1)
    asked = (command["command"], command["item_id"], command["reason"], command["person"])
    assert asked == ("discard", "i1", "swapped", "the-operator")
    assert "told to the agent" in (await operator.get(path)).text
    done = [{"id": command["id"], "outcome": "refused", "message": "There is no such item."}]
    await beat(agent, {"obeys": OBEYS, "commands_done": done})
    page = (await operator.get(path)).text
    assert "There is no such item." in page
    answer = await operator.post(f"{path}/queue/i1/requeue", page=path)
    assert answer.status_code == 303
    assert (await operator.post(f"{path}/sync", page=path)).status_code == 303
    assert [c["command"] for c in await beat(agent, {"obeys": OBEYS})] == ["requeue", "sync"]


async def test_a_refused_discard_keeps_its_reason(
    central: RunningCentral, agent: SpeakingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await beat(agent, {"obeys": [], "failed_items": [FAILED, FAILED | {"id": "i2"}]}, failed_queue_items=2)
    path, operator = f"/sites/{agent.site_id}", await signed_in(central, "operator")

    async def check(status: int, reason: str) -> None:
        answer = await operator.post(f"{path}/queue/i2/discard", reason=reason)
        assert answer.status_code == status
        assert re.findall(r'<details id="(discard-i\d)" hx-preserve open>', answer.text) == ["discard-i2"]
        assert re.findall(r'name="reason" .*value="(.*?)"', answer.text) == ["", reason]

    await check(422, "x" * 2001)
    monkeypatch.setattr(commands, "MOST_WAITING", 0)
    await check(409, "the disk was swapped")


async def test_times_without_a_zone_are_of_utc(central: RunningCentral, agent: SpeakingAgent) -> None:
    item = FAILED | {"created_at": "2026-01-28T11:59:00"}
    synced = "2026-01-28T11:50:00"
    await beat(agent, {"failed_items": [item]}, failed_queue_items=1, last_sync_at=synced, last_online_at=synced)
    page = await (await signed_in(central, "viewer")).get(f"/sites/{agent.site_id}")
    assert (page.status_code, "10 min ago" in page.text, "60 s ago" in page.text) == (200, True, True)
    metrics = (await central.ask("GET", f"/sites/{agent.site_id}/health"))["metrics"]
    assert metrics["last_sync_at"] == metrics["last_online_at"] == f"{synced}Z"
    assert (await central.ask("GET", f"/sites/{agent.site_id}/queue"))["items"][0]["created_at"] == FAILED["created_at"]


async def test_a_viewer_sees_and_touches_nothing(central: RunningCentral, agent: SpeakingAgent) -> None:
    await beat(agent, {"obeys": OBEYS, "failed_items": [FAILED]}, failed_queue_items=1)
    await Watch(central.db, SetClock()).round()
    path = f"/sites/{agent.site_id}"
    viewer = await signed_in(central, "viewer")
    for page in (path, "/alerts"):
        assert "<button" not in (await viewer.get(page)).text.split("</header>")[1]
    [alert] = (await central.ask("GET", "/alerts"))["items"]
    refused = [f"{path}/queue/i1/requeue", f"{path}/sync", path, f"/alerts/{alert['id']}/acknowledge"]
    for target in refused:
        assert (await viewer.post(target, page=path, name="x")).status_code == 403
    assert await beat(agent, {"obeys": OBEYS}) == []


async def test_without_an_agent_nobody_is_asked(central: RunningCentral) -> None:
    site = await central.new_site("cellar")
    operator = await signed_in(central, "operator")
    answer = await operator.post(f"/sites/{site['id']}/queue/i1/requeue", page=f"/sites/{site['id']}")
    assert answer.status_code == 409
    assert "This site has no agent." in answer.text


SETTINGS = {
    "name": "loft",
    "description": "up there",
    "parent_id": "",
    "agent_url": "http://loft:8080",
    "autonomy_level": "full",
    "conflict_resolution": "manual",
    "cache_policy": "pattern",
    "cache_patterns": "images/a*\nimages/b*",
    "cache_max_size_gb": "12.5",
    "cache_retention_days": "7",
    "migration_policy": "auto_accept",
    "local_boot": "exit",
    "offline_default_action": "discovery",
    "offline_install_max_age": "3600",
}


async def test_every_setting_is_changed_on_the_page(central: RunningCentral, agent: SpeakingAgent) -> None:
    admin = await signed_in(central)
    path = f"/sites/{agent.site_id}"
    answer = await admin.post(path, page=path, version="1", **SETTINGS)
    assert answer.status_code == 303, answer.text
    site = await central.ask("GET", path)
    assert {name: site[name] for name in SETTINGS} == SETTINGS | {
        "parent_id": None,
        "cache_patterns": ["images/a*", "images/b*"],
        "cache_max_size_gb": 12.5,
        "cache_retention_days": 7,
        "offline_install_max_age": 3600,
    }
    cleared = await admin.post(path, page=path, version="2", offline_default_action="", offline_install_max_age="")
    assert cleared.status_code == 303
    site = await central.ask("GET", path)
    assert (site["offline_default_action"], site["offline_install_max_age"]) == (None, None)


async def test_a_stale_form_is_refused_with_what_is_there_and_what_was_typed(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    admin = await signed_in(central)
    path = f"/sites/{agent.site_id}"
    await central.ask("PATCH", path, json={"autonomy_level": "readonly"})
    answer = await admin.post(path, page=path, version="1", **SETTINGS)
    assert answer.status_code == 409
    assert "is at version 2, not 1" in answer.text
    assert "<dd>readonly</dd>" in answer.text
    assert 'value="loft"' in answer.text
    assert (await central.ask("GET", path))["name"] == "attic"
    # The form it answers with is as new as the site: sent again, it counts.
    [version] = re.findall(r'name="version" value="(\d+)"', answer.text)
    assert (await admin.post(path, page=path, version=version, **SETTINGS)).status_code == 303
    wrong = await admin.post(path, page=path, version="3", **SETTINGS | {"cache_max_size_gb": "much"})
    assert wrong.status_code == 422
    assert 'value="much"' in wrong.text


@pytest.mark.parametrize("size", ["inf", "1e400", "nan"])
async def test_a_size_without_end_is_refused_and_kept_in_the_form(
    central: RunningCentral, agent: SpeakingAgent, size: str
) -> None:
    path = f"/sites/{agent.site_id}"
    answer = await (await signed_in(central)).post(path, **SETTINGS | {"cache_max_size_gb": size})
    assert (answer.status_code, f'value="{size}"' in answer.text, 'value="loft"' in answer.text) == (422, True, True)
    page = await agent.changes()
    assert [item.doc["cache_max_size_gb"] for item in page.items if item.type == "site"] == [50]


async def test_the_api_refuses_a_stale_version_too(central: RunningCentral, agent: SpeakingAgent) -> None:
    path = f"/sites/{agent.site_id}"
    await central.ask("PATCH", path, json={"version": 1, "description": "a"})
    answer = await central.ask("PATCH", path, 409, json={"version": 1, "description": "b"})
    assert answer["error"]["code"] == "stale_version"


async def test_what_does_not_add_up_is_said_in_plain_words(central: RunningCentral, agent: SpeakingAgent) -> None:
    epochs = [{"epoch": "e1", "made": 12, "settled": 9, "discarded": 0, "queued": 1}]
    assert (await agent.post(epoch_accounts=epochs)).status_code == 200
    for epoch in ("e1", "e2"):
        await agent.client.post("/api/v1/sync/session", json={"agent_id": agent.id, "epoch": epoch})
    page = (await (await signed_in(central, "viewer")).get(f"/sites/{agent.site_id}")).text
    assert "Of 12 reports that the agent accepted in one of its lives, 2 cannot be accounted for" in page
    assert "A second copy of this site&#39;s agent tried to write" in page


async def test_an_operator_acknowledges_alerts_and_the_badge_counts_the_others(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    await beat(agent, failed_queue_items=2)
    await silence(central, clock, 400)
    operator = await signed_in(central, "operator")
    page = (await operator.get("/alerts")).text
    assert '<span class="badge">2<' in page
    assert '<span class="badge">2<' in (await operator.get("/sites")).text
    silent = next(a for a in (await central.ask("GET", "/alerts"))["items"] if a["kind"] == "site_silent")
    answer = await operator.post(f"/alerts/{silent['id']}/acknowledge", page="/alerts", site=agent.site_id)
    assert answer.headers["location"] == f"/alerts?site={agent.site_id}"
    page = (await operator.get("/alerts")).text
    assert '<span class="badge">1<' in page
    assert "the-operator" in page
    await beat(agent, failed_queue_items=0)
    await Watch(central.db, clock).round()
    page = (await operator.get("/alerts")).text
    assert "Its agent is back" in page
    assert "2 reports of the site failed" not in page
    assert "2 reports of the site failed" in (await operator.get("/alerts?status=all")).text
