"""A whole site agent in this process, beside a real central, with a WAN between them that can be cut."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from pureboot.agent import identity
from pureboot.agent.main import SiteAgent
from pureboot.config.settings import AgentSettings
from tests.support.central import BASE_URL, RunningCentral
from tests.support.wan import Wan

# Long enough for a machine that is busy with everything else; nothing waits this long when all is well.
PATIENCE = 20.0


@dataclass
class RunningAgent:
    """`machine` speaks as a machine on the site's LAN does; `person` as somebody on the agent's own host."""

    agent: SiteAgent
    wan: Wan
    machine: httpx2.AsyncClient
    person: httpx2.AsyncClient

    async def script(self, mac: str, **facts: str) -> str:
        answer = await self.machine.get(f"/boot/{mac}", params=facts)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.machine.get("/health")).json()
        return answer

    async def synced(self) -> None:
        """Everything said here is at central, and everything said there is here."""
        await self.until(lambda: self.agent.connectivity.is_online, "online")
        await self.agent.sync.sync_now()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"never {what}") from None

    async def cut(self) -> None:
        self.wan.state = "down"
        # An answer that had come through is heard before the outage is noticed.
        await asyncio.sleep(0.05)
        assert not await self.agent.connectivity.check_connectivity()
        assert not self.agent.connectivity.is_online

    async def restore(self) -> None:
        self.wan.state = "up"
        assert await self.agent.connectivity.check_connectivity()


# What the agent's own limits are: for what a machine has to wait when central hangs.
HASTY = {"connectivity_timeout": 0.5, "write_confirm_budget": 0.5, "boot_budget": 1.0}


def settings(folder: Path, **changed: Any) -> AgentSettings:
    """An outage shows at the first check. Where central answers, a busy machine of ours has all the time it needs."""
    patient = {
        "connectivity_check_interval": 30,
        "connectivity_timeout": 10,
        "connectivity_failure_threshold": 1,
        "queue_retry_delay": 0.05,
        "write_confirm_budget": 10,
        "boot_budget": 10,
    }
    return AgentSettings(data_dir=folder, **(patient | changed))


async def init(central: RunningCentral, site: str, folder: Path) -> None:
    """What `pureboot agent init` does."""
    credential = await central.new_agent(site)
    identity.save(folder, identity.Identity(credential.agent_id, credential.site_id, BASE_URL, credential.credential))


@asynccontextmanager
async def running_agent(
    folder: Path, wan: Wan | httpx2.AsyncBaseTransport, **changed: Any
) -> AsyncIterator[RunningAgent]:
    """Of an initialised folder. A second one on the same folder goes on where the first stopped."""
    wan = wan if isinstance(wan, Wan) else Wan(wan)
    agent = SiteAgent(settings(folder, **changed), transport=wan)
    lan = httpx2.ASGITransport(app=agent.app, client=("192.0.2.10", 4711))
    here = httpx2.ASGITransport(app=agent.app, client=("127.0.0.1", 4711))
    async with (
        httpx2.AsyncClient(transport=lan, base_url="http://agent:8080") as machine,
        httpx2.AsyncClient(transport=here, base_url="http://127.0.0.1:8080") as person,
    ):
        await agent.start()
        try:
            yield RunningAgent(agent, wan, machine, person)
        finally:
            await agent.stop()
