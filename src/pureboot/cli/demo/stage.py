"""The stage: a folder, central, a line to it, an agent and machines; real processes on free ports of this host."""

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from pureboot.core.reconcile import Resolution
from pureboot.simulator.admin import Admin
from pureboot.simulator.ledger import Ledger
from pureboot.simulator.machine import Machine, fleet_hardware
from pureboot.simulator.program import DidNotStart, Program, free_port
from pureboot.wire.messages import Lenient

# An outage of the demo lasts seconds, so what an agent notices in a minute and a half is noticed in two seconds here.
AGENT_ENVIRONMENT = {
    "PUREBOOT_AGENT__CONNECTIVITY_CHECK_INTERVAL": "1",
    "PUREBOOT_AGENT__CONNECTIVITY_TIMEOUT": "0.5",
    "PUREBOOT_AGENT__CONNECTIVITY_FAILURE_THRESHOLD": "2",
    "PUREBOOT_AGENT__HEARTBEAT_INTERVAL": "2",
    "PUREBOOT_AGENT__QUEUE_RETRY_DELAY": "0.5",
}


class AgentHealth(Lenient):
    status: str
    is_online: bool
    pending_queue_items: int
    failed_queue_items: int
    conflicts_pending: int


class NodeAtSite(Lenient):
    state: str


class NodesAtSite(Lenient):
    items: list[NodeAtSite]


class Stage:
    def __init__(self, folder: Path, client: httpx2.AsyncClient) -> None:
        self.folder = folder
        self.ledger = Ledger()
        self.password = secrets.token_urlsafe(12)
        central_port, wan_port, agent_port = free_port(), free_port(), free_port()
        self.central_url = f"http://127.0.0.1:{central_port}"
        self.wan_url = f"http://127.0.0.1:{wan_port}"
        self.agent_url = f"http://127.0.0.1:{agent_port}"
        self.token_file = folder / "central" / "admin-token"
        self._client = client
        self.central = self._pureboot(
            "central", ["central", "run", "--port", str(central_port), "--data-dir", str(folder / "central")]
        )
        self.wan = Program(
            "wan", ["-m", "pureboot.simulator.wan", str(wan_port), str(central_port)], folder / "wan.log"
        )
        self.agent = self._pureboot(
            "agent",
            [
                *("agent", "run", "--host", "127.0.0.1", "--port", str(agent_port), "--tftp-port", "0"),
                *("--data-dir", str(folder / "agent")),
            ],
        )

    def _pureboot(self, name: str, arguments: list[str]) -> Program:
        return Program(name, ["-m", "pureboot", *arguments], self.folder / f"{name}.log", environment=AGENT_ENVIRONMENT)

    @property
    def programs(self) -> tuple[Program, ...]:
        return (self.agent, self.wan, self.central)

    def strike(self) -> None:
        for program in self.programs:
            program.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def admin(self) -> Admin:
        return Admin(self.central_url, self.token_file.read_text().strip(), self._client)

    def machine(self, number: int) -> Machine:
        return Machine(fleet_hardware(number), self.agent_url, self._client, self.ledger)

    async def start_central(self) -> float:
        return await self.central.start_and_answer(self._client, f"{self.central_url}/health")

    async def start_wan(self) -> float:
        return await self.wan.start_and_answer(self._client, f"{self.wan_url}/health")

    async def start_agent(self) -> float:
        return await self.agent.start_and_answer(self._client, f"{self.agent_url}/health")

    async def let_agent_in(self, site_id: str, token: str) -> None:
        """`pureboot agent init`, as a person would type it."""
        arguments = ["--central-url", self.wan_url, "--site", site_id, "--token", token]
        init = self._pureboot("agent", ["agent", "init", *arguments, "--data-dir", str(self.folder / "agent")])
        if await init.run():
            raise DidNotStart(f"`pureboot agent init` failed.\n{init.tail()}")

    async def agent_health(self) -> AgentHealth | None:
        """None while it does not answer."""
        try:
            answer = await self._client.get(f"{self.agent_url}/health", timeout=1.0)
        except httpx2.TransportError:
            return None
        return AgentHealth.model_validate_json(answer.content) if answer.is_success else None

    async def decide_at_site(self, conflict_id: str, how: Resolution) -> None:
        """What a person on the agent's host decides of a conflict."""
        body = {"resolution": how, "person": "somebody at the site", "comment": "the machine is up and working"}
        answer = await self._client.post(f"{self.agent_url}/api/v1/agent/conflicts/{conflict_id}/resolve", json=body)
        answer.raise_for_status()

    async def state_at_site(self, machine: Machine) -> str:
        answer = await self._client.get(f"{self.agent_url}/api/v1/nodes", params={"mac": str(machine.mac)})
        found = NodesAtSite.model_validate_json(answer.content).items
        return found[0].state if found else "unknown"


@asynccontextmanager
async def set_up(*, keep: bool) -> AsyncIterator[Stage]:
    """An empty stage. Leaving it ends every process and removes the folder, unless `keep`; an error always does."""
    limits = httpx2.Limits(max_connections=200)
    async with httpx2.AsyncClient(timeout=10, limits=limits, trust_env=False) as client:
        stage = Stage(Path(tempfile.mkdtemp(prefix="pureboot-demo-")), client)
        try:
            yield stage
        except BaseException:
            stage.strike()
            raise
        if not keep:
            stage.strike()
