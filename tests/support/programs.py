"""`pureboot central run` and `pureboot agent run` as real processes, to be stopped, killed and started again."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx2

from pureboot.simulator.program import free_port

# Seconds. One is enough on a machine that has nothing else to do.
STARTS_WITHIN = 120.0


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Program:
    """One process on one port, with its log in a file. Only its own pid is ever signalled."""

    def __init__(self, arguments: list[str], port: int, log: Path, environment: dict[str, str]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._arguments = [*arguments, "--port", str(port)]
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PUREBOOT_")
        } | environment

    async def start(self) -> Self:
        """Returns when it answers."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pureboot", *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        async with httpx2.AsyncClient(base_url=self.url, trust_env=False, verify=False) as client:
            async with asyncio.timeout(STARTS_WITHIN):
                while not await self._answers(client):
                    await asyncio.sleep(0.02)
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _answers(self, client: httpx2.AsyncClient) -> bool:
        assert self._process.returncode is None, f"it ended at its start:\n{self.tail()}"
        try:
            return (await client.get("/health")).status_code == 200
        except httpx2.HTTPError:
            return False

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        """As a power cut does it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                async with asyncio.timeout(20):
                    await self._process.wait()
            except TimeoutError:
                await self.kill()

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Central(Program):
    """`database_url`: empty for the SQLite file in its folder. `settings`: those of central, by name."""

    def __init__(self, folder: Path, database_url: str = "", **settings: object) -> None:
        self.folder = folder / "central"
        self._where = ["--data-dir", str(self.folder)]
        self._where += ["--database-url", database_url] if database_url else []
        environment = {f"PUREBOOT_CENTRAL__{name.upper()}": str(value) for name, value in settings.items()}
        super().__init__(["central", "run", *self._where], free_port(), folder / "central.log", environment)

    async def post_restore(self) -> None:
        """What an operator types once the database has come from a backup."""
        await _run("central", "post-restore", *self._where)

    @property
    def token(self) -> str:
        """The administrator's."""
        return (self.folder / "admin-token").read_text().strip()

    def admin(self) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=30, trust_env=False)


class Agent(Program):
    """Looks at central once a second, so that an outage shows soon, and may take ten for a boot: a busy machine of ours
    has all the time it needs. `port`: 0 takes a free one."""

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        settings: dict[str, str] | None = None,
        *,
        port: int = 0,
        tftp_port: int = 0,
    ) -> None:
        self.folder = folder / "agent"
        self.tftp_port = tftp_port
        arguments = ["agent", "run", "--data-dir", str(self.folder), "--host", host, "--tftp-port", str(tftp_port)]
        environment = {
            "PUREBOOT_AGENT__CONNECTIVITY_CHECK_INTERVAL": "1",
            "PUREBOOT_AGENT__CONNECTIVITY_TIMEOUT": "2",
            "PUREBOOT_AGENT__QUEUE_RETRY_DELAY": "0.2",
            "PUREBOOT_AGENT__BOOT_BUDGET": "10",
        }
        super().__init__(arguments, port or free_port(), folder / "agent.log", environment | (settings or {}))

    def advertise(self, url: str) -> None:
        """Before it starts."""
        self._arguments += ["--advertise-url", url]

    async def init(self, central: Central, site: str) -> None:
        async with central.admin() as admin:
            token = (await admin.post(f"/api/v1/sites/{site}/agent-token")).json()["token"]
        arguments = ["--central-url", central.url, "--site", site, "--token", token]
        await _run("agent", "init", *arguments, "--data-dir", str(self.folder))

    def machine(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, timeout=30, trust_env=False)


async def _run(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pureboot", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


class Pair:
    """A central and the agent of its site `attic`."""

    def __init__(self, central: Central, agent: Agent, admin: httpx2.AsyncClient, machine: httpx2.AsyncClient) -> None:
        self.central, self.agent, self.admin, self.machine = central, agent, admin, machine

    async def ask(self, method: str, path: str, **arguments: Any) -> Any:
        answer = await self.admin.request(method, f"/api/v1{path}", **arguments)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def import_node(self, mac: str, state: str) -> dict[str, Any]:
        body = {"mac_address": mac, "home_site_id": "attic", "state": state}
        node: dict[str, Any] = await self.ask("POST", "/nodes", json=body)
        return node

    async def approve(self, mac: str) -> None:
        """An install of a little kernel, of which the site has every file by the time this returns."""
        node = await self.import_node(mac, "discovered")
        for name in ("linux", "initrd"):
            await self.admin.put(f"/api/v1/content/images/{name}", content=f"{name} for {mac}".encode())
        body = {"name": f"for {mac}", "kernel": "images/linux", "initrd": ["images/initrd"], "cmdline": "quiet"}
        workflow = await self.ask("POST", "/workflows", json=body)
        await self.ask("PATCH", f"/nodes/{node['id']}", json={"workflow_id": workflow["id"]})
        await self.ask("PATCH", f"/nodes/{node['id']}/state", json={"state": "pending"})

    async def history(self, node_id: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.ask("GET", f"/nodes/{node_id}/history"))["items"]
        return items

    async def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.machine.get("/health")).json()
        return answer

    async def until(self, what: str, within: float = 60.0, **expected: Any) -> None:
        """Until the agent's health shows all of `expected`."""
        try:
            async with asyncio.timeout(within):
                while (await self.health()).items() & expected.items() != expected.items():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never {what}: {await self.health()}\n{self.agent.tail()}") from None

    async def caught_up(self, mac: str, state: str) -> None:
        """Until the site has the node in this state."""
        try:
            async with asyncio.timeout(60):
                while True:
                    items = (await self.machine.get("/api/v1/nodes", params={"mac": mac})).json()["items"]
                    if items and items[0]["state"] == state:
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{mac} is never {state} at the site\n{self.agent.tail()}") from None

    async def until_served(self, path: str) -> None:
        """Until the site knows of a file."""
        try:
            async with asyncio.timeout(60):
                while (await self.machine.head(path)).status_code != 200:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{path} is never known\n{self.agent.tail()}") from None

    async def holds(self, count: int, under: str = "") -> None:
        """Until the site has so many files of content whose names begin so."""
        try:
            async with asyncio.timeout(60):
                while len([name for name in await self._held() if name.startswith(under)]) < count:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"the content never came\n{self.agent.tail()}") from None

    async def _held(self) -> list[str]:
        return [item["name"] for item in (await self.machine.get("/api/v1/agent/cache")).json()["items"]]


@asynccontextmanager
async def running_pair(
    folder: Path, *, database_url: str = "", settings: dict[str, str] | None = None, **site: Any
) -> AsyncIterator[Pair]:
    """`settings`: of the agent, as environment; `site`: fields of the site."""
    async with running_pair_of(Central(folder, database_url), Agent(folder, settings=settings), **site) as pair:
        yield pair


@asynccontextmanager
async def running_pair_of(central: Central, agent: Agent, **site: Any) -> AsyncIterator[Pair]:
    await central.start()
    try:
        async with central.admin() as admin, agent.machine() as machine:
            answer = await admin.post("/api/v1/sites", json={"name": "attic", **site})
            assert answer.status_code == 201, answer.text
            await agent.init(central, "attic")
            await agent.start()
            pair = Pair(central, agent, admin, machine)
            try:
                await pair.until("online", is_online=True)
                yield pair
            except BaseException as error:
                error.add_note(f"--- central ---\n{central.tail()}\n--- agent ---\n{agent.tail()}")
                raise
            finally:
                await agent.end()
    finally:
        await central.end()
