"""A site through an outage, with real processes, SIGSTOP and kill -9."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.programs import Pair, running_pair

pytestmark = pytest.mark.timeout(240)

MAC = "52:54:00:aa:bb:01"
# What a boot may take while central hangs. The decision itself has one second; the rest is a machine that is busy.
LONGEST_BOOT = 2.5


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with running_pair(tmp_path) as pair:
        yield pair


async def test_a_central_that_hangs_fails_no_boot_and_loses_no_write(pair: Pair) -> None:
    macs = [f"52:54:00:00:00:{i:02x}" for i in range(10)]
    nodes = [await pair.import_node(mac, "installed") for mac in macs]
    await pair.caught_up(macs[-1], "installed")

    pair.central.signal(signal.SIGSTOP)
    slowest = 0.0
    while (await pair.health())["is_online"]:
        for mac in macs:
            began = time.monotonic()
            answer = await pair.machine.get(f"/boot/{mac}")
            slowest = max(slowest, time.monotonic() - began)
            assert answer.status_code == 200
            assert "sanboot --no-describe --drive 0x80 || exit 1" in answer.text
    assert slowest < LONGEST_BOOT

    script = (await pair.machine.get(f"/boot/{macs[0]}")).text
    assert "OFFLINE MODE" in script

    answers = [await pair.machine.post("/api/v1/report", json={"mac": mac, "event": "first_boot"}) for mac in macs]
    assert {answer.status_code for answer in answers} == {202}

    pair.central.signal(signal.SIGCONT)
    await pair.until("drained", is_online=True, pending_queue_items=0)
    for node, answer in zip(nodes, answers, strict=True):
        steps = await pair.history(node["id"])
        assert [step["to_state"] for step in steps if step["item_id"] == answer.json()["queue_id"]] == ["active"]


async def test_a_change_at_central_is_at_the_site_at_once(
    pair: Pair, record_property: Callable[[str, object], None]
) -> None:
    """By the long poll: its end, after 25 s, brings nothing here. The aim is two seconds; a busy machine has more."""
    node = await pair.import_node(MAC, "installed")
    await pair.caught_up(MAC, "installed")
    times = []
    for name in ("a", "b", "c", "d", "e"):
        began = time.monotonic()
        await pair.ask("PATCH", f"/nodes/{node['id']}", json={"hostname": name})
        async with asyncio.timeout(20):
            while (await pair.machine.get(f"/api/v1/nodes/{node['id']}")).json()["hostname"] != name:
                await asyncio.sleep(0.01)
        times.append(time.monotonic() - began)
    record_property("from central to the site, in seconds", [round(seconds, 3) for seconds in times])
    assert min(times) < 2
    assert max(times) < 12


async def test_writes_in_the_first_second_of_a_hang_are_answered_in_time(pair: Pair) -> None:
    node = await pair.import_node(MAC, "installed")
    await pair.caught_up(MAC, "installed")
    pair.central.signal(signal.SIGSTOP)

    async def timed(call: int) -> tuple[int, float]:
        began = time.monotonic()
        answer = await pair.machine.post(f"/api/v1/nodes/{node['id']}/event", json={"event": f"e{call}"})
        return answer.status_code, time.monotonic() - began

    results = await asyncio.gather(*(timed(call) for call in range(20)))
    unknown = await pair.machine.get("/boot/52-54-00-00-99-01")
    assert {status for status, _ in results} == {202}
    assert max(seconds for _, seconds in results) < LONGEST_BOOT
    assert unknown.text.startswith("#!ipxe")

    pair.central.signal(signal.SIGCONT)
    await pair.until("drained", is_online=True, pending_queue_items=0)
    events = (await pair.ask("GET", f"/nodes/{node['id']}/events"))["items"]
    assert sorted(event["event"] for event in events) == sorted(f"e{call}" for call in range(20))


async def test_a_write_survives_kill_9_of_the_agent_and_reaches_central_once(
    pair: Pair, record_property: Callable[[str, object], None]
) -> None:
    node = await pair.import_node(MAC, "installed")
    await pair.caught_up(MAC, "installed")
    await pair.central.kill()
    await pair.until("offline", is_online=False)

    answer = await pair.machine.post("/api/v1/report", json={"mac": MAC, "event": "first_boot"})
    await pair.agent.kill()
    assert answer.status_code == 202

    began = time.monotonic()
    await pair.agent.start()
    script = (await pair.machine.get(f"/boot/{MAC}")).text
    record_property("start to first script, central dead, in seconds", f"{time.monotonic() - began:.2f}")
    assert "# Cached State: active" in script
    assert "OFFLINE MODE" in script
    assert (await pair.health())["pending_queue_items"] == 2

    await pair.central.start()
    await pair.until("drained", is_online=True, pending_queue_items=0)
    steps = await pair.history(node["id"])
    assert [step["to_state"] for step in steps if step["item_id"] == answer.json()["queue_id"]] == ["active"]
    assert [step["to_state"] for step in steps] == ["active"]
    events = (await pair.ask("GET", f"/nodes/{node['id']}/events"))["items"]
    assert [event["event"] for event in events if event["event"] != "boot_started"] == ["first_boot"]


async def test_central_killed_while_the_queue_drains_gets_everything_once_and_in_order(pair: Pair) -> None:
    node = await pair.import_node(MAC, "active")
    await pair.caught_up(MAC, "active")
    await pair.central.kill()
    await pair.until("offline", is_online=False)
    for number in range(300):
        answer = await pair.machine.post(f"/api/v1/nodes/{node['id']}/event", json={"event": f"e{number:03}"})
        assert answer.status_code == 202
    for _ in range(5):
        await pair.central.start()
        await asyncio.sleep(0.15)
        await pair.central.kill()
    await pair.central.start()
    await pair.until("drained", is_online=True, pending_queue_items=0)
    events = (await pair.ask("GET", f"/nodes/{node['id']}/events", params={"limit": 500}))["items"]
    assert [event["event"] for event in events] == [f"e{number:03}" for number in range(300)]


@pytest.mark.parametrize("level", ["limited", "full", "readonly"])
async def test_an_approved_machine_reinstalls_as_its_site_may(tmp_path: Path, level: str) -> None:
    async with running_pair(tmp_path, autonomy_level=level) as pair:
        await pair.approve(MAC)
        await pair.caught_up(MAC, "pending")
        await pair.holds(2)
        await pair.central.kill()
        await pair.until("offline", is_online=False)

        script = (await pair.machine.get(f"/boot/{MAC}")).text
        if level == "readonly":
            assert "may start none without central (readonly)" in script
            assert "sanboot --no-describe --drive 0x80 || exit 1" in script
            assert "kernel " not in script
            return
        urls = [word for word in script.split() if "/files/" in word]
        bodies = [(await pair.machine.get(url)).content for url in urls]
        assert bodies == [f"{name} for {MAC}".encode() for name in ("linux", "initrd")]
        assert all(url.startswith(pair.agent.url) for url in urls)
