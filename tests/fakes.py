"""Stand-ins for what is at the other end, each named after how it behaves."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

import httpx2

from pureboot.agent.clock import Stamp
from pureboot.core.changes import NodeEvent, Registration, Settlement, StateUpdate
from pureboot.core.errors import CentralUnavailable, Invalid, NotFound, PureBootError
from pureboot.core.lifecycle import Edge, NodeState, Stage
from pureboot.core.reconcile import Apply, Converged, Illegal, Resolution, Strategy, judge
from pureboot.wire.messages import (
    ConflictDocument,
    EpochAccount,
    NodeDocument,
    Outcome,
    PushAnswer,
    PushedNode,
    PushItem,
    PushRequest,
    PushResult,
    SessionGrant,
    SessionRequest,
    to_change,
)


class FolderSource:
    """Central's content, out of a dict. `away`: central does not answer. `hold()`: it answers, then stays silent until
    `release()`. `cut_after`: the connection breaks after so many bytes, so many `cuts` times (None: always).
    `corrupt`: one byte in the middle is wrong. `pause()`: after so many bytes it is silent until `release()`.
    `asked`: the names and offsets of all downloads."""

    def __init__(self, files: Mapping[str, bytes], *, chunk_size: int = 64 * 1024) -> None:
        self.files = dict(files)
        self.downloads: Counter[str] = Counter()
        self.away = False
        self.asked: list[tuple[str, int]] = []
        self.cut_after: int | None = None
        self.cuts: int | None = None
        self.corrupt = False
        self._pause_after: int | None = None
        self._chunk_size = chunk_size
        self._released = asyncio.Event()
        self._released.set()

    def hold(self) -> None:
        self._released.clear()

    def pause(self, after: int) -> None:
        self._pause_after = after
        self._released.clear()

    def release(self) -> None:
        self._pause_after = None
        self._released.set()

    @asynccontextmanager
    async def download(self, name: str, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        self.downloads[name] += 1
        self.asked.append((name, offset))
        if self.away:
            raise CentralUnavailable("Central is away.", retry_after=5)
        if name not in self.files:
            raise NotFound(f"There is no {name}.")
        if offset and offset >= len(self.files[name]):
            raise Invalid(f"it does not go on at byte {offset}.")
        yield self._chunks(self._spoilt(self.files[name])[offset:])

    def _spoilt(self, content: bytes) -> bytes:
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if self.corrupt else content

    async def _chunks(self, content: bytes) -> AsyncIterator[bytes]:
        if self._pause_after is None:
            await self._released.wait()
        end = min(len(content), self._cut())
        for position in range(0, end, self._chunk_size):
            if self._pause_after is not None and position >= self._pause_after:
                await self._released.wait()
            yield content[position : min(position + self._chunk_size, end)]
        if end < len(content):
            raise CentralUnavailable("The connection to central broke.")

    def _cut(self) -> int:
        if self.cut_after is None or self.cuts == 0:
            return sys.maxsize
        self.cuts = None if self.cuts is None else self.cuts - 1
        return self.cut_after


class SiteClock:
    """A host's clocks, moved by hand."""

    def __init__(self) -> None:
        self.now = Stamp("boot-1", 1000.0, datetime(2026, 1, 28, 12, tzinfo=UTC).timestamp())

    def stamp(self) -> Stamp:
        return self.now

    def when(self) -> datetime:
        return self.now.when

    def advance(self, seconds: float) -> None:
        self.now = replace(self.now, boottime=self.now.boottime + seconds, wall=self.now.wall + seconds)

    def set_wall(self, seconds: float) -> None:
        """An NTP step, or a person: the boot-time clock does not notice."""
        self.now = replace(self.now, wall=self.now.wall + seconds)

    def reboot(self, seconds: float) -> None:
        """The host was down so long; only the wall clock went on."""
        self.now = Stamp(self.now.boot_id + "+", 5.0, self.now.wall + seconds)


Behaviour = Literal["well", "refuses", "hangs", "slow", "garbage", "broken", "busy", "unauthorised", "too_large"]


class FakeCentral(httpx2.AsyncBaseTransport):
    """Central's `/health` and `/api/v1/sync/push`, in memory; tests/contract says what it has in common with the real
    one. It looks up no alias for a second MAC, keeps no history and settles each conflict by `strategy`.

    `health` and `push` say how each behaves: `refuses` (no connection), `hangs` (no answer, ever), `slow` (an answer
    once `release()` was called), `garbage` (a captive portal's page with 200), `broken` (500), `busy` (503 with
    Retry-After), `unauthorised` (401), `too_large` (413 for more than `largest` items). `put_off` and `refused` name
    lanes whose items central cannot settle now, or ever. `slow_from` is the number of the first push that is answered
    only once `release()` was called; 0: none. The push of the number `turn_away` is `busy`, that of `drop` refused.
    `session` is how it answers who asks to write;
    `fenced` names the epoch that may write while all others may not, and `spread` (ms) and `lease_seconds` are what a
    session is told.
    """

    def __init__(self, *, credential: str = "secret", strategy: Strategy = Strategy.CENTRAL_WINS) -> None:
        self.credential = credential
        self.strategy = strategy
        self.health: Behaviour = "well"
        self.push: Behaviour = "well"
        self.session: Behaviour = "well"
        self.sessions: list[SessionRequest] = []
        self.accounts: list[list[EpochAccount]] = []
        self.fenced = ""
        self.fence = 0
        self._holder = ""
        self.spread = 0
        self.lease_seconds = 90
        self.largest = 0
        self.generation = 1
        self.nodes: dict[str, NodeDocument] = {}
        self.conflicts: dict[str, ConflictDocument] = {}
        self.effects: list[str] = []
        self.batches: list[list[str]] = []
        self.checks = 0
        self.put_off: set[str] = set()
        self.refused: set[str] = set()
        self.ages: list[list[int]] = []
        self.slow_from = self.turn_away = self.drop = 0
        self.lose_answers = 0
        self._receipts: dict[str, tuple[str, PushResult]] = {}
        self._expected: dict[str, int | None] = {}
        self._aliases: dict[str, str] = {}
        self._released = asyncio.Event()
        self._heard = asyncio.Condition()

    def all(self, behaviour: Behaviour) -> None:
        self.health = self.push = behaviour

    def release(self) -> None:
        self._released.set()

    async def heard(self, condition: Callable[["FakeCentral"], bool]) -> None:
        """Waits until what was asked of central makes `condition` true."""
        async with asyncio.timeout(10), self._heard:
            await self._heard.wait_for(lambda: condition(self))

    def add(self, node_id: str, mac: str, state: NodeState, attempt: int = 0, **fields: Any) -> NodeDocument:
        """As an administrator does."""
        self.nodes[node_id] = _document(node_id, [mac], Stage(state, attempt)).model_copy(update=fields)
        return self.nodes[node_id]

    def move(self, node_id: str, state: NodeState, attempt: int = 0) -> None:
        """As an administrator does."""
        self.nodes[node_id] = _changed(self.nodes[node_id], Stage(state, attempt))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        is_health = request.url.path == "/health"
        self.checks += is_health
        is_session = request.url.path == "/api/v1/sync/session"
        behaviour = self.health if is_health else self.session if is_session else self.push
        body = json.loads(request.content) if request.content else {}
        if not is_health and not is_session:
            self.batches.append([item["id"] for item in body.get("items", [])])
            self.ages.append([item["age_ms"] for item in body.get("items", [])])
            if len(self.batches) in (self.turn_away, self.drop):
                behaviour = "busy" if len(self.batches) == self.turn_away else "refuses"
            elif 0 < self.slow_from <= len(self.batches):
                behaviour = "slow"
                await self._tell()
        try:
            return await self._behave(behaviour, is_health, request, body)
        finally:
            await self._tell()

    async def _tell(self) -> None:
        async with self._heard:
            self._heard.notify_all()

    async def _behave(
        self, behaviour: Behaviour, is_health: bool, request: httpx2.Request, body: dict[str, Any]
    ) -> httpx2.Response:
        match behaviour:
            case "refuses":
                raise httpx2.ConnectError("connection refused", request=request)
            case "hangs":
                await asyncio.Event().wait()
            case "slow":
                await self._released.wait()
            case "garbage":
                return httpx2.Response(200, html="<html>Please log in to the hotel's network.</html>")
            case "broken":
                return _error(500, "internal")
            case "busy":
                return _error(503, "busy", {"Retry-After": "7"})
            case "unauthorised":
                return _error(401, "unknown_token")
            case "too_large" if "items" in body and len(body["items"]) > self.largest:
                return _error(413, "too_large")
        if is_health:
            return httpx2.Response(200, json={"status": "ok", "generation": self.generation})
        if request.headers.get("Authorization") != f"Bearer {self.credential}":
            return _error(401, "unknown_token")
        if "previous_epochs" in body:
            return self._open_session(SessionRequest.model_validate(body))
        if body["fence"] not in (None, self.fence):
            return _error(409, "fenced")
        if body["generation"] != self.generation:
            return _error(409, "generation_changed")
        self.accounts.append(PushRequest.model_validate(body).epoch_accounts)
        answer = self._settle(PushRequest.model_validate(body))
        if self.lose_answers:
            self.lose_answers -= 1
            raise httpx2.ReadError("the connection broke before the answer came", request=request)
        return httpx2.Response(200, content=answer.model_dump_json(), headers={"Content-Type": "application/json"})

    def restore(self, nodes: dict[str, NodeDocument]) -> None:
        """From a backup that held `nodes` and no receipts; then `pureboot central post-restore`."""
        self.generation += 1
        self.nodes = {id: node.model_copy(update={"version": node.version + 1000}) for id, node in nodes.items()}
        self._receipts, self._expected, self._aliases, self.conflicts = {}, {}, {}, {}

    def _open_session(self, request: SessionRequest) -> httpx2.Response:
        self.sessions.append(request)
        if self.fenced and self.fenced not in (request.epoch, *request.previous_epochs):
            return _error(409, "fenced")
        if request.epoch != self._holder:
            self._holder = request.epoch
            self.fence += 1
        grant = SessionGrant(fence=self.fence, lease_seconds=self.lease_seconds, spread_ms=self.spread)
        return httpx2.Response(200, json=grant.model_dump())

    def _settle(self, request: PushRequest) -> PushAnswer:
        results = [self._settle_one(item) for item in request.items]
        touched = dict.fromkeys(self._aliases.get(i.lane, i.lane) for i in request.items)
        decided = [i.body.get("conflict_id", "") for i in request.items if i.item_type == "settlement"]
        about = dict.fromkeys([*(r.conflict_id for r in results if r.conflict_id), *decided])
        conflicts = [self.conflicts[id] for id in about if id in self.conflicts]
        nodes = [_pushed(self.nodes[id]) for id in touched if id in self.nodes]
        return PushAnswer(generation=self.generation, results=results, nodes=nodes, conflicts=conflicts)

    def _settle_one(self, item: PushItem) -> PushResult:
        content = json.dumps([item.item_type, item.body], sort_keys=True)
        if item.lane in self.put_off:
            return PushResult(id=item.id, outcome=Outcome.RETRY_LATER, reason="not now")
        if item.id in self._receipts:
            first_content, first = self._receipts[item.id]
            if content != first_content:
                return PushResult(id=item.id, outcome=Outcome.REJECTED, reason="id_reuse: used for something else.")
            return first.model_copy(update={"outcome": Outcome.DUPLICATE, "first": first.outcome})
        result = self._rule(item)
        self._receipts[item.id] = (content, result)
        self.effects.append(item.id)
        return result

    def _rule(self, item: PushItem) -> PushResult:
        try:
            change = to_change(item)
        except PureBootError as error:
            return PushResult(id=item.id, outcome=Outcome.REJECTED, reason=f"{error.code}: {error.message}")
        if item.lane in self.refused:
            return PushResult(id=item.id, outcome=Outcome.REJECTED, reason="refused: by this test.")
        if isinstance(change, Registration):
            return self._register(item, change)
        node = self.nodes.get(self._aliases.get(item.lane, item.lane))
        if node is None and item.item_type == "discard":
            return PushResult(id=item.id, outcome=Outcome.APPLIED)
        if node is None:
            return PushResult(id=item.id, outcome=Outcome.REJECTED, reason="unknown_node: register it first.")
        match change:
            case NodeEvent():
                return self._event(item, change)
            case Settlement():
                return self._settle_conflict(item, node, change)
        return self._move(item, node, change)

    def _register(self, item: PushItem, change: Registration) -> PushResult:
        macs = [str(mac) for mac in change.mac_addresses]
        node = next((n for n in self.nodes.values() if set(macs) & set(n.mac_addresses)), None)
        if node is None:
            node = _document(change.node_id, macs, Stage(NodeState.DISCOVERED))
        elif node.id != change.node_id:
            self._aliases[change.node_id] = node.id
        facts = node.facts | change.facts
        if facts != node.facts:
            node = node.model_copy(update={"facts": facts, "version": node.version + (node.id in self.nodes)})
        self.nodes[node.id] = node
        self._expected[item.id] = node.state_rev
        return PushResult(id=item.id, outcome=Outcome.APPLIED, canonical_id=node.id)

    def _event(self, item: PushItem, change: NodeEvent) -> PushResult:
        return PushResult(id=item.id, outcome=Outcome.APPLIED)

    def _move(self, item: PushItem, node: NodeDocument, change: StateUpdate) -> PushResult:
        expected = self._expected.get(item.after) if item.after else item.base.state_rev if item.base else None
        match judge(change.edge, node.stage, node.state_rev, expected):
            case Apply():
                node = self.nodes[node.id] = _changed(node, change.edge.target)
            case Converged():
                pass
            case Illegal():
                self._expected[item.id] = expected
                return PushResult(id=item.id, outcome=Outcome.REJECTED, reason="illegal_edge: there is none such.")
            case _:
                return self._dispute(item, node, change.edge)
        self._expected[item.id] = node.state_rev
        return PushResult(id=item.id, outcome=Outcome.APPLIED)

    def _settle_conflict(self, item: PushItem, node: NodeDocument, change: Settlement) -> PushResult:
        conflict = self.conflicts.get(change.conflict_id)
        if conflict is None or conflict.node_id != node.id:
            return PushResult(id=item.id, outcome=Outcome.REJECTED, reason="unknown_conflict: there is none such.")
        if conflict.resolved and conflict.resolution is not change.resolution:
            return PushResult(id=item.id, outcome=Outcome.REJECTED, reason="already_resolved: somebody was faster.")
        if not conflict.resolved and change.resolution is Resolution.KEEP_LOCAL:
            self.nodes[node.id] = _changed(node, Stage(NodeState(conflict.local_state), conflict.local_attempt or 0))
        self.conflicts[conflict.id] = conflict.model_copy(
            update={
                "status": "resolved",
                "resolved": True,
                "resolution": change.resolution,
                "resolved_by": f"{change.person} at attic",
                "resolved_at": datetime.now(UTC),
            }
        )
        return PushResult(id=item.id, outcome=Outcome.APPLIED)

    def _dispute(self, item: PushItem, node: NodeDocument, edge: Edge) -> PushResult:
        now = datetime.now(UTC)
        settled = self.strategy is Strategy.CENTRAL_WINS
        conflict = ConflictDocument(
            id=f"conflict-{len(self.conflicts) + 1}",
            node_id=node.id,
            node_mac=node.mac_address,
            conflict_type="state_mismatch",
            base_state=edge.origin.state,
            local_state=edge.target.state,
            local_attempt=edge.target.attempt,
            central_state=node.state,
            local_chain=[item.id],
            local_updated_at=now,
            central_updated_at=node.updated_at,
            strategy=self.strategy,
            status="resolved" if settled else "pending",
            resolved=settled,
            resolution=Resolution.KEEP_CENTRAL if settled else None,
            resolved_by="strategy" if settled else None,
            resolved_at=now if settled else None,
        )
        self.conflicts[conflict.id] = conflict
        return PushResult(
            id=item.id,
            outcome=Outcome.CONFLICT,
            conflict_id=conflict.id,
            resolution=conflict.resolution,
            reason="moved",
        )


def _document(node_id: str, macs: list[str], stage: Stage) -> NodeDocument:
    now = datetime.now(UTC)
    return NodeDocument(
        id=node_id,
        mac_address=macs[0],
        mac_addresses=macs,
        state=stage.state,
        attempt=stage.attempt,
        version=1,
        state_rev=1,
        home_site_id="attic",
        created_at=now,
        updated_at=now,
    )


def _changed(node: NodeDocument, stage: Stage) -> NodeDocument:
    changed = {"state": stage.state, "attempt": stage.attempt, "version": node.version + 1}
    return node.model_copy(update=changed | {"state_rev": node.state_rev + 1, "updated_at": datetime.now(UTC)})


def _pushed(node: NodeDocument) -> PushedNode:
    return PushedNode(id=node.id, version=node.version, state_rev=node.state_rev, state=node.state, doc=node)


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    body = {"error": {"code": code, "message": f"The fake central says {status}.", "hint": ""}}
    return httpx2.Response(status, json=body, headers=headers)
