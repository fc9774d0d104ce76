"""Sites, and how their agents are let in and listened to."""

from typing import Any

import pytest
from sqlalchemy import update

from pureboot.central import tables as t
from tests.support.central import RunningCentral, SetClock, SpeakingAgent


async def code(central: RunningCentral, method: str, path: str, status: int, **arguments: Any) -> str:
    return str((await central.ask(method, path, status, **arguments))["error"]["code"])


async def test_a_site_starts_with_the_stated_defaults(central: RunningCentral) -> None:
    site = await central.new_site("attic")
    chosen = (site["autonomy_level"], site["conflict_resolution"], site["cache_policy"], site["migration_policy"])
    assert chosen == ("limited", "central_wins", "assigned", "manual")
    assert (site["version"], site["agent_status"], site["agent_last_seen"]) == (1, "unknown", None)


async def test_a_site_is_found_by_id_and_by_name(central: RunningCentral) -> None:
    site = await central.new_site("attic")
    assert await central.ask("GET", f"/sites/{site['id']}") == await central.ask("GET", "/sites/attic") == site
    assert await code(central, "GET", "/sites/cellar", 404) == "unknown_site"


async def test_only_what_is_sent_changes(central: RunningCentral) -> None:
    site = await central.new_site("attic", description="dry")
    changed = await central.ask("PATCH", "/sites/attic", json={"autonomy_level": "full"})
    assert (changed["autonomy_level"], changed["description"], changed["version"]) == ("full", "dry", 2)
    assert site["local_boot"] == "sanboot"
    patch = {"offline_default_action": "discovery", "offline_install_max_age": 60, "local_boot": "http-404"}
    assert (await central.ask("PATCH", "/sites/attic", json=patch)) | patch | {"version": 3} == await central.ask(
        "GET", f"/sites/{site['id']}"
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x", "autonomy_level": "total"},
        {"name": "x", "colour": "red"},
        {"name": "x", "local_boot": "reboot"},
        {"name": "x", "cache_max_size_gb": 0},
        {"name": "x", "cache_max_size_gb": "inf"},
        {"name": "x", "parent_id": "nowhere"},
    ],
)
async def test_a_site_that_makes_no_sense_is_422(central: RunningCentral, body: dict[str, Any]) -> None:
    await central.ask("POST", "/sites", 422, json=body)


@pytest.mark.parametrize(
    "patch",
    [
        {"cache_retention_days": 40_000},
        {"parent_id": "nowhere"},
        {"name": ""},
        {"cache_max_size_gb": "inf"},
        {"cache_max_size_gb": "1e400"},
        {"offline_install_max_age": "Infinity"},
    ],
    ids=str,
)
async def test_a_change_that_makes_no_sense_is_422_and_changes_nothing(
    central: RunningCentral, patch: dict[str, Any]
) -> None:
    site = await central.new_site("attic")
    error = (await central.ask("PATCH", "/sites/attic", 422, json=patch))["error"]
    assert error["message"].startswith(f"{next(iter(patch))}: ")
    assert await central.ask("GET", "/sites/attic") == site


async def test_a_size_without_end_that_was_stored_before_is_read_and_mended(central: RunningCentral) -> None:
    await central.new_site("attic")
    central.db.write_now(lambda conn: conn.execute(update(t.site).values(cache_max_size_gb=float("inf"))))
    assert (await central.ask("GET", "/sites"))["items"][0]["cache_max_size_gb"] is None
    await central.ask("PATCH", "/sites/attic", 422, json={"name": "loft"})
    assert (await central.ask("PATCH", "/sites/attic", json={"cache_max_size_gb": 7}))["cache_max_size_gb"] == 7


async def test_a_name_is_taken_once(central: RunningCentral) -> None:
    await central.new_site("attic")
    await central.new_site("cellar")
    assert await code(central, "POST", "/sites", 409, json={"name": "attic"}) == "name_taken"
    assert await code(central, "PATCH", "/sites/cellar", 409, json={"name": "attic"}) == "name_taken"
    await central.ask("PATCH", "/sites/attic", json={"name": "attic"})


async def test_sites_lie_in_sites_but_not_in_a_circle(central: RunningCentral) -> None:
    above = await central.new_site("house")
    below = await central.new_site("attic", parent_id="house")
    assert below["parent_id"] == above["id"]
    assert await code(central, "PATCH", "/sites/house", 422, json={"parent_id": "attic"}) == "circle"
    assert await code(central, "DELETE", "/sites/house", 409) == "site_has_sites"


async def test_in_a_circle_that_is_there_already_nothing_goes_round_for_ever(central: RunningCentral) -> None:
    site = await central.new_site("attic")
    await central.new_site("cellar", parent_id="attic")
    central.sql("UPDATE site SET parent_id = (SELECT id FROM site WHERE name = 'cellar') WHERE name = 'attic'")
    assert await code(central, "POST", "/sites", 422, json={"name": "chest", "parent_id": "attic"}) == "circle"
    await central.ask("PATCH", "/sites/attic", json={"parent_id": None})
    chest = await central.new_site("chest", parent_id="attic")
    assert chest["parent_id"] == site["id"]


async def test_a_site_with_nodes_stays(central: RunningCentral) -> None:
    await central.new_site("attic")
    node = await central.ask("POST", "/nodes", 201, json={"mac_address": "525400aabb01", "home_site_id": "attic"})
    assert await code(central, "DELETE", "/sites/attic", 409) == "site_has_nodes"
    await central.ask("DELETE", f"/nodes/{node['id']}", 204)
    await central.ask("DELETE", "/sites/attic", 204)
    await central.ask("GET", "/sites/attic", 404)
    await central.new_site("attic")


async def test_an_agent_of_a_deleted_site_is_nobody(central: RunningCentral) -> None:
    await central.new_site("attic")
    agent = await central.speaking_agent("attic")
    await central.ask("DELETE", "/sites/attic", 204)
    assert (await agent.client.get("/api/v1/sync/changes")).status_code == 401


async def test_the_list_has_pages(central: RunningCentral) -> None:
    for name in ("c", "a", "b"):
        await central.new_site(name)
    first = await central.ask("GET", "/sites", params={"limit": 2})
    rest = await central.ask("GET", "/sites", params={"limit": 2, "cursor": first["next_cursor"]})
    assert [site["name"] for site in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert rest["next_cursor"] is None


# Agents


async def test_a_token_buys_one_credential(central: RunningCentral) -> None:
    site = await central.new_site("attic")
    token = (await central.ask("POST", "/sites/attic/agent-token", 201))["token"]
    first = await central.anybody.post("/api/v1/agents/register", json={"token": token, "site": "attic"})
    assert (first.status_code, first.json()["site_id"]) == (201, site["id"])
    again = await central.anybody.post("/api/v1/agents/register", json={"token": token})
    assert (again.status_code, again.json()["error"]["code"]) == (403, "token_refused")


async def test_a_token_is_refused_when_it_is_wrong_old_void_or_for_another_site(
    central: RunningCentral, clock: SetClock
) -> None:
    await central.new_site("attic")
    await central.new_site("cellar")

    async def token() -> str:
        return str((await central.ask("POST", "/sites/attic/agent-token", 201))["token"])

    async def register(**body: str) -> int:
        return (await central.anybody.post("/api/v1/agents/register", json=body)).status_code

    void, good = await token(), await token()
    assert await register(token="wrong") == 403
    assert await register(token=void) == 403
    assert await register(token=good, site="cellar") == 403
    clock.advance(24 * 3600)
    assert await register(token=good) == 403
    # One that was made while the clock was ahead is not good for as long.
    ahead = await token()
    clock.advance(-25 * 3600)
    assert await register(token=ahead) == 403
    assert await register(token=await token()) == 201


async def test_a_token_is_good_for_24_hours_and_stored_nowhere(central: RunningCentral, clock: SetClock) -> None:
    await central.new_site("attic")
    answer = await central.ask("POST", "/sites/attic/agent-token", 201)
    assert answer["expires_at"] == "2026-01-29T12:00:00Z"
    agent = await central.new_agent("attic")
    for line in central.everything_stored():
        assert answer["token"] not in line
        assert agent.credential not in line
        assert central.token not in line


async def test_what_was_revoked_opens_nothing_and_a_new_agent_does(central: RunningCentral) -> None:
    await central.new_site("attic")
    await central.new_site("cellar")
    other = await central.speaking_agent("cellar")
    old, last = await central.speaking_agent("attic"), await central.speaking_agent("attic")
    waiting = (await central.ask("POST", "/sites/attic/agent-token", 201))["token"]
    assert await central.ask("POST", "/sites/attic/agents/revoke") == {"revoked": 2}
    for agent in (old, last):
        batch = {"generation": 1, "items": []}
        asked = [
            await agent.client.get("/api/v1/sync/changes"),
            await agent.client.post("/api/v1/sync/push", json=batch),
        ]
        assert [(each.status_code, each.json()["error"]["code"]) for each in asked] == [(401, "unknown_token")] * 2
    assert (await central.anybody.post("/api/v1/agents/register", json={"token": waiting})).status_code == 403
    assert await central.ask("POST", "/sites/attic/agents/revoke") == {"revoked": 0}
    new = await central.speaking_agent("attic")
    assert (await new.push(new.registration("n1", "52:54:00:aa:bb:01"))).results[0].outcome == "applied"
    assert (await other.push(other.registration("n2", "52:54:00:aa:bb:02"))).results[0].outcome == "applied"


async def test_a_newer_agent_replaces_the_older_which_may_still_push(central: RunningCentral) -> None:
    await central.new_site("attic")
    old = await central.speaking_agent("attic")
    new = await central.speaking_agent("attic")
    assert (await old.push(old.registration("n1", "52:54:00:aa:bb:01"))).results[0].outcome == "applied"
    feed = await old.client.get("/api/v1/sync/changes")
    assert (feed.status_code, feed.json()["error"]["code"]) == (403, "agent_replaced")
    beat = await old.client.post("/api/v1/agents/heartbeat", json={"agent_id": old.id, "metrics": {}})
    assert beat.json()["error"]["code"] == "agent_replaced"
    await central.ask("PUT", "/content/templates/preseed.cfg", content=b"a secret")
    address = "/api/v1/content/templates/preseed.cfg"
    file = await old.client.get(address)
    assert (file.status_code, file.json()["error"]["code"]) == (403, "agent_replaced")
    assert (await old.client.head(address)).status_code == 403
    assert (await new.client.get(address)).content == b"a secret"
    assert (await new.changes()).items[-1].id == "n1"


async def beat(agent: SpeakingAgent, **metrics: Any) -> dict[str, Any]:
    body = {"agent_id": agent.id, "interval_seconds": 60, "metrics": metrics}
    answer = await agent.client.post("/api/v1/agents/heartbeat", json=body)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_when_a_site_was_last_heard_outlives_the_agent_that_was_replaced(
    central: RunningCentral, clock: SetClock
) -> None:
    await central.new_site("attic")
    await beat(await central.speaking_agent("attic"))
    heard = (await central.ask("GET", "/sites/attic"))["agent_last_seen"]
    assert heard is not None
    clock.advance(600)
    new = await central.speaking_agent("attic")
    for path in ("/sites/attic", "/sites/attic/health"):
        site = await central.ask("GET", path)
        assert (site["agent_status"], site["agent_last_seen"]) == ("unknown", heard), path
    assert (await central.ask("GET", "/sites"))["items"][0]["agent_last_seen"] == heard
    await beat(new)
    assert (await central.ask("GET", "/sites/attic"))["agent_last_seen"] > heard


@pytest.mark.parametrize(
    ("silence", "status"), [(0, "online"), (120, "online"), (121, "degraded"), (300, "degraded"), (301, "offline")]
)
async def test_an_agents_status_is_told_by_its_silence(
    central: RunningCentral, clock: SetClock, silence: float, status: str
) -> None:
    await central.new_site("attic")
    await beat(await central.speaking_agent("attic"))
    clock.advance(silence)
    assert (await central.ask("GET", "/sites/attic"))["agent_status"] == status
    assert (await central.ask("GET", "/sites"))["items"][0]["agent_status"] == status


async def test_health_shows_the_last_heartbeat_and_what_waits(central: RunningCentral) -> None:
    await central.new_site("attic")
    assert (await central.ask("GET", "/sites/attic/health"))["metrics"] is None
    agent = await central.speaking_agent("attic")
    await agent.push(agent.registration("n1", "52:54:00:aa:bb:01"))
    await beat(agent, version="9", pending_queue_items=7, from_the_future=True)
    health = await central.ask("GET", "/sites/attic/health")
    assert (health["metrics"]["pending_queue_items"], health["metrics"]["version"]) == (7, "9")
    assert (health["nodes"], health["nodes_total"], health["conflicts_pending"]) == ({"discovered": 1}, 1, 0)
    assert (health["agent_id"], health["agent_status"]) == (agent.id, "online")


@pytest.mark.parametrize("rate", ["nan", "inf", "-0.1", 1.1], ids=str)
async def test_a_rate_that_is_none_is_refused_and_takes_no_list_along(central: RunningCentral, rate: Any) -> None:
    """SQLite reads no JSON of a table in which one row says NaN."""
    await central.new_site("attic")
    agent = await central.speaking_agent("attic")
    body = {"agent_id": agent.id, "metrics": {"cache_hit_rate": rate}}
    assert (await agent.client.post("/api/v1/agents/heartbeat", json=body)).status_code == 422
    assert [site["name"] for site in (await central.ask("GET", "/sites"))["items"]] == ["attic"]


async def test_an_agent_is_asked_to_sync_with_its_next_heartbeat(central: RunningCentral) -> None:
    await central.new_site("attic")
    assert await code(central, "POST", "/sites/attic/sync", 409) == "no_agent"
    agent = await central.speaking_agent("attic")
    for _ in range(2):
        assert (await central.ask("POST", "/sites/attic/sync", 202))["status"] == "queued"
    assert [command["command"] for command in (await beat(agent))["commands"]] == ["sync"]
    assert (await beat(agent))["commands"] == []


async def test_a_heartbeat_in_anothers_name_is_refused(central: RunningCentral) -> None:
    await central.new_site("attic")
    agent = await central.speaking_agent("attic")
    answer = await agent.client.post("/api/v1/agents/heartbeat", json={"agent_id": "another", "metrics": {}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_yours")
