"""What a machine says of itself to its site's agent, while the agent is killed and frozen: each thing again, under its
`report_id`, until somebody has taken it. What was answered is in the ledger, and nothing else."""

import asyncio
import contextlib
import random
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx2

from pureboot.core.lifecycle import NodeState
from pureboot.core.mac import MacAddress
from pureboot.simulator.ledger import Acknowledged, InstallServed, Kind, Ledger
from pureboot.simulator.machine import WriteAnswer

T = TypeVar("T")

# Seconds. An agent that was killed needs a few to come back; a busy machine makes them many.
PATIENCE = 120.0
# Of things said, how many are said twice at once, by an installer that did not wait for the answer.
HASTE = 0.1


class Reporter:
    """`pace`: the longest pause, in seconds, before it says the next thing."""

    def __init__(
        self, mac: str, machine: httpx2.AsyncClient, ledger: Ledger, chance: random.Random, pace: float
    ) -> None:
        self.mac = mac
        self.pace = pace
        self._machine, self._ledger, self._chance = machine, ledger, chance
        self._said = 0

    async def says(self, event: str, token: str = "") -> dict[str, Any]:
        """By MAC, as an installer does."""
        body = {"mac": self.mac, "event": event, "boot_token": token}
        return await self._say("POST", "/api/v1/report", event, body)

    async def says_of(self, node_id: str, event: str, token: str = "") -> dict[str, Any]:
        body = {"event": event, "boot_token": token}
        return await self._say("POST", f"/api/v1/nodes/{node_id}/event", event, body)

    async def becomes(self, node_id: str, state: NodeState) -> None:
        await self._say("PATCH", f"/api/v1/nodes/{node_id}/state", state, {"state": state})

    async def registers(self) -> str:
        """Its node's id."""
        answer = await self._told("POST", "/api/v1/nodes/register", {"mac": self.mac, "vendor": "QEMU"})
        return str(answer["id"])

    async def chatters(self, node_id: str, count: int, token: str = "") -> None:
        """Events of names that were not used before, by both ways there are."""
        for _ in range(count):
            self._said += 1
            name = f"step-{self._said}"
            await (self.says(name, token) if self._chance.random() < 0.5 else self.says_of(node_id, name, token))

    async def boots_into_its_install(self, attempt: int) -> str:
        """Powered on until it is given the installer. Returns the token of its script."""

        async def served() -> str | None:
            script = (await self._machine.get(f"/boot/{self.mac}")).text
            token = re.search(r"pureboot\.token=(\S+)", script)
            return token[1] if token else None

        token = await self._until_taken("a boot into the installer", served)
        self._ledger.note_install(InstallServed(MacAddress.parse(self.mac), attempt, token))
        return token

    async def _say(self, method: str, path: str, what: str, body: dict[str, str]) -> dict[str, Any]:
        answer = await self._told(method, path, body)
        mac = MacAddress.parse(self.mac)
        written = WriteAnswer.model_validate(answer)
        promises = written.promises(mac, what)
        if method == "PATCH":
            promises = [Acknowledged(str(written.queue_id), mac, what, written.status, Kind.EDGE)]
        for promise in promises:
            self._ledger.note(promise)
        return answer

    async def _told(self, method: str, path: str, body: dict[str, str]) -> dict[str, Any]:
        await asyncio.sleep(self._chance.uniform(0, self.pace))
        report = body | {"report_id": str(uuid.uuid4())}
        if self._chance.random() < HASTE:
            answers = await asyncio.gather(*(self._taken(method, path, report) for _ in range(2)))
            assert answers[0]["queue_id"] == answers[1]["queue_id"], f"one report became two: {answers}"
            return answers[0]
        return await self._taken(method, path, report)

    async def _taken(self, method: str, path: str, report: dict[str, str]) -> dict[str, Any]:
        async def answered() -> dict[str, Any] | None:
            answer = await self._machine.request(method, path, json=report)
            assert answer.status_code < 400 or answer.status_code >= 500, f"{report}: {answer.text}"
            body: dict[str, Any] | None = answer.json() if answer.is_success else None
            return body

        return await self._until_taken(str(report), answered)

    async def _until_taken(self, what: str, ask: Callable[[], Awaitable[T | None]]) -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    with contextlib.suppress(httpx2.TransportError):
                        if (answer := await ask()) is not None:
                            return answer
                    await asyncio.sleep(self._chance.uniform(0.1, 0.4))
        except TimeoutError:
            raise AssertionError(f"nobody took from {self.mac}: {what}") from None
