"""The one write path: what a machine reports, or a boot decides, is committed here before anyone is answered.

Each step is one transaction that holds the node's new state and its outbox row together, online or not. Being online
only means that the outbox drains at once.
"""

import hmac
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

import uuid_utils.compat as uuid

from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.queue import QueueItem, SyncQueue
from pureboot.agent.queue_items import edge_of
from pureboot.agent.site import SiteState
from pureboot.core.changes import Change, NodeEvent, Registration, Settlement, StateUpdate, implied_edge
from pureboot.core.errors import Clash, Forbidden, IllegalEdge, NotFound, TooManyRequests
from pureboot.core.lifecycle import (
    Autonomy,
    By,
    Edge,
    NodeState,
    Stage,
    check,
    destination,
    is_legal,
    site_may,
    site_may_settle,
)
from pureboot.core.mac import MacAddress
from pureboot.core.node import printable
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import MESSAGE_LENGTH, to_body

T = TypeVar("T")

# Of what a transaction knows: how many new machines it has taken in.
_ADMITTED = "admitted"


class EdgeOutcome(StrEnum):
    """What became of the edge a report asks for or implies."""

    APPLIED = "applied"
    NONE = "none"
    ALREADY = "already"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Accepted:
    """On disk. `queue_id` names the item whose effect the caller may wait for; None where nothing new was said."""

    node: CachedNode
    queue_id: str | None
    edge: EdgeOutcome = EdgeOutcome.NONE
    event_queue_id: str | None = None


class Moved(Clash):
    """The node is no longer where the decision saw it: decide again."""

    code = "moved"


class Journal:
    """`registrations_per_minute` bounds the rows that unknown machines (or one hostile one) can make."""

    def __init__(
        self, cache: NodeStateCache, queue: SyncQueue, site: SiteState, *, registrations_per_minute: int = 1000
    ) -> None:
        self._cache, self._queue, self._site = cache, queue, site
        self._limit = registrations_per_minute
        self._registrations: deque[float] = deque(maxlen=self._limit)
        self._begun_unsaved: set[str] = set()

    async def register(
        self, mac: MacAddress, *, hostname: str = "", facts: dict[str, str], report_id: str | None = None
    ) -> Accepted:
        """A machine was seen. A known one makes an item only if it says something new."""
        return await self._write(lambda tx: self._register(tx, mac, hostname, facts, report_id))

    async def move(
        self,
        node_id: str,
        state: NodeState,
        *,
        comment: str = "",
        report_id: str | None,
        boot_token: str | None,
        may_begin: bool = True,
    ) -> Accepted:
        """A machine says it is in `state`. Raises NotFound, Forbidden (boot token) and IllegalEdge.

        `may_begin`: an install may start now, by the same decision a boot would get; otherwise a machine's word would
        be a way around the age of an approval.
        """
        return await self._write(lambda tx: self._move(tx, node_id, state, comment, report_id, boot_token, may_begin))

    async def record(
        self,
        node_id: str,
        event: NodeEvent,
        *,
        report_id: str | None = None,
        boot_token: str | None = None,
        may_begin: bool = True,
    ) -> Accepted:
        """An event is always kept. The edge it implies is made where the lifecycle has it (`may_begin`: see `move`)."""

        def work(tx: Transaction) -> Accepted:
            return self._record(tx, self._node(tx, node_id), event, report_id, boot_token, may_begin)

        return await self._write(work)

    async def report(
        self,
        mac: MacAddress,
        event: NodeEvent,
        *,
        report_id: str | None = None,
        boot_token: str | None = None,
        may_begin: bool = True,
    ) -> Accepted:
        """As `record`, by MAC: a machine nobody knows is registered first."""

        def work(tx: Transaction) -> Accepted:
            node = self._cache.owner(tx, str(mac)) or self._register(tx, mac, "", {}, None).node
            return self._record(tx, node, event, report_id, boot_token, may_begin)

        return await self._write(work)

    async def begin(self, node_id: str, edges: tuple[Edge, ...], *, token: bool = True) -> Accepted:
        """The edges a boot decision needs, before its script is served. Raises Moved if the node is elsewhere by now.
        `token`: the script can carry one to the installer.

        At a readonly site they move nothing until central has confirmed them; asked again, the same items are meant.
        """
        return await self._write(lambda tx: self._begin(tx, node_id, edges, token))

    async def decree(self, node_id: str, state: NodeState, *, comment: str, person: str) -> Accepted:
        """An administrator's edge, made at the site: of the level full only, and never out of service. Raises NotFound,
        Forbidden (the level), Clash (disputed) and IllegalEdge."""
        return await self._write(lambda tx: self._decree(tx, node_id, state, comment, person))

    async def issue_token(self, node: CachedNode) -> CachedNode:
        """A boot token for the attempt the node is in, where it has none. Raises Moved."""

        def work(tx: Transaction) -> CachedNode:
            here = self._node(tx, node.node_id)
            if here.stage != node.stage:
                raise Moved(f"The node is {here.stage} by now.")
            if here.boot_token or here.state is not NodeState.INSTALLING:
                return here
            self._queue.forget_reports(tx, here.node_id)
            return self._save(tx, replace(here, boot_token=_token()))

        return await self._write(work)

    async def mark_begun(self, boot_token: str) -> None:
        """The attempt of this token has taken hold of its machine. Where that cannot be stored, it holds in memory
        until `save_begun`: a full disk must not let one approval install for ever."""
        self._begun_unsaved.add(boot_token)

        def work(tx: Transaction) -> None:
            row = tx.execute("SELECT id FROM node WHERE boot_token = ?", [boot_token]).fetchone()
            if row is not None:
                self._save(tx, replace(self._node(tx, row["id"]), begun=True))

        await self._write(work)
        self._begun_unsaved.discard(boot_token)

    async def save_begun(self) -> None:
        """What could not be stored when it was. Raises StorageFull where it still cannot."""
        for boot_token in list(self._begun_unsaved):
            await self.mark_begun(boot_token)

    def has_begun(self, node: CachedNode) -> bool:
        return node.begun or node.boot_token in self._begun_unsaved

    async def observe(self, events: list[NodeEvent]) -> None:
        """Observations held in memory until now: one event each. Nodes that are gone meanwhile are left out."""

        def work(tx: Transaction) -> None:
            for event in events:
                if (node := self._cache.find(tx, event.node_id)) is not None:
                    self._queue_change(tx, replace(event, node_id=node.node_id), node)

        await self._write(work)

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        return await self._cache.database.store.write(work)

    def _node(self, tx: Transaction, node_id: str) -> CachedNode:
        node = self._cache.find(tx, node_id)
        if node is None:
            raise NotFound(f"There is no node {node_id[:64]!r} here.", hint="Register it first.")
        return node

    def _save(self, tx: Transaction, node: CachedNode) -> CachedNode:
        self._cache.save(tx, node)
        return node

    def _register(
        self, tx: Transaction, mac: MacAddress, hostname: str, facts: dict[str, str], report_id: str | None
    ) -> Accepted:
        node = self._cache.owner(tx, str(mac))
        if node is None:
            self._admit(tx)
            node = self._save(tx, CachedNode(str(uuid.uuid7()), str(mac), NodeState.DISCOVERED, hostname=hostname))
            return self._queue_registration(tx, node, facts, report_id)
        known = self._cache.facts(tx, node.node_id)
        named = bool(hostname) and not node.hostname  # a name it has is central's to change
        untold = node.base is None and not self._queue.has_registration(tx, node.node_id)  # it was given up
        if facts.items() <= known.items() and not named and not untold:
            return Accepted(node, self._queue.registration(tx, node.node_id))
        node = self._save(tx, replace(node, hostname=hostname)) if named else node
        return self._queue_registration(tx, node, known | facts, report_id)

    def _queue_registration(
        self, tx: Transaction, node: CachedNode, facts: dict[str, str], report_id: str | None
    ) -> Accepted:
        key = _report_key(node, report_id, "registration")
        if key and (earlier := self._queue.reported(tx, key)):
            return Accepted(node, earlier)
        self._cache.set_facts(tx, node.node_id, facts)
        macs = tuple(MacAddress.parse(mac) for mac in node.macs)
        change = Registration(node.node_id, macs, node.hostname, facts)
        return Accepted(node, self._queue_change(tx, change, node, key))

    def _admit(self, tx: Transaction) -> None:
        """Counts what is stored: a write may be made twice, and one that is undone made no machine."""
        now = self._site.clock.stamp().boottime
        admitted = tx.known.get(_ADMITTED, 0)
        room = self._limit - admitted
        if room <= 0 or (len(self._registrations) >= room and now - self._registrations[-room] < 60):
            raise TooManyRequests(
                f"More than {self._limit} new machines in a minute; this one is not recorded.",
                hint="It registers at a later boot. The limit is the setting registrations_per_minute.",
                retry_after=60,
            )
        tx.known[_ADMITTED] = admitted + 1
        tx.after_commit(lambda: self._registrations.append(now))

    def _move(
        self,
        tx: Transaction,
        node_id: str,
        state: NodeState,
        comment: str,
        report_id: str | None,
        boot_token: str | None,
        may_begin: bool,
    ) -> Accepted:
        node = self._node(tx, node_id)
        key = _report_key(node, report_id, state)
        if key and (earlier := self._queue.reported(tx, key)):
            return Accepted(node, earlier, EdgeOutcome.ALREADY)
        _check_token(node, boot_token)
        here = self._reported_stage(tx, node)
        if state is here.state:
            return Accepted(self._hold(tx, node), None, EdgeOutcome.ALREADY)
        edge = Edge(here, destination(here, state), By.NODE)
        check(edge)
        if _begins(edge) and not may_begin:
            raise IllegalEdge(
                "This install may not start now.", hint="The machine's boot script says why; it starts by a boot."
            )
        queue_id = self._queue_change(tx, StateUpdate(node.node_id, edge, _text(comment)), node, key)
        return Accepted(self._moved(tx, node, edge), queue_id, EdgeOutcome.APPLIED)

    def _record(
        self,
        tx: Transaction,
        node: CachedNode,
        event: NodeEvent,
        report_id: str | None,
        boot_token: str | None,
        may_begin: bool,
    ) -> Accepted:
        key = _report_key(node, report_id, event.event)
        edge_key = _report_key(node, report_id, event.event, of="edge")
        if key and edge_key and (earlier := self._queue.reported(tx, key)):
            return Accepted(node, self._queue.reported(tx, edge_key) or earlier, EdgeOutcome.ALREADY, earlier)
        _check_token(node, boot_token)
        event = NodeEvent(node.node_id, event.event, _text(event.message), event.metadata, node.attempt)
        edge = implied_edge(event.event, self._reported_stage(tx, node))
        applies = edge is not None and is_legal(edge) and (may_begin or not _begins(edge))
        event_id = self._queue_change(tx, event, node, key, with_edge=applies)
        if edge is None:
            node = self._hold(tx, node) if event.event in ("install_started", "install_failed") else node
            return Accepted(node, event_id, EdgeOutcome.NONE, event_id)
        if not applies:
            return Accepted(node, event_id, EdgeOutcome.REFUSED, event_id)
        update = StateUpdate(node.node_id, edge, event.message)
        queue_id = self._queue_change(tx, update, node, edge_key)
        node = self._moved(tx, node, edge)
        return Accepted(self._hold(tx, node), queue_id, EdgeOutcome.APPLIED, event_id)

    def _hold(self, tx: Transaction, node: CachedNode) -> CachedNode:
        """The machine itself says that its install runs, or ran: the attempt has begun."""
        if node.state is not NodeState.INSTALLING or node.begun:
            return node
        return self._save(tx, replace(node, begun=True))

    def _begin(self, tx: Transaction, node_id: str, edges: tuple[Edge, ...], token: bool) -> Accepted:
        node = self._node(tx, node_id)
        if node.stage != edges[0].origin or node.disputed:
            raise Moved(f"The node is {node.stage} by now.")
        if self._site.autonomy is Autonomy.READONLY and (waiting := self._queue.previous(tx, node.node_id)):
            return Accepted(node, waiting)
        if edges[-1].target == Stage(NodeState.INSTALLING, 1):
            self._queue.forget_reports(tx, node.node_id)
        queue_id = None
        for edge in edges:
            change = StateUpdate(node.node_id, edge, "boot request")
            queue_id = self._queue_change(tx, change, node)
            node = self._moved(tx, node, edge)
        if token and node.state is NodeState.INSTALLING and node.stage == edges[-1].target:
            node = self._save(tx, replace(node, boot_token=_token()))
        return Accepted(node, queue_id, EdgeOutcome.APPLIED)

    def _decree(self, tx: Transaction, node_id: str, state: NodeState, comment: str, person: str) -> Accepted:
        node = self._node(tx, node_id)
        edge = Edge(node.stage, destination(node.stage, state), By.ADMIN)
        if not site_may(self._site.autonomy, edge):
            full = self._site.autonomy is Autonomy.FULL
            raise Forbidden(
                f"A node is made {state} at central only."
                if full
                else f"This site is {self._site.autonomy}: what administrators decide, they decide at central.",
                code="autonomy",
                hint=None if full else "A site of the level full may do it here.",
            )
        if node.disputed:
            raise Clash(
                "Site and central disagree about this node.", code="disputed", hint="Settle the conflict first."
            )
        if state is node.state:
            return Accepted(node, None, EdgeOutcome.ALREADY)
        check(edge)
        change = StateUpdate(node.node_id, edge, _text(f"{person}: {comment}" if comment else person))
        return Accepted(self._moved(tx, node, edge), self._queue_change(tx, change, node), EdgeOutcome.APPLIED)

    def decide(self, tx: Transaction, change: Settlement) -> Accepted:
        """What a person at the site says of a conflict; it counts once central confirms it. Said again, it is the same
        item. Raises NotFound, Forbidden (the level), and Clash where another decision is on its way."""
        node = self._node(tx, change.node_id)
        if not site_may_settle(self._site.autonomy):
            raise Forbidden(
                f"This site is {self._site.autonomy}: its conflicts are settled at central.", code="autonomy"
            )
        if waiting := self._queue.decision(tx, change.conflict_id):
            if waiting[1] is change.resolution:
                return Accepted(node, waiting[0], EdgeOutcome.ALREADY)
            raise Clash(
                f"{waiting[1]} was decided here and waits for central.",
                code="decided",
                hint=f"To take it back, discard it: pureboot agent queue discard {waiting[0]}.",
            )
        return Accepted(node, self._queue_change(tx, change, node))

    def _reported_stage(self, tx: Transaction, node: CachedNode) -> Stage:
        """Where the machine's own reports have led it. At a readonly site the row stays behind them until central has
        confirmed them, and the next report must not be refused for that."""
        stage = node.stage
        if self._site.autonomy is Autonomy.READONLY:
            for item in self._queue.unsettled_edges(tx, [node.node_id])[node.node_id]:
                edge = edge_of(item)
                stage = edge.target if edge is not None and edge.origin == stage else stage
        return stage

    def _moved(self, tx: Transaction, node: CachedNode, edge: Edge) -> CachedNode:
        """A readonly site moves nothing alone: its row changes when central's answer arrives."""
        if self._site.autonomy is Autonomy.READONLY:
            return node
        return self._save(tx, node.at(edge.target, datetime.now(UTC)))

    def _queue_change(
        self,
        tx: Transaction,
        change: Change,
        node: CachedNode,
        report_key: str | None = None,
        *,
        with_edge: bool = False,
    ) -> str:
        item_type, body = to_body(change)
        apart = isinstance(change, NodeEvent | Settlement)  # these make nothing that another is made on
        after = None if apart else self._queue.previous(tx, node.node_id, known=node.base is not None)
        based = after is None and node.base_state_rev is not None
        return self._queue.append(
            tx,
            QueueItem(
                id=str(uuid.uuid7()),
                item_type=item_type,
                payload=body,
                created_at=datetime.now(UTC),
                lane=node.node_id,
                after=after,
                base_generation=node.base_generation or self._site.position.generation if based else None,
                base_state_rev=node.base_state_rev if based else None,
                conflict_id=node.conflict_id,
                epoch=self._queue.epoch,
                autonomy=self._site.autonomy,
                report_key=report_key,
            ),
            with_edge=with_edge,
        )


def _report_key(node: CachedNode, report_id: str | None, what: str, *, of: str = "report") -> str | None:
    return f"{node.node_id}/{node.attempt}/{of}/{report_id}/{what}" if report_id else None


def _begins(edge: Edge) -> bool:
    return edge.target.state is NodeState.INSTALLING


def _check_token(node: CachedNode, shown: str | None) -> None:
    """Only the machine that was given this attempt's script may speak for it."""
    if node.state is not NodeState.INSTALLING or not node.boot_token:
        return
    if not hmac.compare_digest(node.boot_token.encode(), (shown or "").encode()):
        raise Forbidden(
            "This report does not show the boot token of the install in progress.",
            code="wrong_boot_token",
            hint="Send the value of pureboot.token from the kernel command line as 'boot_token'.",
        )


def _token() -> str:
    return secrets.token_urlsafe(24)


def _text(text: str) -> str:
    return printable(text, MESSAGE_LENGTH)
