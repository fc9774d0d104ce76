"""The WAN: each request arrives, or is lost, or comes late, or twice; and so does its answer."""

import json
from collections.abc import Awaitable, Callable
from random import Random

import httpx2

from pureboot.agent.central_client import CentralClient, Health
from pureboot.central.accounts import Agent
from pureboot.core.errors import CentralUnavailable
from pureboot.wire.errors import from_answer
from pureboot.wire.messages import FeedPage, PushAnswer, PushRequest, SessionGrant, SessionRequest
from tests.simulation.central import Call, Central, Reply
from tests.simulation.fuse import Killed

URL = "http://central"
# Of a hundred requests on a bad day.
LOST, LATE, TWICE, UNANSWERED = 12, 10, 10, 13


class Network:
    """`calm`: nothing goes wrong any more. `cut`: the sites (by id) that reach nobody."""

    def __init__(self, central: Central, dice: Random, note: Callable[[str], None]) -> None:
        self._central, self._dice, self._note = central, dice, note
        self.late: list[Call] = []
        self.cut: set[str] = set()
        self.calm = False

    async def carry(self, call: Call) -> Reply:
        """Raises CentralUnavailable for all the ways in which no answer comes."""
        if call.sender.site_id in self.cut:
            raise CentralUnavailable("The line is cut.")
        fate = 100 if self.calm else self._dice.randrange(100)
        if fate < LOST:
            raise self._silent(call, "is lost")
        if fate < LOST + LATE:
            self.late.append(call)
            raise self._silent(call, "comes late")
        reply = await self._reached(call)
        if fate < LOST + LATE + TWICE:
            self._note(f"{call.what} arrives twice")
            reply = await self._reached(call)
        elif fate < LOST + LATE + TWICE + UNANSWERED:
            raise self._silent(call, "was answered, the answer is lost")
        return reply

    async def deliver(self, index: int) -> None:
        """A request that came late arrives now, after others; nobody waits for its answer any more."""
        call = self.late.pop(index)
        self._note(f"a late {call.what} arrives")
        try:
            await self._central.answer(call)
        except Killed as death:
            self._note(str(death))

    async def _reached(self, call: Call) -> Reply:
        try:
            return await self._central.answer(call)
        except Killed as death:
            self._note(f"killed: {death}")
            raise CentralUnavailable("Central is gone.") from None

    def _silent(self, call: Call, what: str) -> CentralUnavailable:
        self._note(f"{call.what} {what}")
        return CentralUnavailable("Central did not answer in time.")


class Line(CentralClient):
    """An agent's client, on our network instead of HTTP: what is said crosses it as the same JSON. `meanwhile`: what
    goes on while the answer to a request of that kind is on its way."""

    def __init__(self, network: Network, sender: Agent, meanwhile: Callable[[str], Awaitable[None]]) -> None:
        super().__init__(httpx2.AsyncClient(transport=HealthOnly(network, sender)))
        self._network, self._sender, self._meanwhile = network, sender, meanwhile

    async def generation(self) -> int:
        return Health.model_validate_json(await self._ask("health", "")).generation

    async def open_session(self, request: SessionRequest) -> SessionGrant:
        return SessionGrant.model_validate_json(await self._ask("session", request.model_dump_json()))

    async def push(self, request: PushRequest) -> PushAnswer:
        return PushAnswer.model_validate_json(await self._ask("push", request.model_dump_json(by_alias=True)))

    async def changes(self, since: str, *, limit: int = 500, wait: float = 0) -> FeedPage:
        # Short pages, so that a pass over the feed is cut in its middle too.
        return FeedPage.model_validate_json(await self._ask("changes", json.dumps([since, 4])))

    async def _ask(self, what: str, body: str) -> str:
        reply = await self._network.carry(Call(self._sender, what, body))
        await self._meanwhile(what)
        if reply.status >= 300:
            raise from_answer(reply.status, json.loads(reply.body), reply.retry_after)
        return reply.body


class HealthOnly(httpx2.AsyncBaseTransport):
    """For the connectivity monitor, which asks by HTTP."""

    def __init__(self, network: Network, sender: Agent) -> None:
        self._network, self._sender = network, sender

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            reply = await self._network.carry(Call(self._sender, "health", ""))
        except CentralUnavailable as error:
            raise httpx2.ConnectError(error.message) from None
        return httpx2.Response(reply.status, content=reply.body.encode())
