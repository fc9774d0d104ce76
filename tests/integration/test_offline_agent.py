"""A whole agent beside a real central (user's contract, task 8)."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pureboot.agent.central_client import Network
from pureboot.agent.main import SiteAgent, run
from pureboot.central.watch import look
from pureboot.core.errors import Forbidden, SettingsError, StorageFull
from pureboot.storage.sqlite import Store
from tests.fakes_cli import Canned, serving
from tests.support.agent import RunningAgent, init, running_agent, settings
from tests.support.central import RunningCentral, SetClock
from tests.support.machines import MAC, Machine, approve, import_node, kernel_workflow

LOCAL_DISK = "sanboot --no-describe --drive 0x80 || exit 1"


async def test_agent_starts_offline_components(site: RunningAgent) -> None:
    agent = site.agent
    for part in (
        agent.connectivity,
        agent.sync_queue,
        agent.queue_processor,
        agent.offline_generator,
        agent.conflict_detector,
    ):
        assert part is not None
    assert agent.connectivity.is_online
    assert (await site.health())["status"] == "online"


async def test_agent_handles_offline_mode(central: RunningCentral, site: RunningAgent) -> None:
    await import_node(central, MAC, state="installed")
    await site.synced()
    await site.cut()
    answer = await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
    assert answer.status_code == 202
    written = answer.json()
    assert (written["status"], written["offline"], written["state"]) == ("queued", True, "active")
    health = await site.health()
    assert health["status"] == "offline"
    assert health["pending_queue_items"] == 2
    assert "# Cached State: active" in await site.script(MAC)


async def test_health_tells_a_certificate_that_is_not_trusted_from_an_outage(
    central: RunningCentral, tmp_path: Path
) -> None:
    await central.new_site("cellar")
    await init(central, "cellar", tmp_path / "agent")
    with serving(Canned(), tls=True) as other:
        async with running_agent(tmp_path / "agent", Network(verify=True), central_url=other.url) as site:
            await site.until(lambda: bool(site.agent.connectivity.problem), "looked")
            health = await site.health()
            assert health["status"] == "offline"
            assert "its certificate is not trusted" in health["problems"][0]


async def test_an_agent_that_is_told_to_stop_says_so(
    central: RunningCentral, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pureboot.agent.main")
    await central.new_site("cellar")
    await init(central, "cellar", tmp_path / "agent")
    serving = asyncio.create_task(run(settings(tmp_path / "agent", host="127.0.0.1", port=0, tftp_port=0)))
    async with asyncio.timeout(20):
        while "serves on" not in caplog.text:
            await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
    said = [each for each in caplog.messages if each.startswith("site agent")]
    assert [each.partition(",")[0].split()[3] for each in said] == ["serves", "stops"]


async def test_agent_processes_queue_on_reconnect(central: RunningCentral, site: RunningAgent) -> None:
    await import_node(central, MAC, state="installed")
    await site.synced()
    await site.cut()
    written = (await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})).json()
    await site.restore()
    await site.until(lambda: site.agent.sync_queue.pending_count == 0, "drained")
    history = await central.history(MAC)
    assert [h["to_state"] for h in history if h["item_id"] == written["queue_id"]] == ["active"]
    events = await central.events(MAC)
    assert [e["event"] for e in events if e["item_id"] == written["event_queue_id"]] == ["first_boot"]


async def test_a_write_online_is_confirmed_by_central(central: RunningCentral, site: RunningAgent) -> None:
    answer = await site.machine.post("/api/v1/nodes/register", json={"mac_address": MAC, "vendor": "QEMU"})
    assert answer.status_code == 200
    assert answer.json()["status"] == "applied"
    node = await central.node(MAC)
    assert node["id"] == answer.json()["id"]
    assert node["facts"] == {"vendor": "QEMU"}


async def test_a_repeated_report_is_one_item(central: RunningCentral, site: RunningAgent) -> None:
    await import_node(central, MAC, state="installed")
    await site.synced()
    await site.cut()
    body = {"mac": MAC, "event": "first_boot", "report_id": "r1"}
    answers = [(await site.machine.post("/api/v1/report", json=body)).json() for _ in range(3)]
    assert len({answer["queue_id"] for answer in answers}) == 1
    assert len({answer["event_queue_id"] for answer in answers}) == 1
    await site.restore()
    await site.synced()
    assert [e["event"] for e in await central.events(MAC)] == ["first_boot"]


async def test_a_forbidden_edge_is_409_by_patch_and_kept_as_an_event(
    central: RunningCentral, site: RunningAgent
) -> None:
    node = await import_node(central, MAC, state="active")
    await site.synced()
    answer = await site.machine.patch(f"/api/v1/nodes/{node['id']}/state", json={"state": "installed"})
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "illegal_edge"
    answer = await site.machine.post(f"/api/v1/nodes/{node['id']}/event", json={"event": "install_complete"})
    assert answer.status_code == 200
    assert answer.json()["edge"] == "refused"
    assert [e["event"] for e in await central.events(MAC)] == ["install_complete"]
    assert (await central.node(MAC))["state"] == "active"


async def test_a_central_that_hangs_delays_one_write_and_no_other(
    central: RunningCentral, hasty_site: RunningAgent
) -> None:
    site = hasty_site
    await import_node(central, MAC, state="installed")
    await site.synced()
    site.wan.state = "hangs"
    began = time.monotonic()
    first = await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
    assert first.status_code == 202
    assert time.monotonic() - began < 1.5
    began = time.monotonic()
    later = [await site.machine.post("/api/v1/report", json={"mac": MAC, "event": f"e{i}"}) for i in range(10)]
    assert {answer.status_code for answer in later} == {202}
    assert time.monotonic() - began < 3  # each of them waiting would be five
    await site.restore()
    await site.until(lambda: site.agent.sync_queue.pending_count == 0, "drained")
    assert [e["event"] for e in await central.events(MAC)] == ["first_boot", *(f"e{i}" for i in range(10))]


async def test_a_machine_first_seen_offline_is_one_node_with_the_one_central_has(
    central: RunningCentral, site: RunningAgent
) -> None:
    await site.cut()
    local = (await site.machine.post("/api/v1/nodes/register", json={"mac": MAC})).json()
    await site.machine.post(f"/api/v1/nodes/{local['id']}/event", json={"event": "heartbeat"})
    node = await import_node(central, MAC, state="active")
    assert node["id"] != local["id"]
    await site.restore()
    await site.synced()
    assert "State: active" in await site.script(MAC)
    assert [e["event"] for e in await central.events(MAC)] == ["heartbeat"]
    resolved = (await site.machine.get(f"/api/v1/nodes/{local['id']}")).json()
    assert resolved["id"] == node["id"]


@pytest.mark.parametrize("resolution", ["keep_local", "keep_central"])
async def test_what_both_sides_changed_is_a_conflict_that_a_person_settles(
    central: RunningCentral, site: RunningAgent, resolution: str
) -> None:
    await central.ask("PATCH", "/sites/attic", json={"conflict_resolution": "manual"})
    node = await import_node(central, MAC, state="installed")
    await site.synced()
    await site.cut()
    await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
    await central.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "reprovision"})
    await site.restore()
    await site.synced()

    (conflict,) = (await central.ask("GET", "/sites/attic/conflicts"))["items"]
    assert (conflict["local_state"], conflict["central_state"]) == ("active", "reprovision")
    assert (await site.health())["conflicts_pending"] == 1
    assert "Site and central disagree" in await site.script(MAC)

    await central.ask("POST", f"/sites/attic/conflicts/{conflict['id']}/resolve", json={"resolution": resolution})
    await site.synced()
    assert (await site.health())["conflicts_pending"] == 0
    expected = "active" if resolution == "keep_local" else "reprovision"
    assert (await central.node(MAC))["state"] == expected
    local = (await site.machine.get(f"/api/v1/nodes/{node['id']}")).json()
    assert local["state"] == expected


@pytest.mark.parametrize("resolution", ["keep_local", "keep_central", "merge"])
async def test_a_conflict_is_settled_at_the_site_while_the_wan_is_cut(
    central: RunningCentral, site: RunningAgent, resolution: str
) -> None:
    await central.ask("PATCH", "/sites/attic", json={"conflict_resolution": "manual"})
    node = await import_node(central, MAC, state="installed")
    await site.synced()
    await site.cut()
    await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
    await central.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "reprovision"})
    await site.restore()
    await site.synced()
    await site.cut()
    (conflict,) = (await site.person.get("/api/v1/agent/conflicts")).json()["items"]

    path = f"/api/v1/agent/conflicts/{conflict['id']}/resolve"
    assert (await site.person.post(path, json={"resolution": resolution, "coment": "I looked"})).status_code == 422
    decided = await site.person.post(path, json={"resolution": resolution, "person": "Ada", "comment": "I looked"})
    assert (decided.status_code, decided.json()["status"], decided.json()["offline"]) == (202, "queued", True)
    (conflict,) = (await site.person.get("/api/v1/agent/conflicts")).json()["items"]
    assert (conflict["resolved"], conflict["resolution"]) == (False, resolution)
    assert "Site and central disagree" in await site.script(MAC)

    await site.restore()
    await site.synced()
    assert (await site.health())["conflicts_pending"] == 0
    expected = "active" if resolution == "keep_local" else "reprovision"
    local = (await site.machine.get(f"/api/v1/nodes/{node['id']}")).json()
    assert ((await central.node(MAC))["state"], local["state"]) == (expected, expected)
    (conflict,) = (await central.ask("GET", "/conflicts", params={"status": "resolved"}))["items"]
    assert (conflict["resolved_by"], conflict["comment"]) == ("Ada at attic", "I looked")
    for status in ("resolved", "all"):
        listed = await site.person.get("/api/v1/agent/conflicts", params={"status": status})
        (seen,) = listed.json()["items"]
        shared = ("id", "node_id", "base_state", "local_chain", "strategy", "status", "resolved_by", "resolved_at")
        assert {name: seen[name] for name in shared} == {name: conflict[name] for name in shared}
    assert (await site.person.get("/api/v1/agent/conflicts")).json()["items"] == []
    assert (await site.person.get("/api/v1/agent/conflicts", params={"status": "x"})).status_code == 422


async def test_who_is_too_late_at_the_site_sees_why(central: RunningCentral, site: RunningAgent) -> None:
    await central.ask("PATCH", "/sites/attic", json={"conflict_resolution": "manual"})
    node = await import_node(central, MAC, state="installed")
    await site.synced()
    await site.cut()
    await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
    await central.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "reprovision"})
    await site.restore()
    await site.synced()
    await site.cut()
    (conflict,) = (await site.person.get("/api/v1/agent/conflicts")).json()["items"]
    path = f"conflicts/{conflict['id']}/resolve"
    await site.person.post(f"/api/v1/agent/{path}", json={"resolution": "keep_local"})
    await central.ask("POST", f"/sites/attic/{path}", json={"resolution": "keep_central"})
    await site.restore()
    await site.synced()
    (failed,) = (await site.person.get("/api/v1/agent/queue")).json()["items"]
    assert failed["status"] == "failed"
    assert "already_resolved: admin decided keep_central meanwhile." in failed["last_error"]
    assert (await site.health())["conflicts_pending"] == 0


async def test_a_decision_at_the_site_that_central_can_hear_counts_at_once(
    central: RunningCentral, site: RunningAgent
) -> None:
    await central.ask("PATCH", "/sites/attic", json={"conflict_resolution": "manual"})
    node = await import_node(central, MAC, state="installed")
    await site.synced()
    await site.cut()
    await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
    await central.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "reprovision"})
    await site.restore()
    await site.synced()
    (conflict,) = (await site.person.get("/api/v1/agent/conflicts")).json()["items"]
    path = f"/api/v1/agent/conflicts/{conflict['id']}/resolve"
    decided = await site.person.post(path, json={"resolution": "keep_local"})
    assert (decided.status_code, decided.json()["status"]) == (200, "applied")
    undo = f"/sites/attic/conflicts/{conflict['id']}/undo"
    await central.ask("POST", undo, json={})
    await site.synced()
    assert (await site.health())["conflicts_pending"] == 1
    assert "Site and central disagree" in await site.script(MAC)


async def test_a_full_site_approves_and_installs_while_the_wan_is_cut(
    central: RunningCentral, site: RunningAgent
) -> None:
    await central.ask("PATCH", "/sites/attic", json={"autonomy_level": "full"})
    await kernel_workflow(central)
    node = await import_node(central, MAC, state="discovered")
    await central.ask("PATCH", f"/nodes/{node['id']}", json={"workflow_id": "debian"})
    await site.synced()
    await site.cut()
    assert "waits to be approved" in await site.script(MAC)
    path = f"/api/v1/agent/nodes/{node['id']}/state"
    approved = await site.person.post(path, json={"state": "pending", "person": "Ada", "comment": "needed today"})
    assert (approved.status_code, approved.json()["state"]) == (202, "pending")
    assert (await site.person.post(path, json={"state": "retired"})).status_code == 403
    assert "State: installing" in await site.script(MAC)
    await site.restore()
    await site.synced()
    steps = [(row["from_state"], row["to_state"], row["comment"]) for row in await central.history(MAC)]
    assert steps[0] == ("discovered", "pending", "Ada: needed today")
    assert (await central.node(MAC))["state"] == "installing"


@pytest.mark.parametrize("level", ["readonly", "limited"])
async def test_a_level_set_at_central_is_in_force_at_the_site_by_the_feed(
    central: RunningCentral, site: RunningAgent, level: str
) -> None:
    node = await import_node(central, MAC, state="discovered")
    path = f"/api/v1/agent/nodes/{node['id']}/state"
    await central.ask("PATCH", "/sites/attic", json={"autonomy_level": "full"})
    await site.synced()
    await central.ask("PATCH", "/sites/attic", json={"autonomy_level": level})
    await site.until(lambda: site.agent.site.autonomy == level, "told")
    refused = await site.person.post(path, json={"state": "pending"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "autonomy")
    assert f"This site is {level}" in refused.json()["error"]["message"]


async def test_central_wins_settles_at_once_and_keeps_both_histories(
    central: RunningCentral, site: RunningAgent
) -> None:
    node = await import_node(central, MAC, state="installed")
    await site.synced()
    await site.cut()
    await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
    await central.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "retired"})
    await site.restore()
    await site.synced()
    (conflict,) = (await central.ask("GET", "/sites/attic/conflicts", params={"status": "all"}))["items"]
    assert (conflict["status"], conflict["resolution"]) == ("resolved", "keep_central")
    assert "This node is retired." in await site.script(MAC)
    assert [e["event"] for e in await central.events(MAC)] == ["first_boot"]


async def test_a_node_deleted_at_central_leaves_the_site_and_registers_anew(
    central: RunningCentral, site: RunningAgent
) -> None:
    node = await import_node(central, MAC, state="active")
    await site.synced()
    await central.ask("DELETE", f"/nodes/{node['id']}", 204)
    await site.synced()
    assert (await site.machine.get(f"/api/v1/nodes/{node['id']}")).status_code == 404
    await site.script(MAC)
    await site.synced()
    again = await central.node(MAC)
    assert (again["state"], again["id"] != node["id"]) == ("discovered", True)


class Crowded(httpx2.AsyncBaseTransport):
    """The line to a central that takes no pushes for a while, once it is `full`."""

    def __init__(self, far_end: httpx2.AsyncBaseTransport) -> None:
        self._far_end = far_end
        self.full = False
        self.refused = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if not self.full or not request.url.path.endswith("/sync/push"):
            return await self._far_end.handle_async_request(request)
        self.refused += 1
        body = {"error": {"code": "busy", "message": "Too many at once.", "hint": ""}}
        return httpx2.Response(503, json=body, headers={"Retry-After": "20"})


async def test_a_central_that_asked_for_patience_is_read_and_pushed_to_only_by_hand(
    central: RunningCentral, tmp_path: Path
) -> None:
    await central.new_site("attic")
    await init(central, "attic", tmp_path)
    line = Crowded(central.transport())
    async with running_agent(tmp_path, line, write_confirm_budget=0.1) as site:
        await site.synced()
        line.full = True
        await site.machine.post("/api/v1/nodes/register", json={"mac_address": MAC})
        await site.until(lambda: line.refused == 1, "pushed")
        for number in (1, 2):  # the second is read on a round of its own
            await import_node(central, f"52:54:00:aa:cc:0{number}", state="active")
            await site.until(lambda known=number + 1: site.agent.state_cache.count() == known, "told")  # type: ignore[misc]
        assert line.refused == 1
        await site.agent.sync.sync_now()
        assert line.refused == 2


async def test_a_change_at_central_is_at_the_site_within_two_seconds(
    central: RunningCentral, site: RunningAgent
) -> None:
    began = time.monotonic()
    node = await import_node(central, MAC, state="active")
    await site.until(lambda: site.agent.state_cache.by_id(node["id"]) is not None, "told")
    assert time.monotonic() - began < 2


async def test_an_agent_whose_credential_is_refused_serves_and_keeps_everything(
    central: RunningCentral, site: RunningAgent, tmp_path: Path
) -> None:
    await import_node(central, MAC, state="installed")
    await site.synced()
    await init(central, "attic", tmp_path / "newer")  # a newer registration replaces this agent
    with pytest.raises(Forbidden, match="newer agent"):
        await site.agent.sync.sync_once()
    assert "State: installed" in await site.script(MAC)
    answer = await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
    assert answer.status_code == 200  # what it holds it may still push
    await site.agent.stop()
    async with running_agent(tmp_path / "agent", site.wan) as again:
        await again.until(lambda: bool(again.agent.sync.refused), "told")
        assert "Run `pureboot agent init` again, and restart it;" in (await again.health())["problems"][0]


async def test_a_damaged_file_is_moved_aside_and_the_agent_starts(
    central: RunningCentral, site: RunningAgent, clock: SetClock, tmp_path: Path
) -> None:
    await site.cut()
    await site.machine.post("/api/v1/nodes/register", json={"mac": MAC})
    await site.agent.stop()
    file = tmp_path / "agent" / "state" / "agent.db"
    file.write_bytes(b"nothing of a database is left" * 1000)
    site.wan.state = "up"
    async with running_agent(tmp_path / "agent", site.wan) as again:
        assert "#!ipxe" in await again.script(MAC)
        await again.synced()
        await again.agent.heartbeat.beat()
    [kept] = file.parent.glob("agent.db.damaged-*")
    await central.db.write(lambda conn: look(conn, clock.now()))
    told = {alert["kind"]: alert["message"] for alert in (await central.ask("GET", "/alerts"))["items"]}
    assert kept.name in told["file_damaged"]


async def test_heartbeats_tell_central_how_the_site_is(central: RunningCentral, site: RunningAgent) -> None:
    await site.agent.heartbeat.beat()
    health: dict[str, Any] = await central.ask("GET", "/sites/attic/health")
    assert health["agent_status"] == "online"


def test_a_folder_that_init_has_not_written_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no agent in data_dir"):
        SiteAgent(settings(tmp_path / "empty"))


async def test_a_hundred_machines_report_at_once_and_each_is_at_central_once(
    central: RunningCentral, site: RunningAgent
) -> None:
    macs = [f"52:54:00:00:02:{i:02x}" for i in range(100)]
    await site.cut()
    answers = await asyncio.gather(
        *(site.machine.post("/api/v1/nodes/register", json={"mac": mac, "report_id": "r"}) for mac in macs)
    )
    assert {answer.status_code for answer in answers} == {202}
    await site.restore()
    await site.synced()
    nodes = (await central.ask("GET", "/nodes", params={"limit": 500}))["items"]
    assert sorted(node["mac_address"] for node in nodes) == macs


async def test_an_install_begins_only_when_its_files_have_arrived(central: RunningCentral, site: RunningAgent) -> None:
    """Power that flickers while the kernel is fetched burns no attempt."""
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    machine = Machine(site, MAC)
    for _ in range(3):
        script = await site.script(MAC)
        url = next(word for word in script.split() if "images/debian/linux" in word)
        assert (await site.machine.get(url)).status_code == 200
        assert "attempt 1" in script
    await machine.boot()
    assert "attempt 2" in await site.script(MAC)


async def test_of_a_report_with_more_than_a_push_could_carry_the_report_is_kept(
    central: RunningCentral, site: RunningAgent
) -> None:
    node = await import_node(central, MAC, state="active")
    await site.synced()
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"a": deep}
    for metadata in ({"text": "x" * 100_000}, deep):
        body = {"mac": MAC, "event": "log", "message": "it failed", "status": "7", "metadata": metadata}
        answer = await site.machine.post("/api/v1/report", json=body)
        said = answer.json()
        assert (answer.status_code, said["node_id"], said["edge"]) == (200, node["id"], None)
    for event in (await central.ask("GET", f"/nodes/{node['id']}/events"))["items"]:
        assert (event["message"], event["metadata"]["status"]) == ("it failed", "7")
        assert event["metadata"]["dropped"].startswith("'metadata' was")


async def test_what_is_no_report_or_too_large_to_be_read_is_refused_before_it_is_queued(
    central: RunningCentral, site: RunningAgent
) -> None:
    await import_node(central, MAC, state="active")
    await site.synced()
    assert (await site.machine.post("/api/v1/report", content=b"[" * 10_000)).status_code == 400
    assert (await site.machine.post("/api/v1/report", content=b"x" * 300 * 1024)).status_code == 413
    assert site.agent.sync_queue.pending_count == 0


async def test_a_form_of_thousands_of_fields_is_refused_before_it_is_taken_apart(
    central: RunningCentral, site: RunningAgent
) -> None:
    await import_node(central, MAC, state="active")
    await site.synced()
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    async def answered(more: int) -> int:
        content = f"mac={MAC}&event=hello" + "&x" * more
        return (await site.machine.post("/api/v1/report", content=content, headers=form)).status_code

    assert await answered(98) == 200
    assert await answered(99) == 400


async def test_a_report_id_written_into_an_installer_serves_every_install(
    central: RunningCentral, site: RunningAgent
) -> None:
    await kernel_workflow(central)
    node = await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    for _ in range(2):
        await site.synced()
        machine = Machine(site, MAC)
        await machine.boot()
        first = await machine.report("install_complete", report_id="done")
        again = await machine.report("install_complete", report_id="done")
        assert (first["state"], again["queue_id"]) == ("installed", first["queue_id"])
        await machine.report("first_boot")
        await central.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "reprovision"})
    states = [step["to_state"] for step in await central.history(MAC)]
    assert states.count("installed") == 2


async def test_a_machines_word_is_no_way_around_the_age_of_its_approval(
    central: RunningCentral, site: RunningAgent
) -> None:
    await central.ask("PATCH", "/sites/attic", json={"offline_install_max_age": 0.2})
    await kernel_workflow(central)
    node = await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    await site.cut()
    await asyncio.sleep(0.3)
    answer = await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "install_started"})
    assert answer.json()["edge"] == "refused"
    answer = await site.machine.patch(f"/api/v1/nodes/{node['id']}/state", json={"state": "installing"})
    assert answer.status_code == 409
    assert "the limit is" in await site.script(MAC)


async def test_a_readonly_site_keeps_a_whole_story_though_nothing_moves_before_central_says_so(
    central: RunningCentral, site: RunningAgent
) -> None:
    await central.ask("PATCH", "/sites/attic", json={"autonomy_level": "readonly"})
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    machine = Machine(site, MAC)
    await machine.boot()
    await site.cut()
    assert (await machine.report("install_complete", 202))["edge"] == "applied"
    assert (await machine.report("first_boot", 202))["edge"] == "applied"
    await site.restore()
    await site.synced()
    assert (await central.node(MAC))["state"] == "active"


async def test_a_long_hostname_is_cut(central: RunningCentral, site: RunningAgent) -> None:
    answer = await site.machine.post("/api/v1/nodes/register", json={"mac": MAC, "hostname": "x" * 300})
    assert answer.status_code == 200
    assert (await central.node(MAC))["hostname"] == "x" * 255


async def test_a_folder_serves_one_agent_of_one_site(
    central: RunningCentral, site: RunningAgent, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="another agent runs"):
        SiteAgent(settings(tmp_path / "agent"))
    await site.agent.stop()
    await central.new_site("cellar")
    await init(central, "cellar", tmp_path / "agent")
    with pytest.raises(SettingsError, match="holds what the agent of site"):
        SiteAgent(settings(tmp_path / "agent"))


@pytest.mark.parametrize(
    "damage",
    ["UPDATE node SET state = 'instblled'", "UPDATE meta SET value = '{' WHERE key = 'site'"],
)
async def test_a_file_whose_content_makes_no_sense_is_set_aside_and_loses_nothing_that_waits(
    central: RunningCentral, site: RunningAgent, tmp_path: Path, damage: str
) -> None:
    await import_node(central, MAC, state="installed")
    await site.synced()
    await site.cut()
    await site.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
    await site.agent.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "agent" / "state" / "agent.db")) as file, file:
        file.execute(damage)
    site.wan.state = "up"
    async with running_agent(tmp_path / "agent", site.wan) as again:
        await again.synced()
        assert (await central.node(MAC))["state"] == "active"
        assert "State: active" in await again.script(MAC)


async def test_a_full_disk_does_not_install_for_ever(central: RunningCentral, site: RunningAgent) -> None:
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    await site.script(MAC)
    store = site.agent.database.store
    await store.write(lambda tx: tx.execute("CREATE TABLE ballast (text TEXT)"))
    pages = store.read_now(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await store.write(lambda tx: tx.execute(f"PRAGMA max_page_count = {pages}"))
    for size in (100_000, 2000, 100, 1):
        await fill(store, size)
    installs = 0
    for _ in range(8):
        if "kernel " in await site.script(MAC):
            installs += 1
            await Machine(site, MAC).boot()
    assert installs <= 3
    assert LOCAL_DISK in await site.script(MAC)


async def fill(store: Store, size: int) -> None:
    with contextlib.suppress(StorageFull):
        while True:
            await store.write(lambda tx: tx.execute("INSERT INTO ballast VALUES (randomblob(?))", [size]))
