"""The boot service over the offline generator: the same path online and offline (user's contract, task 6)."""

import asyncio
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from pureboot.agent.clock import Stamp, SystemClock
from tests.support.agent import RunningAgent, init, running_agent
from tests.support.central import RunningCentral
from tests.support.machines import MAC, Machine, approve, import_node, kernel_workflow
from tests.support.parts import OTHER_MAC
from tests.support.wan import Wan

LOCAL_DISK = "sanboot --no-describe --drive 0x80 || exit 1"


async def test_boot_uses_offline_generator(central: RunningCentral, site: RunningAgent) -> None:
    await import_node(central, MAC, state="active")
    await site.synced()
    await site.cut()
    script = await site.script(MAC)
    assert script.startswith("#!ipxe\n# PureBoot Agent - OFFLINE MODE\n# MAC: 52:54:00:aa:bb:01\n# Site: attic\n")
    assert "# Cached State: active" in script
    assert script.rstrip().endswith(LOCAL_DISK)


async def test_boot_falls_back_when_central_unreachable(central: RunningCentral, hasty_site: RunningAgent) -> None:
    """An unknown machine while central hangs and nobody has called it offline yet: answered inside the budget, and only
    the first of them pays it."""
    site = hasty_site
    await import_node(central, MAC, state="active")
    await site.synced()
    site.wan.state = "hangs"
    began = time.monotonic()
    first = await site.script("52:54:00:00:00:01")
    paid = time.monotonic() - began
    began = time.monotonic()
    scripts = [await site.script(f"52:54:00:00:01:{i:02x}") for i in range(20)]
    known = await site.script(MAC)
    rest = time.monotonic() - began
    assert all(script.startswith("#!ipxe") and LOCAL_DISK in script for script in [first, *scripts, known])
    assert paid < 1.5
    assert rest < 10 * paid  # each of them waiting would be twenty times


async def test_boot_includes_offline_indicator(site: RunningAgent) -> None:
    await site.cut()
    assert "echo *** PureBoot Site Agent - OFFLINE ***" in await site.script(MAC)
    await site.restore()
    assert "OFFLINE" not in await site.script(MAC)


@pytest.mark.parametrize("level", ["limited", "full"])
async def test_an_approved_machine_is_installed_while_central_is_dead(
    central: RunningCentral, site: RunningAgent, level: str
) -> None:
    await central.ask("PATCH", "/sites/attic", json={"autonomy_level": level})
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    await site.cut()

    machine = Machine(site, MAC)
    install = await machine.boot()
    assert install.kernel == b"kernel of debian"
    assert install.initrds == [b"initrd of debian"]
    await machine.report("install_complete", 202)
    assert "# Cached State: installed" in await site.script(MAC)

    await site.restore()
    await site.synced()
    history = await central.history(MAC)
    assert [(h["from_state"], h["to_state"], h["attempt"], h["triggered_by"]) for h in history[-2:]] == [
        ("pending", "installing", 1, "system"),
        ("installing", "installed", 1, "node"),
    ]


async def test_a_readonly_site_boots_the_disk_and_says_why(central: RunningCentral, site: RunningAgent) -> None:
    await central.ask("PATCH", "/sites/attic", json={"autonomy_level": "readonly"})
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    await site.cut()
    script = await site.script(MAC)
    assert "may start none without central (readonly)" in script
    assert LOCAL_DISK in script
    assert "kernel " not in script

    await site.restore()
    assert "kernel " in await site.script(MAC)
    assert (await central.node(MAC))["state"] == "installing"


async def test_content_that_is_missing_keeps_an_offline_install_from_starting(
    central: RunningCentral, site: RunningAgent
) -> None:
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    await site.cut()
    assert await site.agent.content_cache.evict("images/debian/linux")
    script = await site.script(MAC)
    assert "content is missing here: images/debian/linux" in script
    assert LOCAL_DISK in script


@pytest.mark.parametrize("change", ["overwritten", "rotten"])
async def test_content_that_is_no_longer_what_was_verified_is_not_installed_from_and_not_served(
    central: RunningCentral, site: RunningAgent, change: str
) -> None:
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    await site.cut()
    kernel = next(file for file in site.agent.content_cache.files() if file.name == "images/debian/linux")
    before = kernel.path.stat()
    kernel.path.write_bytes(kernel.path.read_bytes().swapcase())
    if change == "rotten":  # which only reading it again finds
        os.utime(kernel.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        site.agent.verifier.begin_round()
        while await site.agent.verifier.verify_next():
            pass
    script = await site.script(MAC)
    assert "content is missing here: images/debian/linux" in script
    assert LOCAL_DISK in script
    assert (await site.machine.get("/files/images/debian/linux")).status_code == 503


async def test_an_approval_older_than_the_limit_does_not_install_offline(
    central: RunningCentral, site: RunningAgent
) -> None:
    await central.ask("PATCH", "/sites/attic", json={"offline_install_max_age": 0.2})
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    await site.cut()
    await asyncio.sleep(0.3)
    assert "the limit is" in await site.script(MAC)


@pytest.mark.parametrize(
    ("path", "body"), [("nodes/register", {}), ("report", {"event": "fan_failed"})], ids=["facts", "failures"]
)
async def test_one_machine_that_says_ever_new_things_keeps_no_other_from_its_install(
    central: RunningCentral, tmp_path: Path, path: str, body: dict[str, str]
) -> None:
    await central.new_site("attic")
    await init(central, "attic", tmp_path / "agent")
    async with running_agent(tmp_path / "agent", central.transport(), queue_max_items=200) as site:
        await kernel_workflow(central)
        await import_node(central, OTHER_MAC, state="active")
        await import_node(central, MAC, state="discovered")
        await approve(central, MAC, "debian")
        await site.synced()
        await site.cut()
        codes: Counter[tuple[int, str | None]] = Counter()
        for n in range(210):
            said = {"mac": OTHER_MAC, "serial_number": f"{n}"} | body
            answer = await site.machine.post(f"/api/v1/{path}", json=said)
            codes[answer.status_code, answer.headers.get("Retry-After")] += 1
        machine = Machine(site, MAC)
        await machine.boot()
        await machine.report("install_complete", 202)
        assert "only changes of state are taken" in await site.script("52:54:00:aa:bb:03")
        assert set(codes) == {(202, None), (507, "60")}


class FeedWithheld(httpx2.AsyncBaseTransport):
    """Central answers everything but what changed, while `withheld`."""

    def __init__(self, central: httpx2.AsyncBaseTransport) -> None:
        self._central = central
        self.withheld = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.withheld and request.url.path.endswith("/sync/changes"):
            return httpx2.Response(503, json={"error": {"code": "busy", "message": "Later."}})
        return await self._central.handle_async_request(request)


async def test_an_approval_withdrawn_during_an_outage_installs_nothing_before_the_feed_has_told_of_it(
    central: RunningCentral, tmp_path: Path
) -> None:
    """The line is back, and central says that it is well."""
    await central.new_site("attic")
    await init(central, "attic", tmp_path / "agent")
    line = FeedWithheld(central.transport())
    async with running_agent(
        tmp_path / "agent", Wan(line), stale_after=0.2, offline_install_max_age=0.2, queue_retry_delay=60
    ) as site:
        workflow = await kernel_workflow(central)
        node = await import_node(central, MAC, state="active")
        await central.ask("PATCH", f"/nodes/{node['id']}", json={"workflow_id": workflow["id"]})
        await central.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "reprovision"})
        await site.synced()
        await site.cut()
        withdrawn = {"state": "active", "force": True, "comment": "withdrawn"}
        await central.ask("PATCH", f"/nodes/{node['id']}/state", json=withdrawn)
        line.withheld = True
        await asyncio.sleep(0.3)
        await site.restore()
        script = await site.script(MAC)
        assert "the limit is" in script
        assert script.rstrip().endswith(LOCAL_DISK)
        line.withheld = False
        await site.agent.sync.sync_now()
        assert "# Cached State: active" in await site.script(MAC)


class HoursLater(SystemClock):
    """As this host's, three hours on."""

    def stamp(self) -> Stamp:
        now = super().stamp()
        return replace(now, wall=now.wall + 3 * 3600, boottime=now.boottime + 3 * 3600)


async def test_a_feed_that_cannot_be_read_is_a_problem_until_it_is(central: RunningCentral, tmp_path: Path) -> None:
    await central.new_site("attic")
    await init(central, "attic", tmp_path / "agent")
    line = FeedWithheld(central.transport())
    async with running_agent(tmp_path / "agent", Wan(line), stale_after=300, queue_retry_delay=60) as site:
        await site.synced()
        assert (await site.health())["problems"] == []
        line.withheld = True
        await import_node(central, MAC, state="active")
        await site.until(lambda: site.agent.sync.stumble == "Later.", "told why")
        site.agent.site.clock = HoursLater()
        health = await site.health()
        problem = "Central answers, but its feed has not been read to its end for 3.0 h: Later."
        assert (health["status"], health["problems"]) == ("degraded", [problem])
        assert problem in (await site.person.get("/")).text
        line.withheld = False
        await site.agent.sync.sync_now()
        assert (await site.health())["problems"] == []


async def test_asking_twice_or_with_head_begins_one_attempt(central: RunningCentral, site: RunningAgent) -> None:
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    await site.cut()
    assert (await site.machine.head(f"/boot/{MAC}")).status_code == 200
    assert site.agent.sync_queue.pending_count == 0
    scripts = await asyncio.gather(*(site.script(MAC) for _ in range(8)))
    assert len(set(scripts)) == 1
    assert "install of debian, attempt 1" in scripts[0]
    assert site.agent.sync_queue.pending_count == 1


async def test_a_machine_that_comes_back_unfinished_starts_over_three_times_at_most(
    central: RunningCentral, site: RunningAgent
) -> None:
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    await site.cut()
    machine = Machine(site, MAC)
    for attempt in (1, 2, 3):
        assert f"attempt {attempt}" in (await machine.boot()).script
    script = await site.script(MAC)
    assert "# Cached State: install_failed" in script
    assert LOCAL_DISK in script
    await site.restore()
    await site.synced()
    steps = [(h["from_state"], h["to_state"], h["attempt"]) for h in await central.history(MAC)]
    assert steps[-4:] == [
        ("pending", "installing", 1),
        ("installing", "installing", 2),
        ("installing", "installing", 3),
        ("installing", "install_failed", 3),
    ]


async def test_reports_of_an_install_in_progress_need_its_boot_token(
    central: RunningCentral, site: RunningAgent
) -> None:
    await kernel_workflow(central)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "debian")
    await site.synced()
    await Machine(site, MAC).boot()
    body = {"mac": MAC, "event": "install_complete"}
    for token in ({}, {"boot_token": "guessed"}):
        answer = await site.machine.post("/api/v1/report", json=body | token)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "wrong_boot_token"
    await site.synced()
    assert (await central.node(MAC))["state"] == "installing"


async def test_the_agent_starts_and_boots_machines_with_central_dead(
    central: RunningCentral, site: RunningAgent, tmp_path: Path
) -> None:
    await import_node(central, MAC, state="active")
    await site.synced()
    await site.agent.stop()
    site.wan.state = "down"
    async with running_agent(tmp_path / "agent", site.wan) as again:
        script = await again.script(MAC)
        assert "# Cached State: active" in script
        assert "Offline Since: 20" in script


async def test_an_install_whose_content_nobody_has_boots_the_disk_and_says_so(
    central: RunningCentral, site: RunningAgent
) -> None:
    body = {"name": "slip", "kernel": "images/none", "initrd": ["images/neither"]}
    await central.ask("POST", "/workflows", 201, json=body)
    await import_node(central, MAC, state="discovered")
    await approve(central, MAC, "slip")
    await site.synced()
    script = await site.script(MAC)
    assert "central has no content images/none and 1 more" in script
    assert LOCAL_DISK in script
    for name in ("none", "neither"):
        await central.admin.put(f"/api/v1/content/images/{name}", content=b"here now")
    await site.synced()
    assert "kernel " in await site.script(MAC)


async def test_the_local_boot_method_travels_from_central_to_the_machine(
    central: RunningCentral, site: RunningAgent
) -> None:
    node = await import_node(central, MAC, state="active")
    await central.ask("PATCH", "/sites/attic", json={"local_boot": "exit"})
    await site.synced()
    assert (await site.script(MAC)).endswith("\nexit 1\n")
    assert (await site.machine.get("/boot.ipxe")).text.endswith("\nexit 1\n")

    await central.ask("PATCH", f"/nodes/{node['id']}", json={"local_boot": "http-404"})
    await site.synced()
    await site.cut()
    for method in ("GET", "HEAD"):
        assert (await site.machine.request(method, f"/boot/{MAC}")).status_code == 404
    entry = await site.machine.get("/boot.ipxe")
    assert (entry.status_code, entry.text[:7]) == (200, "#!ipxe\n")


@pytest.mark.parametrize("state", ["up", "down"])
async def test_a_boot_address_answers_200_with_a_script_or_not_with_200(
    central: RunningCentral, site: RunningAgent, state: str
) -> None:
    """Firmware runs whatever it gets."""
    await kernel_workflow(central)
    for mac, its in ((MAC, "active"), (OTHER_MAC, "discovered")):
        await import_node(central, mac, state=its)
    await approve(central, OTHER_MAC, "debian")
    quiet = await import_node(central, "52:54:00:aa:bb:03", state="active")
    await central.ask("PATCH", f"/nodes/{quiet['id']}", json={"local_boot": "http-404"})
    await site.synced()
    if state == "down":
        await site.cut()
    macs = [
        MAC,
        OTHER_MAC,
        OTHER_MAC,
        "52:54:00:aa:bb:03",
        "52:54:00:00:00:09",
        "525400AABB01",
        "nobody",
        "%00",
        "",
        "%2e%2e",
    ]
    paths = [prefix + mac for mac in macs for prefix in ("/boot/", "/api/v1/boot?mac=")]
    codes = []
    for path in (
        "/boot.ipxe",
        "/api/v1/boot",
        "/boot",
        f"/boot/{MAC}/",
        f"/boot/{MAC}?product=%ff%00{'x' * 5000}",
        *paths,
    ):
        answer = await site.machine.get(path)
        assert answer.status_code != 200 or answer.text.startswith("#!ipxe\n"), path
        codes.append(answer.status_code)
    assert {200, 400, 404} <= set(codes)


async def test_what_goes_wrong_is_a_script_by_the_sites_method(
    central: RunningCentral, site: RunningAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await central.ask("PATCH", "/sites/attic", json={"local_boot": "http-404"})
    await site.synced()
    monkeypatch.setattr(site.agent.offline_generator, "generate_script", None)
    answer = await site.machine.get(f"/boot/{MAC}")
    assert (answer.status_code, answer.text.splitlines()[-1]) == (200, "exit 1")
