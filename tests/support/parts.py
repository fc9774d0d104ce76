"""The agent's write side on one real file, without the loops and the network around it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.conflicts import ConflictDetector, ConflictTable
from pureboot.agent.database import Database
from pureboot.agent.journal import Journal
from pureboot.agent.mirror import Mirror
from pureboot.agent.queue import QueueItem, SyncQueue
from pureboot.agent.site import Position, SiteState
from pureboot.core.lifecycle import Autonomy, NodeState
from pureboot.core.reconcile import Strategy
from pureboot.wire.messages import ConflictDocument, FeedItem, FeedPage, NodeDocument, SiteDocument
from tests.fakes import SiteClock

MAC = "52:54:00:aa:bb:01"
OTHER_MAC = "52:54:00:aa:bb:02"
EPOCH = datetime(2026, 1, 28, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Parts:
    clock: SiteClock
    database: Database
    cache: NodeStateCache
    queue: SyncQueue
    site: SiteState
    conflicts: ConflictTable
    journal: Journal
    mirror: Mirror
    detector: ConflictDetector

    async def knows(self, node_id: str = "n1", mac: str = MAC, **fields: Any) -> CachedNode:
        """Central has told this site of the node."""
        await self.reads(page(node_item(node_id, mac, **fields)))
        return self.node(node_id)

    def node(self, node_id: str = "n1") -> CachedNode:
        found = self.cache.by_id(node_id)
        assert found is not None, f"{node_id} is not here"
        return found

    async def reads(self, page: FeedPage, since: Position | None = None) -> bool:
        """A page of the feed; None: asked for just now."""
        return await self.mirror.store_page(page, since or self.site.position)

    async def hears(self, document: ConflictDocument, version: int = 1) -> None:
        """Central tells this site of the conflict."""
        doc = document.model_dump(mode="json") | {"version": version}
        item = FeedItem(pos=2, type="conflict", op="upsert", id=document.id, version=version, doc=doc)
        await self.reads(page(item))

    async def waiting(self) -> list[QueueItem]:
        return await self.queue.peek(1000)

    async def has_autonomy(self, level: Autonomy, **fields: Any) -> None:
        document = SiteDocument(
            id="attic", name="attic", version=1, created_at=EPOCH, updated_at=EPOCH, autonomy_level=level, **fields
        )
        await self.database.store.write(lambda tx: self.site.set_site(tx, document))

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What is on disk, whatever the views in memory say."""
        found = self.database.store.read_now(lambda c: c.execute(sql, parameters).fetchall())
        return [tuple(row) for row in found]


@contextmanager
def opened(path: Path, clock: SiteClock | None = None, **journal: Any) -> Iterator[Parts]:
    """A second one on the same path goes on where the first stopped."""
    clock = clock or SiteClock()
    database = Database(path)
    cache, queue = NodeStateCache(database), SyncQueue(database, clock=clock)
    site, conflicts = SiteState(database, clock), ConflictTable(database)
    for view in (cache, site, conflicts):
        view.load()
    journal_of_site = Journal(cache, queue, site, **journal)
    try:
        yield Parts(
            clock=clock,
            database=database,
            cache=cache,
            queue=queue,
            site=site,
            conflicts=conflicts,
            journal=journal_of_site,
            mirror=Mirror(cache, queue, site, conflicts),
            detector=ConflictDetector(cache, table=conflicts, decide=journal_of_site.decide),
        )
    finally:
        database.close()


def node_document(node_id: str, mac: str, **fields: Any) -> NodeDocument:
    values = {
        "mac_addresses": [mac],
        "state": NodeState.INSTALLED,
        "attempt": 0,
        "version": 1,
        "state_rev": 1,
        "home_site_id": "attic",
        "created_at": EPOCH,
        "updated_at": EPOCH,
    }
    return NodeDocument.model_validate(values | {"id": node_id, "mac_address": mac} | fields)


def node_item(node_id: str, mac: str, **fields: Any) -> FeedItem:
    document = node_document(node_id, mac, **fields)
    doc = document.model_dump(mode="json")
    return FeedItem(pos=1, type="node", op="upsert", id=node_id, version=document.version, doc=doc)


def conflict_document(conflict_id: str, node_id: str, mac: str = MAC, **fields: Any) -> ConflictDocument:
    values = {
        "node_mac": mac,
        "conflict_type": "state_mismatch",
        "base_state": "installed",
        "local_state": "active",
        "central_state": "reprovision",
        "local_chain": [],
        "local_updated_at": EPOCH,
        "central_updated_at": EPOCH,
        "strategy": Strategy.MANUAL,
        "status": "pending",
        "resolved": False,
        "resolution": None,
        "resolved_by": None,
        "resolved_at": None,
    }
    return ConflictDocument.model_validate(values | {"id": conflict_id, "node_id": node_id} | fields)


def page(*items: FeedItem, next: str = "1.1", more: bool = False, generation: int = 1) -> FeedPage:
    return FeedPage(generation=generation, items=list(items), next=next, more=more)
