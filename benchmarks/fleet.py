"""Many sites come back at once, each with much to tell: `.venv/bin/python -m benchmarks.fleet`.

Central and its database as they are run; whole agents (`SiteAgent`), each with its file and its connection, together in
one process (`benchmarks.sites`); and one site more, whose agent is a process as in life. Central dies, each agent
accepts events, central starts. From then on until the last site has told everything, a machine of the site apart
reports ten times a second, and an operator changes a node as often: what they wait is what a herd costs the others.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.load import Load
from benchmarks.machine import describe
from benchmarks.outbox import cpu, database
from benchmarks.sites import NODES
from pureboot.agent import identity
from pureboot.agent.identity import Identity
from pureboot.wire.messages import AgentCredential
from tests.support.programs import Pair, running_pair

MAC, OPERATORS = "52:54:00:ff:00:01", "52:54:00:ff:00:02"
PAUSE = 0.1


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=200)
    parser.add_argument("--items", type=int, default=200, help="of each site")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="postgresql", help="central's")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name, database(arguments.database) as url:
        folder = Path(name)
        print(describe(folder))
        async with running_pair(folder, database_url=url) as pair:
            machines = (await pair.import_node(MAC, "active"))["id"]
            operators = (await pair.import_node(OPERATORS, "active"))["id"]
            await pair.caught_up(OPERATORS, "active")
            began = time.monotonic()
            for number in range(arguments.sites):
                await found(pair, folder / "sites" / f"s{number:04}", number)
            print(f"founded  {arguments.sites} sites of {NODES} nodes in {time.monotonic() - began:.0f} s")
            await drain(pair, folder / "sites", arguments.items, machines, operators)


async def found(pair: Pair, folder: Path, number: int) -> None:
    """The site, its nodes, and its agent as `pureboot agent init` leaves it."""
    site = (await pair.ask("POST", "/sites", json={"name": folder.name}))["id"]
    for node in range(NODES):
        mac = f"52:54:00:{number >> 8:02x}:{number & 255:02x}:{node:02x}"
        await pair.ask("POST", "/nodes", json={"mac_address": mac, "home_site_id": site, "state": "active"})
    token = (await pair.ask("POST", f"/sites/{site}/agent-token"))["token"]
    body = {"token": token, "site": site}
    let_in = AgentCredential.model_validate(await pair.ask("POST", "/agents/register", json=body))
    identity.save(folder, Identity(let_in.agent_id, let_in.site_id, pair.central.url, let_in.credential))


async def drain(pair: Pair, folder: Path, items: int, machines: str, operators: str) -> None:
    async with sites(folder, items) as fleet:
        await fleet.says("known")
        await pair.central.kill()
        await pair.until("offline", is_online=False)
        await fleet.go()
        await fleet.says("filled")
        started, spent = time.monotonic(), cpu(fleet.pid)
        await pair.central.start()
        live = [
            Waits("a machine's report", lambda: pair.machine.post(f"/api/v1/nodes/{machines}/event", json=REPORT)),
            Waits("an operator's change", lambda: pair.admin.patch(f"/api/v1/nodes/{operators}", json=CHANGE)),
        ]
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(each.repeat()) for each in live]
            await fleet.go()
            await fleet.says("drained")
            took = time.monotonic() - started
            for client in clients:
                client.cancel()
        print(f"took     {took:.1f} s since central started")
        print(f"cores    {cpu(pair.central.pid):.1f} s of central, {cpu(fleet.pid) - spent:.1f} s of all its agents")
        for each in live:
            print(each)
        await pair.until("drained", within=600, pending_queue_items=0)


REPORT = {"event": "install_progress", "message": "still at it"}
CHANGE = {"hostname": "changed"}


@dataclass
class Waits:
    what: str
    send: Callable[[], Awaitable[Any]]
    times: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)

    async def repeat(self) -> None:
        while True:
            began = time.monotonic()
            self.answers[(await self.send()).status_code] += 1
            self.times.append(time.monotonic() - began)
            await asyncio.sleep(PAUSE)

    def __str__(self) -> str:
        load = Load(sum(self.times) + PAUSE * len(self.times), sorted(self.times))
        answers = ", ".join(f"{count} times {status}" for status, count in sorted(self.answers.items()))
        return f"meanwhile {self.what}: {load} ({answers})"


class Fleet:
    """The process of `benchmarks.sites`: it says where it stands, and goes on when it is told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        self.pid = process.pid
        self._in, self._out = process.stdin, process.stdout

    async def go(self) -> None:
        self._in.write(b"\n")
        await self._in.drain()

    async def says(self, what: str) -> None:
        """Shows what it says up to then."""
        async for line in self._out:
            print(line.decode(), end="")
            if line.decode().startswith(what):
                return
        raise AssertionError(f"the sites ended before they were {what}")


@contextlib.asynccontextmanager
async def sites(folder: Path, items: int) -> AsyncIterator[Fleet]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.sites", str(folder), str(items)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Fleet(process)
    finally:
        process.kill()
        await process.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
