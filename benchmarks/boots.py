"""How fast boot scripts are given out while central is gone: `.venv/bin/python -m benchmarks.boots`.

Real processes on loopback. A site knows so many nodes, central is dead, and 64 clients ask for their scripts, each node
in turn with its hardware facts; before and after, the same load on uvicorn with an application that does nothing. Then
the same where each machine is in the middle of an install, which looks at its files and renders a script of its own.
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

import uvloop

from benchmarks.load import CLIENTS, Load, put_load, request
from benchmarks.machine import describe
from benchmarks.outbox import bare_server, resident
from tests.support.programs import Pair, running_pair

FACTS = (
    "uuid=11223344-5566-7788-99aa-bbccddeeff00&serial.hex=43343259&manufacturer.hex=44656c6c20496e632e"
    "&product.hex=506f7765724564676520523635302078&platform=pcbios&buildarch=i386"
)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--boots", type=int, default=40_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        print(describe(Path(name)))
        async with running_pair(Path(name)) as pair:
            began = resident(pair)
            known = 0
            for count in arguments.nodes:
                await prepare(pair, range(known, count), "active")
                known = count
                await measure(pair, range(count), arguments.boots)
                print(f"memory   {resident(pair):8.1f} MB, {began:.1f} when it began")
            installing = range(known, known + 100)
            await prepare(pair, installing, "pending")
            await measure(pair, installing, arguments.boots // 10)


async def prepare(pair: Pair, numbers: range, state: str) -> None:
    """Central knows the nodes, the site does, and central is dead."""
    await pair.central.kill()
    await pair.central.start()
    workflow = await _workflow(pair, state)
    body = {"home_site_id": "attic", "state": state, "workflow_id": workflow}
    token = f"Authorization: Bearer {pair.central.token}\r\n".encode()
    imports = [request("POST", "/api/v1/nodes", json.dumps(body | {"mac_address": mac(n)}).encode()) for n in numbers]
    await put_load(pair.central.port, [_with(each, token) for each in imports], 201)
    await pair.caught_up(mac(numbers[-1]), state)
    if workflow:
        await pair.holds(2)
    await pair.central.kill()
    await pair.until("offline", is_online=False)


async def _workflow(pair: Pair, state: str) -> str | None:
    if state != "pending":
        return None
    for name in ("linux", "initrd"):
        await pair.ask("PUT", f"/content/images/{name}", content=name.encode())
    body = {"name": "debian", "kernel": "images/linux", "initrd": ["images/initrd"], "cmdline": "n={{ node.hostname }}"}
    return str((await pair.ask("POST", "/workflows", json=body))["id"])


def _with(request: bytes, header: bytes) -> bytes:
    first, _, rest = request.partition(b"\r\n")
    return first + b"\r\n" + header + rest


async def measure(pair: Pair, numbers: range, boots: int) -> None:
    machines = [mac(number).replace(":", "-") for number in numbers]
    requests = [request("GET", f"/boot/{machines[n % len(machines)]}?{FACTS}") for n in range(boots)]
    script = await pair.machine.get(f"/boot/{mac(numbers[0])}")
    async with bare_server(str(len(script.content))) as port:
        before = await put_load(port, requests, 200)
        load = await put_load(pair.agent.port, requests, 200)
        after = await put_load(port, requests, 200)
    what = "disks" if "Proceeding with local disk" in script.text else "installs"
    print(f"bare     {before}")
    print(f"{what:8} {load}   ({len(numbers)} nodes, {boots} boots, {CLIENTS} clients)")
    print(f"bare     {after}")
    print(f"         {load.rate / _mean(before, after):8.3f} of uvicorn alone")


def _mean(before: Load, after: Load) -> float:
    return (before.rate + after.rate) / 2


def mac(number: int) -> str:
    return f"52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
