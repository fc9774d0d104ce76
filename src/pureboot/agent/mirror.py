"""Where central's word lands: the answer to a push, and a page of the feed. Each in one transaction.

A node's row has two parts: the base, which is central's, and the effective stage, which is the base folded with what
this site has not yet delivered. Storing the nodes of a push answer in the transaction that removes its items is what
keeps the two from drifting apart (PROTOCOL 2).
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import ValidationError

from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.conflicts import ConflictTable
from pureboot.agent.queue import QueueItem, SyncQueue
from pureboot.agent.site import Position, SiteState
from pureboot.core.errors import Invalid, PureBootError
from pureboot.core.lifecycle import Autonomy, Edge, NodeState, Stage
from pureboot.core.reconcile import ConflictType, Resolution
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import (
    ConflictDocument,
    ContentDocument,
    FeedItem,
    FeedPage,
    NodeDocument,
    Outcome,
    PushAnswer,
    PushItem,
    PushResult,
    SiteDocument,
    StateUpdateBody,
    WorkflowDocument,
    explain,
)

OnRetry = Callable[[Transaction, PushResult], None]


class Mirror:
    def __init__(self, cache: NodeStateCache, queue: SyncQueue, site: SiteState, conflicts: ConflictTable) -> None:
        self._cache, self._queue, self._site, self._conflicts = cache, queue, site, conflicts
        queue.on_discard(self._refold)

    async def settle(self, items: list[PushItem], answer: PushAnswer, on_retry: OnRetry) -> None:
        """`on_retry` says what becomes of an item that central could not settle; called in the transaction."""
        lanes = {item.id: item.lane for item in items}

        def work(tx: Transaction) -> None:
            touched = {self._settle_one(tx, lanes[r.id], r, on_retry) for r in answer.results if r.id in lanes}
            for conflict in answer.conflicts:
                self._store_conflict(tx, conflict)
            for node in answer.nodes:
                if node.doc is not None:
                    self._store_node(tx, node.doc)
                else:
                    self._let_go(tx, node.id)
            for node_id in touched:
                self._refold(tx, node_id)
            if answer.generation != self._site.position.generation:
                self._site.set_position(tx, replace(self._site.position, generation=answer.generation))

        await self._cache.database.store.write(work)

    async def store_page(self, page: FeedPage) -> None:
        """The cursor moves with what it stands for. The last page of a pass also says how fresh everything is."""

        def work(tx: Transaction) -> None:
            for item in page.items:
                self._read_item(tx, item)
            self._site.set_position(tx, Position(page.generation, page.next))
            if not page.more:
                self._site.passed(tx)

        await self._cache.database.store.write(work)

    def _settle_one(self, tx: Transaction, lane: str, result: PushResult, on_retry: OnRetry) -> str:
        if not result.settled:
            on_retry(tx, result)
            return lane
        self._queue.settle(tx, result)
        node_id = lane
        if result.canonical_id and result.canonical_id != lane:
            node_id = result.canonical_id
            self._rename(tx, lane, node_id)
        pending = result.effect is Outcome.CONFLICT and result.resolution is None
        if pending and (node := self._cache.find(tx, node_id)) is not None:
            self._cache.save(tx, replace(node, conflict_id=result.conflict_id))
        return node_id

    def _rename(self, tx: Transaction, old: str, new: str) -> None:
        self._cache.rename(tx, old, new)
        self._queue.rename_lane(tx, old, new)

    def _store_node(self, tx: Transaction, document: NodeDocument) -> None:
        for mac in document.mac_addresses:
            owner = self._cache.owner(tx, mac)
            # A node made here that central never confirmed is this one. Another of central's own merely lost the MAC:
            # what the site has to say of that one stays its own.
            if owner is not None and owner.node_id != document.id and owner.base_version is None:
                self._rename(tx, owner.node_id, document.id)
        here = self._cache.find(tx, document.id)
        if here is not None and here.base_version is not None and document.version < here.base_version:
            return
        node = _based_on(document, here)
        self._cache.save(tx, node)
        self._conflicts.told(tx, node.macs)
        local = self._cache.facts(tx, document.id)
        self._cache.set_document(tx, document.id, document.model_dump_json(), document.facts | local)
        self._refold(tx, document.id)

    def _refold(self, tx: Transaction, node_id: str) -> None:
        """A disputed node keeps its local stage beside the base until the conflict is settled."""
        node = self._cache.find(tx, node_id)
        if node is None or node.conflict_id is not None:
            return
        base = node.base or Stage(NodeState.DISCOVERED)
        self._cache.save(tx, node.at(fold(base, self._queue.unsettled(tx, node.node_id)), datetime.now(UTC)))

    def _let_go(self, tx: Transaction, node_id: str) -> None:
        """Central has deleted the node or moved it away. Nothing is forgotten that still has something to deliver."""
        node = self._cache.find(tx, node_id)
        if node is not None and node.conflict_id is None and not self._queue.unsettled(tx, node.node_id):
            self._cache.forget(tx, node.node_id)

    def _store_conflict(self, tx: Transaction, document: ConflictDocument) -> None:
        self._conflicts.store(tx, document)
        node = self._cache.find(tx, document.node_id)
        if node is None:
            return
        if not document.resolved:
            self._cache.save(tx, replace(node, conflict_id=document.id))
        elif node.conflict_id == document.id:
            self._cache.save(tx, replace(node, conflict_id=None))
            self._refold(tx, node.node_id)
            if document.conflict_type == ConflictType.MISSING_CENTRAL and document.resolution != Resolution.KEEP_LOCAL:
                self._let_go(tx, node.node_id)

    def _read_item(self, tx: Transaction, item: FeedItem) -> None:
        try:
            self._store_item(tx, item)
        except ValidationError as error:
            raise Invalid(f"The feed's {item.type} {item.id} cannot be read: {explain(error).message}") from None

    def _store_item(self, tx: Transaction, item: FeedItem) -> None:
        match item.type, item.op:
            case "node", "upsert":
                self._store_node(tx, NodeDocument.model_validate(item.doc))
            case "node", _:
                self._let_go(tx, item.id)
            case "conflict", "upsert":
                self._store_conflict(tx, ConflictDocument.model_validate(item.doc))
            case "conflict", _:
                self._conflicts.drop(tx, item.id)
            case "site", "upsert":
                self._site.set_site(tx, SiteDocument.model_validate(item.doc))
            case "workflow", "upsert":
                self._site.set_workflow(tx, WorkflowDocument.model_validate(item.doc))
            case "workflow", _:
                self._site.drop_workflow(tx, item.id)
            case "content", "upsert":
                self._site.set_content(tx, ContentDocument.model_validate(item.doc))
            case "content", _:
                self._site.drop_content(tx, item.id)
            case "alias", _:
                self._rename(tx, item.id, str(item.doc.get("node_id", item.id)))
            case _:
                raise PureBootError(f"The feed holds {item.type!r} with {item.op!r}, which this agent does not know.")


def fold(base: Stage, unsettled: list[QueueItem]) -> Stage:
    """The base as this site's undelivered edges leave it. An edge that starts elsewhere ends the fold: central will
    judge it. What a readonly site reports moves nothing before central says so."""
    stage = base
    for item in unsettled:
        edge = _edge(item)
        if edge is None or item.autonomy is Autonomy.READONLY:
            continue
        if edge.origin == stage:
            stage = edge.target
        elif edge.target != stage:
            break
    return stage


def _edge(item: QueueItem) -> Edge | None:
    """None for what is no edge, and for one that cannot be read: central rejects that."""
    if item.item_type != "state_update":
        return None
    try:
        return StateUpdateBody.model_validate(item.payload).edge()
    except ValidationError:
        return None


def _based_on(document: NodeDocument, here: CachedNode | None) -> CachedNode:
    local_macs = here.macs if here else ()
    macs = tuple(dict.fromkeys((document.mac_address, *document.mac_addresses, *local_macs)))
    node = here or CachedNode(document.id, document.mac_address, document.state, document.attempt)
    return replace(
        node,
        mac_address=macs[0],
        more_macs=macs[1:],
        workflow_id=document.workflow_id,
        hostname=document.hostname,
        base_version=document.version,
        base_state_rev=document.state_rev,
        base_state=document.state,
        base_attempt=document.attempt,
        cached_at=datetime.now(UTC),
    )
