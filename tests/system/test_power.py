"""The power of a whole site flickers amid its installs, central dead: machines and agent go down together."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.programs import Pair, running_pair

MACHINES = [f"52:54:00:00:01:{number:02x}" for number in range(100)]
KERNEL = bytes(range(256)) * 256


@pytest.mark.timeout(300)
async def test_a_flicker_amid_a_hundred_installs_burns_no_attempt_and_loses_none(tmp_path: Path) -> None:
    async with running_pair(tmp_path) as pair:
        nodes = await approved(pair)
        await pair.central.kill()
        await pair.until("offline", is_online=False)
        async with lan(pair) as lost:
            first = [asyncio.create_task(boot_and_lose_power(lost, mac, n)) for n, mac in enumerate(MACHINES)]
            await asyncio.wait(first[:40])
            await pair.agent.kill()
            await asyncio.gather(*first, return_exceptions=True)  # whoever asked then got nothing
        await pair.agent.start()
        async with lan(pair) as machine:
            await asyncio.gather(*(install(machine, mac) for mac in MACHINES))

        await pair.central.start()
        await pair.until("drained", within=120, is_online=True, pending_queue_items=0)
        for node in nodes:
            steps = await pair.history(node)
            assert [(step["from_state"], step["to_state"], step["attempt"]) for step in steps] == [
                ("pending", "installing", 1),
                ("installing", "installed", 1),
            ], node


async def approved(pair: Pair) -> list[str]:
    for name in ("linux", "initrd"):
        assert (await pair.admin.put(f"/api/v1/content/images/{name}", content=KERNEL)).is_success
    body = {"name": "debian", "kernel": "images/linux", "initrd": ["images/initrd"]}
    workflow = await pair.ask("POST", "/workflows", json=body)
    node = {"home_site_id": "attic", "state": "pending", "workflow_id": workflow["id"]}
    nodes = [str((await pair.ask("POST", "/nodes", json={"mac_address": mac} | node))["id"]) for mac in MACHINES]
    await pair.caught_up(MACHINES[-1], "pending")
    await pair.holds(2)
    return nodes


async def boot_and_lose_power(machine: httpx2.AsyncClient, mac: str, number: int) -> None:
    """Some have their script, some a part of their kernel, some all of it but no initrd."""
    files, _ = await script(machine, mac, "attempt 1")
    if number % 3 == 1:
        async with machine.stream("GET", files[0]) as answer:
            async for _ in answer.aiter_raw():
                break
    elif number % 3 == 2:
        assert (await machine.get(files[0])).content == KERNEL


async def install(machine: httpx2.AsyncClient, mac: str) -> None:
    files, token = await script(machine, mac, "attempt 1")
    for file in files:
        assert (await machine.get(file)).content == KERNEL
    body = {"mac": mac, "event": "install_complete", "boot_token": token}
    assert (await machine.post("/api/v1/report", json=body)).status_code == 202
    assert "Cached State: installed" in (await machine.get(f"/boot/{mac}")).text


async def script(machine: httpx2.AsyncClient, mac: str, says: str) -> tuple[list[str], str]:
    text = (await machine.get(f"/boot/{mac}")).text
    assert says in text
    files: list[Any] = re.findall(r"^(?:kernel|initrd) .*?(http\S+/files/\S+)", text, re.MULTILINE)
    assert len(files) == 2
    return files, re.findall(r"pureboot\.token=(\S+)", text)[0]


def lan(pair: Pair) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{pair.agent.port}", timeout=60, limits=httpx2.Limits())
