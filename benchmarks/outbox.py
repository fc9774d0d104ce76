"""How fast reports are accepted and delivered: `.venv/bin/python -m benchmarks.outbox`.

Real processes on loopback, all on the same cores. With central dead, 64 clients post events to the agent, each distinct
and durable before its answer; then central starts, and the outbox drains into it. Beside it, before and after, the
same load on a server that does nothing: that shows what the machine gave at the time.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvloop

from benchmarks.load import CLIENTS, Load, put_load, request
from benchmarks.machine import describe
from pureboot.simulator.program import free_port
from tests.support.postgres import running_postgres
from tests.support.programs import Pair, running_pair

# Housekeeping looks once a minute whether the file can shrink.
SHRINKS_WITHIN = 90.0


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=20_000)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite", help="central's")
    parser.add_argument(
        "--shrink", action="store_true", help="keep 1 MB of what was settled; wait for the file to shrink"
    )
    parser.add_argument("--no-drain", action="store_true", help="accept only")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name, database(arguments.database) as url:
        folder = Path(name)
        print(describe(folder))
        # Room for all of them: a crowded outbox would only count progress, and is measured by nobody.
        room = {"PUREBOOT_AGENT__QUEUE_MAX_ITEMS": str(2 * arguments.writes)}
        if arguments.shrink:
            room["PUREBOOT_AGENT__SENT_MAX_BYTES"] = str(10**6)
        async with running_pair(folder, database_url=url, settings=room) as pair:
            nodes = await prepare(pair, arguments.nodes)
            await accept(pair, nodes, arguments.writes)
            if not arguments.no_drain:
                await drain(pair, arguments.shrink)


async def prepare(pair: Pair, count: int) -> list[str]:
    """The ids of nodes that both sides know; and central is dead."""
    macs = [f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}" for number in range(count)]
    nodes = [(await pair.import_node(mac, "active"))["id"] for mac in macs]
    await pair.caught_up(macs[-1], "active")
    await pair.central.kill()
    await pair.until("offline", is_online=False)
    return nodes


async def accept(pair: Pair, nodes: list[str], writes: int) -> None:
    requests = [_event(nodes[number % len(nodes)], f"{number} of {writes}") for number in range(writes)]
    idle = resident(pair)
    async with bare_server() as port:
        before = await put_load(port, requests[:10_000], 202)
        spent = cpu(pair.agent.pid)
        load = await put_load(pair.agent.port, requests, 202)
        spent = cpu(pair.agent.pid) - spent
        after = await put_load(port, requests[:10_000], 202)
    print(f"bare     {before}\naccept   {load}   ({writes} writes, {CLIENTS} clients)\nbare     {after}")
    print(f"         {load.rate / _mean(before, after):8.3f} of a server that does nothing")
    print(f"         {spent / writes * 1e6:8.0f} µs of a core for a write")
    print(f"queued   {size(pair):8.1f} MB of file, {resident(pair) - idle:.1f} MB more memory than idle")


def _event(node_id: str, message: str) -> bytes:
    body = json.dumps({"event": "install_progress", "message": message}).encode()
    return request("POST", f"/api/v1/nodes/{node_id}/event", body)


def _mean(before: Load, after: Load) -> float:
    return (before.rate + after.rate) / 2


async def drain(pair: Pair, shrink: bool) -> None:
    waiting = (await pair.health())["pending_queue_items"]
    await pair.central.start()
    while (left := (await pair.health())["pending_queue_items"]) == waiting:
        await asyncio.sleep(0.01)
    began, agent, central = time.monotonic(), cpu(pair.agent.pid), cpu(pair.central.pid)
    await pair.until("drained", within=600, pending_queue_items=0)
    took = time.monotonic() - began
    agent, central = cpu(pair.agent.pid) - agent, cpu(pair.central.pid) - central
    print(f"drain    {left / took:8.0f}/s   ({waiting} items; from the first push on)")
    agent, central = (round(spent / left * 1e6) for spent in (agent, central))
    print(f"         {agent:8} µs of a core for an item at the agent, {central} at central")
    print(f"drained  {size(pair):8.1f} MB of file, of which what was settled is kept for some days")
    if shrink:
        await _shrunk(pair)


async def _shrunk(pair: Pair) -> None:
    began, before = time.monotonic(), size(pair)
    while size(pair) >= before and time.monotonic() - began < SHRINKS_WITHIN:
        await asyncio.sleep(1)
    await asyncio.sleep(5)  # it shrinks bit by bit
    print(f"tidied   {size(pair):8.1f} MB of file")


def size(pair: Pair) -> float:
    """Of the agent's file and its log, in MB."""
    return sum(file.stat().st_size for file in (pair.agent.folder / "state").glob("agent.db*")) / 1e6


def cpu(pid: int) -> float:
    """Seconds of a core that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pair: Pair) -> float:
    """Of the agent, in MB."""
    status = Path(f"/proc/{pair.agent.pid}/status").read_text()
    return next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmRSS"))


@contextlib.asynccontextmanager
async def bare_server(*arguments: str) -> AsyncIterator[int]:
    port = free_port()
    server = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.bare", str(port), *arguments)
    try:
        async with asyncio.timeout(30):
            while not await _listens(port):
                await asyncio.sleep(0.05)
        yield port
    finally:
        server.kill()
        await server.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@contextlib.contextmanager
def database(kind: str) -> Iterator[str]:
    """Its address; empty for the file that central makes by itself."""
    if kind == "sqlite":
        yield ""
        return
    with running_postgres(durable=True) as server, server.database() as url:
        yield url


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
