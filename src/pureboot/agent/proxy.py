"""Central, as the rest of the agent sees it: writes that are safe before they are answered, and one network call."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
import uuid_utils.compat as uuid
from pydantic import ValidationError

from pureboot.agent.cache.state_cache import NodeStateCache
from pureboot.agent.central_client import CentralClient, http_client
from pureboot.agent.connectivity import AlwaysOffline, ConnectivityMonitor
from pureboot.agent.journal import Accepted, EdgeOutcome, Journal
from pureboot.agent.queue import QueueItem, SyncQueue
from pureboot.agent.site import SiteState
from pureboot.core.changes import NodeEvent
from pureboot.core.errors import CentralUnavailable, NotFound
from pureboot.core.lifecycle import NodeState
from pureboot.core.mac import MacAddress
from pureboot.wire.messages import (
    EpochAccount,
    PushAnswer,
    PushItem,
    PushRequest,
    PushResult,
    RegisterBody,
    SessionGrant,
    SessionRequest,
    explain,
)

# Items that may wait before a new one has no chance of an answer within a second.
LONG_QUEUE = 500


@dataclass(frozen=True, slots=True)
class Written:
    """What a write came to. `result` is central's word on it, if it came inside the budget."""

    accepted: Accepted
    offline: bool
    result: PushResult | None = None

    @property
    def status(self) -> str:
        if self.result is not None:
            return str(self.result.effect)
        if self.accepted.queue_id is not None:
            return "queued"
        return "already" if self.accepted.edge is EdgeOutcome.ALREADY else "applied"

    @property
    def body(self) -> dict[str, Any]:
        node = self.accepted.node
        body: dict[str, Any] = {
            "status": self.status,
            "offline": self.offline,
            "queue_id": self.accepted.queue_id,
            "id": node.node_id,
            "node_id": node.node_id,
            "state": node.state,
            "attempt": node.attempt,
            "edge": None if self.accepted.edge is EdgeOutcome.NONE else self.accepted.edge,
        }
        if self.accepted.event_queue_id not in (None, self.accepted.queue_id):
            body["event_queue_id"] = self.accepted.event_queue_id
        if self.result is not None and self.result.reason:
            body["reason"] = self.result.reason
        if self.result is not None and self.result.conflict_id:
            body["conflict_id"] = self.result.conflict_id
        return body


class CentralProxy:
    """`write_confirm_budget`: seconds that a machine's write may wait for central to confirm it.

    Without `connectivity` nothing ever waits. The queue is where writes go, so there has to be one to write.
    """

    def __init__(
        self,
        central_url: str,
        connectivity: ConnectivityMonitor | None = None,
        queue: SyncQueue | None = None,
        *,
        agent_id: str = "",
        client: CentralClient | None = None,
        journal: Journal | None = None,
        site: SiteState | None = None,
        write_confirm_budget: float = 1.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.central_url = central_url
        self.connectivity = connectivity or AlwaysOffline()
        self._agent_id = agent_id
        self._client = client or CentralClient(http_client(central_url, timeout=5.0, transport=transport))
        self._budget = write_confirm_budget
        self._parts = _Parts.around(queue, journal, site) if queue else None

    async def register_node(self, registration: dict[str, Any]) -> dict[str, Any]:
        """`registration` is what a machine sends: a MAC and facts. Raises Malformed or Invalid for a bad one."""
        try:
            body = RegisterBody.model_validate(registration)
        except ValidationError as error:
            raise explain(error) from None
        return (await self.register(body)).body

    async def update_node_state(self, node_id: str, new_state: str) -> dict[str, Any]:
        """A node this site does not know is central's to judge: its change is queued all the same."""
        state = NodeState.parse(new_state)
        try:
            return (await self.move(node_id, state)).body
        except NotFound:
            item = QueueItem(
                id=str(uuid.uuid7()),
                item_type="state_update",
                payload={"node_id": node_id, "to_state": state},
                created_at=datetime.now(UTC),
            )
            queue_id = await self._writing.queue.enqueue(item)
            return {"status": "queued", "offline": not self.connectivity.is_online, "queue_id": queue_id}

    async def register(self, body: RegisterBody) -> Written:
        mac = MacAddress.parse(body.mac_address)
        accepted = await self._writing.journal.register(
            mac, hostname=body.hostname, facts=body.facts(), report_id=body.report_id
        )
        return await self.confirmed(accepted)

    async def move(
        self,
        node_id: str,
        state: NodeState,
        *,
        comment: str = "",
        report_id: str | None = None,
        boot_token: str | None = None,
        may_begin: bool = True,
    ) -> Written:
        accepted = await self._writing.journal.move(
            node_id, state, comment=comment, report_id=report_id, boot_token=boot_token, may_begin=may_begin
        )
        return await self.confirmed(accepted)

    async def record(
        self,
        event: NodeEvent,
        *,
        report_id: str | None = None,
        boot_token: str | None = None,
        may_begin: bool = True,
    ) -> Written:
        accepted = await self._writing.journal.record(
            event.node_id, event, report_id=report_id, boot_token=boot_token, may_begin=may_begin
        )
        return await self.confirmed(accepted)

    async def report(
        self,
        mac: MacAddress,
        event: NodeEvent,
        *,
        report_id: str | None = None,
        boot_token: str | None = None,
        may_begin: bool = True,
    ) -> Written:
        accepted = await self._writing.journal.report(
            mac, event, report_id=report_id, boot_token=boot_token, may_begin=may_begin
        )
        return await self.confirmed(accepted)

    async def confirmed(self, accepted: Accepted, budget: float | None = None) -> Written:
        """Waits inside the budget for central's word on what was accepted; what it says is not needed to be safe."""
        offline = not self.connectivity.is_online
        if accepted.queue_id is None or not self.connectivity.may_wait or self._waits_behind_others(accepted):
            return Written(accepted, offline)
        try:
            async with asyncio.timeout(self._budget if budget is None else budget):
                result = await self._writing.queue.settled(accepted.queue_id)
        except TimeoutError:
            self.connectivity.doubt()
            return Written(accepted, offline)
        return Written(accepted, offline, result)

    def _waits_behind_others(self, accepted: Accepted) -> bool:
        """Central's word cannot come inside the budget; to wait for it would look as if central were silent."""
        queue, lane = self._writing.queue, accepted.node.node_id
        if queue.pending_count > LONG_QUEUE:
            return True
        return queue.database.store.read_now(lambda c: queue.is_held(c, lane))

    @property
    def agent_id(self) -> str:
        return self._agent_id

    async def generation(self) -> int:
        """Central's, asked now."""
        return await self._client.generation()

    async def open_session(self, request: SessionRequest) -> SessionGrant:
        """Raises Clash (fenced) while another copy of this agent may write."""
        return await self._client.open_session(request)

    async def push(
        self,
        items: list[PushItem],
        *,
        fence: int | None = None,
        accounts: Sequence[EpochAccount] = (),
        generation: int | None = None,
    ) -> PushAnswer:
        """Always safe to repeat. `generation`: central's, when the items were taken; left out, as we know it now.
        Raises CentralUnavailable and what else central answers."""
        site = self._writing.site
        request = PushRequest(
            agent_id=self._agent_id,
            epoch=self._writing.queue.epoch,
            generation=site.position.generation if generation is None else generation,
            fence=fence,
            epoch_accounts=list(accounts),
            items=items,
        )
        answer = await self._client.push(request)
        _check_complete(items, answer)
        await self.connectivity.heard()
        return answer

    @property
    def _writing(self) -> "_Parts":
        if self._parts is None:
            raise CentralUnavailable("This agent has no queue; nothing can be written.")
        return self._parts


def _check_complete(items: list[PushItem], answer: PushAnswer) -> None:
    """An answer that speaks of other items would be asked for again at once, and for ever."""
    if {item.id for item in items} != {result.id for result in answer.results}:
        raise CentralUnavailable("It answered for other items than those it was sent.")


@dataclass(frozen=True, slots=True)
class _Parts:
    """The one place where what was left out is made: a journal over the queue's own file."""

    queue: SyncQueue
    journal: Journal
    site: SiteState

    @classmethod
    def around(cls, queue: SyncQueue, journal: Journal | None, site: SiteState | None) -> "_Parts":
        site = site or SiteState(queue.database, queue.clock)
        journal = journal or Journal(NodeStateCache(queue.database), queue, site)
        return cls(queue, journal, site)
