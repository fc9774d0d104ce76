"""Central and the agents of several sites as real processes, each with a line of its own, and their machines."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from pureboot.agent import identity
from pureboot.agent.identity import Identity
from pureboot.core.lifecycle import NodeState
from pureboot.simulator.admin import Admin
from pureboot.simulator.ledger import Ledger
from pureboot.wire.messages import AgentCredential, AgentRegistration
from tests.support import line
from tests.support.line import Line
from tests.support.programs import Agent, Central, Program
from tests.support.reporter import Reporter

# Seconds for what takes a moment on a machine that has nothing else to do.
PATIENCE = 120.0
# Seconds an agent may take to answer a machine, before the machine asks again.
MACHINES_PATIENCE = 4.0


@dataclass
class Site:
    name: str
    agent: Agent
    line: Line
    machine: httpx2.AsyncClient

    async def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.machine.get("/health")).json()
        return answer

    async def until(self, what: str, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Until what its health shows makes `condition` true."""

        async def shown() -> bool:
            return condition(await self.health())

        await until(f"{self.name}: {what}", shown)

    async def drained(self) -> None:
        await self.until("everything told", lambda health: health["is_online"] and not health["pending_queue_items"])

    async def node(self, mac: str) -> dict[str, Any]:
        """As the site knows it; empty while it does not."""
        items = (await self.machine.get("/api/v1/nodes", params={"mac": mac})).json()["items"]
        node: dict[str, Any] = items[0] if items else {}
        return node


@dataclass
class Fleet:
    folder: Path
    central: Central
    sites: list[Site]
    http: httpx2.AsyncClient
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def admin(self) -> Admin:
        return Admin(self.central.url, self.central.token, self.http)

    @property
    def programs(self) -> list[Program]:
        return [self.central, *(site.agent for site in self.sites)]

    def reporter(self, site: Site, number: int, seed: str = "", pace: float = 0.0) -> Reporter:
        mac = f"52:54:00:{self.sites.index(site):02x}:00:{number:02x}"
        return Reporter(mac, site.machine, self.ledger, random.Random(f"{seed}/{mac}"), pace)

    async def import_node(self, site: Site, mac: str, state: NodeState, **fields: str) -> str:
        """Returns once the site knows it, with the node's id."""
        body = {"mac_address": mac, "home_site_id": site.name, "state": state, **fields}
        node_id = str((await self.ask("POST", "/nodes", json=body))["id"])

        async def known() -> bool:
            return (await site.node(mac)).get("state") == state

        await until(f"{site.name} knows {mac}", known)
        return node_id

    async def ask(self, method: str, path: str, **arguments: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.central.token}"}
        answer = await self.http.request(method, f"{self.central.url}/api/v1{path}", headers=headers, **arguments)
        assert answer.is_success, answer.text
        return answer.json()

    async def drained(self) -> None:
        await asyncio.gather(*(site.drained() for site in self.sites))

    def logs(self) -> str:
        return "\n".join(
            f"--- {program.log.relative_to(self.folder)} ---\n{program.tail(40)}" for program in self.programs
        )


def machines_client(agent: Agent) -> httpx2.AsyncClient:
    """Speaks as the machines of its site do. (To read the host's certificates, for nothing, takes longest.)"""
    return httpx2.AsyncClient(base_url=agent.url, timeout=MACHINES_PATIENCE, trust_env=False, verify=False)


async def until(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    """Who does not answer meanwhile is asked again."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        with contextlib.suppress(httpx2.TransportError):
            if await condition():
                return
        await asyncio.sleep(0.1)
    raise AssertionError(f"never: {what}")


@asynccontextmanager
async def running_fleet(
    folder: Path, names: Iterable[str], database_url: str = "", **central_settings: object
) -> AsyncIterator[Fleet]:
    """Online. Whatever fails inside carries the logs of all."""
    async with AsyncExitStack() as stack:
        central = Central(folder, database_url, **central_settings)
        await started(stack, central)
        http = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=30, verify=False))
        fleet = Fleet(folder, central, [], http)
        for name in names:
            fleet.sites.append(await _site(stack, _made(folder / name), name, central))
        async with asyncio.TaskGroup() as group:
            for site in fleet.sites:
                group.create_task(_open(stack, fleet, site))
        try:
            await fleet.drained()
            yield fleet
        except BaseException as error:
            error.add_note(fleet.logs())
            raise


async def started(stack: AsyncExitStack, program: Program) -> None:
    """Ended with the stack."""
    stack.push_async_callback(program.end)
    await program.start()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def _site(stack: AsyncExitStack, folder: Path, name: str, central: Central) -> Site:
    agent = Agent(folder)
    site_line = await stack.enter_async_context(line.opened(central.port))
    return Site(name, agent, site_line, await stack.enter_async_context(machines_client(agent)))


async def _open(stack: AsyncExitStack, fleet: Fleet, site: Site) -> None:
    await fleet.ask("POST", "/sites", json={"name": site.name})
    await _let_in(fleet, site)
    await started(stack, site.agent)


async def _let_in(fleet: Fleet, site: Site) -> None:
    """What `pureboot agent init` does, by way of the site's line."""
    token = await fleet.admin.agent_token(site.name)
    registration = AgentRegistration(token=token, site=site.name).model_dump()
    answer = await fleet.http.post(f"{site.line.url}/api/v1/agents/register", json=registration)
    assert answer.status_code == 201, answer.text
    let_in = AgentCredential.model_validate_json(answer.content)
    identity.save(site.agent.folder, Identity(let_in.agent_id, let_in.site_id, site.line.url, let_in.credential))
