"""Where central's word lands: the answer to a push, and a page of the feed. Each in one transaction.

A node's row has two parts: the base, which is central's, and the effective stage, which is the base folded with what
this site has not yet delivered. Storing the nodes of a push answer in the transaction that removes its items is what
keeps the two from drifting apart (PROTOCOL 2).
"""

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydantic import ValidationError

from pureboot.agent import sweep
from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.conflicts import ConflictTable
from pureboot.agent.queue import QueueItem, SyncQueue
from pureboot.agent.queue_items import edge_of
from pureboot.agent.site import Position, SiteState
from pureboot.core.errors import Invalid, PureBootError
from pureboot.core.lifecycle import Autonomy, NodeState, Stage
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import (
    UNKNOWN_NODE,
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
    WorkflowDocument,
    explain,
)

log = logging.getLogger(__name__)

OnRetry = Callable[[Transaction, PushResult], None]


@dataclass(frozen=True, slots=True)
class Told:
    """Which state of a node central told of. The answer to a push and the feed may overtake each other."""

    generation: int
    version: int

    @classmethod
    def of(cls, node: CachedNode) -> "Told | None":
        """What the node stands on; None: central has never told of it."""
        if node.base_version is None or node.base_generation is None:
            return None
        return cls(node.base_generation, node.base_version)

    def covers(self, other: "Told") -> bool:
        """Whether the other one says nothing newer; of another generation it may."""
        return other.generation == self.generation and other.version <= self.version

    def is_old(self, node: CachedNode) -> bool:
        """Whether more is known of the node already."""
        known = Told.of(node)
        return known is not None and known.generation == self.generation and self.version < known.version


class Mirror:
    def __init__(self, cache: NodeStateCache, queue: SyncQueue, site: SiteState, conflicts: ConflictTable) -> None:
        self._cache, self._queue, self._site, self._conflicts = cache, queue, site, conflicts
        # Nodes that central took away in this life: an older answer may still be on its way. After a restart none is.
        self._left: dict[str, Told] = {}
        queue.on_discard(lambda tx, lane: self._refold(tx, [lane]))

    @property
    def generation(self) -> int:
        """Central's, as far as we have heard."""
        return self._site.position.generation

    async def settle(self, items: list[PushItem], answer: PushAnswer, on_retry: OnRetry) -> None:
        await self._cache.database.store.write(lambda tx: self.settle_in(tx, items, answer, on_retry))

    def settle_in(self, tx: Transaction, items: list[PushItem], answer: PushAnswer, on_retry: OnRetry) -> None:
        """`on_retry` says what becomes of an item that central could not settle; called in the transaction."""
        lanes = {item.id: item.lane for item in items}
        if answer.generation != self._site.position_in(tx).generation:
            self._turn_to(tx, answer.generation)
        results = [result for result in answer.results if result.id in lanes]
        for result in results:
            if not result.settled:
                on_retry(tx, result)
        self._queue.settle_all(tx, [result for result in results if result.settled])
        touched = {id: None for result in results for id in self._settled(tx, lanes[result.id], result)}
        for conflict in answer.conflicts:
            self._store_conflict(tx, conflict)
        for node in answer.nodes:
            if node.doc is None:
                self._let_go(tx, node.id, Told(answer.generation, node.version))
        documents = {node.id: node.doc for node in answer.nodes if node.doc is not None}
        self._store_nodes(tx, documents.values(), answer.generation)
        self._refold(tx, touched | dict.fromkeys(documents))
        unknown = [lanes[r.id] for r in results if r.code == UNKNOWN_NODE]
        if any(self._cache.is_confirmed(tx, lane) for lane in unknown):
            # Central was restored from a backup of before the node, and a pass over its feed left the row alone, for
            # it had something to say. What central has now, another pass tells: a duplicate's outcome is old.
            self._read_anew(tx)

    async def store_page(self, page: FeedPage, since: Position) -> bool:
        """The cursor moves with what it stands for. The last page of a pass also says how fresh everything is.

        False: the page is of another generation, or no longer what comes after our place on the feed, which was
        `since` when it was asked for. Nothing of it is stored; this site speaks first, and listens anew.
        """

        def work(tx: Transaction) -> bool:
            if since != self._site.position_in(tx):
                # An answer to a push has begun a pass meanwhile. As its first page this one would be the pass without
                # what came before it, and all of that would be swept away.
                return False
            if page.generation != since.generation:
                self._turn_to(tx, page.generation)
                return False
            sweeping = sweep.is_on(tx)
            for item in page.items:
                self._read_item(tx, item, page.generation)
                if sweeping and item.op == "upsert":
                    sweep.saw(tx, item.type, item.id)
            self._site.set_position(tx, Position(page.generation, page.next))
            if not page.more:
                self._site.passed(tx)
                if sweeping:
                    self._sweep(tx)
            return True

        return await self._cache.database.store.write(work)

    async def begin_generation(self, generation: int) -> bool:
        """Central was restored from a backup: what it settled goes out again, its revisions are from another life, and
        the feed is read from its start. False: it is the one we are in."""

        def work(tx: Transaction) -> bool:
            if generation == self._site.position_in(tx).generation:
                return False
            self._turn_to(tx, generation)
            return True

        return await self._cache.database.store.write(work)

    async def begin_pass(self) -> None:
        """The feed no longer knows our place in it: it is read from its start."""
        await self._cache.database.store.write(self._read_anew)

    def _read_anew(self, tx: Transaction) -> None:
        position = self._site.position_in(tx)
        if position.cursor != sweep.START:
            sweep.begin(tx)
            self._site.set_position(tx, replace(position, cursor=sweep.START))

    def _turn_to(self, tx: Transaction, generation: int) -> None:
        # A node's base keeps the generation it is of: shown as before, and what was made on it says so (`Base`).
        sweep.begin(tx)
        self._site.set_position(tx, Position(generation, sweep.START))
        back = self._queue.bring_back(tx)
        log.warning("central's generation is %d now; %d settled items go out again", generation, back)

    def _sweep(self, tx: Transaction) -> None:
        unseen = sweep.end(tx)
        for node_id in unseen["node"]:
            self._let_go(tx, node_id)
        for workflow_id in unseen["workflow"]:
            self._site.drop_workflow(tx, workflow_id)
        for name in unseen["content"]:
            self._site.drop_content(tx, name)
        for conflict_id in unseen["conflict"]:
            self._drop_conflict(tx, conflict_id)

    def _drop_conflict(self, tx: Transaction, conflict_id: str) -> None:
        """Central knows no such conflict: the node is as central says."""
        self._conflicts.drop(tx, conflict_id)
        for row in tx.execute("SELECT id FROM node WHERE conflict_id = ?", [conflict_id]).fetchall():
            if (node := self._cache.find(tx, row["id"])) is not None:
                self._cache.save(tx, replace(node, conflict_id=None))
                self._refold(tx, [node.node_id])

    def _settled(self, tx: Transaction, lane: str, result: PushResult) -> tuple[str, ...]:
        """The nodes it concerns: the one that spoke, and the one central takes it for, if that is another."""
        node_id = result.canonical_id or lane
        if not result.settled:
            return (lane,)
        if node_id != lane and not self._is_centrals(tx, lane):
            self._rename(tx, lane, node_id)
        if result.effect is Outcome.CONFLICT and result.resolution is None:
            self._dispute(tx, node_id, result.conflict_id)
        return (lane, node_id)

    def _dispute(self, tx: Transaction, node_id: str, conflict_id: str | None) -> None:
        """Not if the feed has told of its end meanwhile; where it was opened again, its document says so."""
        settled = conflict_id is not None and self._conflicts.is_resolved(tx, conflict_id)
        if not settled and (node := self._cache.find(tx, node_id)) is not None:
            self._cache.save(tx, replace(node, conflict_id=conflict_id))

    def _dispute_late(self, tx: Transaction, node_id: str) -> None:
        """Its conflict was told of before it was here."""
        node = self._cache.find(tx, node_id)
        if node is not None and node.conflict_id is None and (document := self._conflicts.open_about(tx, node_id)):
            self._cache.save(tx, self._disputed(tx, node, document))

    def _is_centrals(self, tx: Transaction, node_id: str) -> bool:
        """Whether central has told of a node of this very name. A registration that was made under another one before
        may have made a node of its own: central had deleted this one meanwhile."""
        node = self._cache.find(tx, node_id)
        return node is not None and node.base_generation == self._site.position_in(tx).generation

    def _rename(self, tx: Transaction, old: str, new: str) -> None:
        self._cache.rename(tx, old, new)
        self._queue.rename_lane(tx, old, new)
        self._dispute_late(tx, new)

    def _store_nodes(self, tx: Transaction, documents: Collection[NodeDocument], generation: int) -> None:
        """Most nodes of an answer are as they were, for events move none: those cost no statement each."""
        sweep.saw_all(tx, "node", [document.id for document in documents])
        here = self._cache.find_all(tx, [document.id for document in documents])
        made_here = self._cache.unconfirmed(tx, [mac for document in documents for mac in document.mac_addresses])
        for document in documents:
            node = here.get(document.id)
            told = Told(generation, document.version)
            is_known = node is not None and node.node_id == document.id and Told.of(node) == told and not node.gone
            if not is_known or not made_here.isdisjoint(document.mac_addresses):
                self._base_on(tx, document, generation)

    def _store_node(self, tx: Transaction, document: NodeDocument, generation: int) -> None:
        sweep.saw(tx, "node", document.id)
        self._base_on(tx, document, generation)
        self._refold(tx, [document.id])

    def _base_on(self, tx: Transaction, document: NodeDocument, generation: int) -> None:
        told = Told(generation, document.version)
        left = self._left.get(document.id)
        if left is not None and left.covers(told):
            self._let_go(tx, document.id, left)
            return
        self._cache.unalias(tx, document.id)
        for mac in document.mac_addresses:
            owner = self._cache.owner(tx, mac)
            # A node made here that central never confirmed is this one. Another of central's own merely lost the MAC:
            # what the site has to say of that one stays its own.
            if owner is not None and owner.node_id != document.id and owner.base_version is None:
                self._rename(tx, owner.node_id, document.id)
        here = self._cache.find(tx, document.id)
        if here is not None and told.is_old(here):
            return
        if here is None or told != Told.of(here) or here.gone:  # gone, and told of: a pass did not meet it
            node = _based_on(document, here, generation)
            self._cache.save(tx, node)
            self._conflicts.told(tx, node.macs)
            local = self._cache.facts(tx, document.id)
            self._cache.set_document(tx, document.id, document.model_dump_json(), document.facts | local)
        if here is None:
            self._dispute_late(tx, document.id)

    def _refold(self, tx: Transaction, node_ids: Iterable[str]) -> None:
        """A disputed node keeps its local stage beside the base until the conflict is settled."""
        found = self._cache.find_all(tx, node_ids).values()
        nodes = {node.node_id: node for node in found if node.conflict_id is None}
        edges = self._queue.unsettled_edges(tx, nodes)
        for node in nodes.values():
            stage = fold(node.base or Stage(NodeState.DISCOVERED), edges[node.node_id])
            if node.gone:
                self._let_go(tx, node.node_id)
            elif stage != node.stage:
                self._cache.save(tx, node.at(stage, datetime.now(UTC)))

    def _let_go(self, tx: Transaction, node_id: str, told: Told | None = None) -> None:
        """Central has deleted the node or moved it away, as `told`; None: a pass did not meet it. Nothing is forgotten
        that still has something to deliver."""
        left = self._left.get(node_id)
        if told is not None and not (left and left.covers(told)):
            self._left[node_id] = told
        node = self._cache.find(tx, node_id)
        if node is None or node.node_id != node_id or (told and told.is_old(node)):
            return
        if node.conflict_id is None and not self._queue.has_unsettled(tx, node_id):
            self._cache.forget(tx, node_id)
            return
        if not node.gone:
            self._cache.save(tx, replace(node, gone=True))

    def _store_conflict(self, tx: Transaction, document: ConflictDocument) -> None:
        sweep.saw(tx, "conflict", document.id)
        if not self._conflicts.store(tx, document):
            return
        node = self._cache.find(tx, document.node_id)
        if node is None:
            return
        if not document.resolved:
            self._cache.save(tx, self._disputed(tx, node, document))
        elif node.conflict_id == document.id:
            self._cache.save(tx, replace(node, conflict_id=None))
            self._refold(tx, [node.node_id])

    def _disputed(self, tx: Transaction, node: CachedNode, document: ConflictDocument) -> CachedNode:
        """While a conflict waits, the site's own side of it stands: its chain, and what goes on from there and is not
        delivered. It may have been given up for central's, by a decision that is taken back, or by a page of the feed
        that came before the conflict was known. What the site did since on central's side stands, too."""
        node = replace(node, conflict_id=document.id)
        if document.local_attempt is None:
            return node
        local = Stage(NodeState.parse(document.local_state), document.local_attempt)
        unsettled = self._queue.unsettled_edges(tx, [node.node_id])[node.node_id]
        later = [item for item in unsettled if item.id not in document.local_chain]
        stage = fold(local, later)
        if stage == node.stage or (later and stage == local):
            return node
        return node.at(stage, datetime.now(UTC))

    def _read_item(self, tx: Transaction, item: FeedItem, generation: int) -> None:
        try:
            self._store_item(tx, item, generation)
        except ValidationError as error:
            raise Invalid(f"The feed's {item.type} {item.id} cannot be read: {explain(error).message}") from None

    def _store_item(self, tx: Transaction, item: FeedItem, generation: int) -> None:
        match item.type, item.op:
            case "node", "upsert":
                self._store_node(tx, NodeDocument.model_validate(item.doc), generation)
            case "node", _:
                self._let_go(tx, item.id, Told(generation, item.version))
            case "conflict", "upsert":
                self._store_conflict(tx, ConflictDocument.model_validate(item.doc))
            case "conflict", _:
                self._drop_conflict(tx, item.id)
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
                new = str(item.doc.get("node_id", item.id))
                self._rename(tx, item.id, new)
                self._refold(tx, [new])
            case _:
                raise PureBootError(f"The feed holds {item.type!r} with {item.op!r}, which this agent does not know.")


def fold(base: Stage, unsettled: list[QueueItem]) -> Stage:
    """The base as this site's undelivered edges leave it. An edge that starts elsewhere ends the fold: central will
    judge it. What a readonly site reports moves nothing before central says so."""
    stage = base
    for item in unsettled:
        edge = edge_of(item)
        if edge is None or item.autonomy is Autonomy.READONLY:
            continue
        if edge.origin == stage:
            stage = edge.target
        elif edge.target != stage:
            break
    return stage


def _based_on(document: NodeDocument, here: CachedNode | None, generation: int) -> CachedNode:
    local_macs = here.macs if here else ()
    macs = tuple(dict.fromkeys((document.mac_address, *document.mac_addresses, *local_macs)))
    node = here or CachedNode(document.id, document.mac_address, document.state, document.attempt)
    return replace(
        node,
        mac_address=macs[0],
        more_macs=macs[1:],
        workflow_id=document.workflow_id,
        local_boot=document.local_boot,
        hostname=document.hostname,
        base_version=document.version,
        base_state_rev=document.state_rev,
        base_state=document.state,
        base_attempt=document.attempt,
        base_generation=generation,
        gone=False,
        cached_at=datetime.now(UTC),
    )
