"""A site's agent without its program's shell: the real parts on one real file, and what is done to them."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from pureboot.agent import accounts
from pureboot.agent.bounds import Bounds, Space
from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.conflicts import ConflictDetector, ConflictTable
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.content import ContentFetcher
from pureboot.agent.database import Database
from pureboot.agent.journal import Accepted, Journal
from pureboot.agent.mirror import Mirror
from pureboot.agent.observations import Observations
from pureboot.agent.offline_boot import OfflineBootGenerator
from pureboot.agent.proxy import CentralProxy
from pureboot.agent.queue import SyncQueue
from pureboot.agent.queue_processor import ProcessResult, QueueProcessor
from pureboot.agent.schema import MIGRATIONS
from pureboot.agent.session import Session
from pureboot.agent.site import SiteState
from pureboot.agent.sync import CacheSyncService
from pureboot.central.accounts import Agent
from pureboot.core.changes import NodeEvent
from pureboot.core.lifecycle import NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.reconcile import Resolution
from pureboot.storage.sqlite import Store
from pureboot.wire.messages import EpochAccount
from tests.fakes import SiteClock
from tests.simulation.fuse import Fuse, mortal_connection
from tests.simulation.network import URL, HealthOnly, Line, Network

ROOMY = Space(2**40, 2**39)


async def _nothing(*_: object) -> None: ...


@dataclass(frozen=True)
class Limits:
    """Of a site's outbox. Small ones make a crowded site."""

    items: int = 100_000
    sent_bytes: int = 2**26

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.items, 2**28, 2**29, self.sent_bytes, space=lambda _: ROOMY)


class Process:
    """One life of an agent, on the file in `path`. `epoch`: of the life it was copied from while that ran (a fork)."""

    def __init__(
        self,
        name: str,
        path: Path,
        identity: Agent,
        clock: SiteClock,
        network: Network,
        content: ContentCache,
        dice: Random,
        limits: Limits,
        epoch: str = "",
    ) -> None:
        self.name, self.path, self.identity, self.clock, self.limits = name, path, identity, clock, limits
        self.fuse = Fuse()
        self._dice = dice
        self.database = Database(
            path, opening=lambda p: Store(p, MIGRATIONS, threaded=False, writing=mortal_connection(self.fuse))
        )
        self.site, self.cache = SiteState(self.database, clock), NodeStateCache(self.database)
        self.conflicts = ConflictTable(self.database)
        for view in (self.site, self.cache, self.conflicts):
            view.load()
        self.queue = SyncQueue(self.database, clock=clock, bounds=limits.bounds)
        self.queue.epoch = epoch or self.queue.epoch
        self.journal = Journal(self.cache, self.queue, self.site)
        self.detector = ConflictDetector(self.cache, table=self.conflicts, decide=self.journal.decide)
        transport = HealthOnly(network, identity)
        self.connectivity = ConnectivityMonitor(URL, failure_threshold=1, transport=transport, now=clock.when)
        self.meanwhile: Callable[[str], Awaitable[None]] = _nothing
        line = Line(network, identity, lambda what: self.meanwhile(what))
        proxy = CentralProxy(
            URL,
            self.connectivity,
            self.queue,
            agent_id=identity.id,
            client=line,
            journal=self.journal,
            site=self.site,
            write_confirm_budget=0,
        )
        mirror = Mirror(self.cache, self.queue, self.site, self.conflicts)
        self.session = Session(proxy, self.queue)
        self.processor = QueueProcessor(
            self.queue,
            proxy,
            self.connectivity,
            4,
            mirror=mirror,
            batch_max=32,
            session=self.session,
            chance=dice.random,
            sleep=self._sleep,
        )
        self.observations = Observations(self.journal)
        self.boots = OfflineBootGenerator(
            self.cache,
            content,
            "site",
            site=self.site,
            journal=self.journal,
            proxy=proxy,
            connectivity=self.connectivity,
            observations=self.observations,
            confirm_budget=0,
            base_url="http://agent:8080",
        )
        following = partial(
            CacheSyncService,
            line,
            self.connectivity,
            mirror,
            self.site,
            self.cache,
            self.queue,
            ContentFetcher(content, line, wanted=self.site.content),
            self.detector,
        )
        self.sync = following(drain=self.processor.process_queue)
        # The feed's loop, while the other one is in the middle of a push.
        self._beside_a_push = following(drain=_nothing)

    async def start(self) -> None:
        await self.queue.initialize()

    def end(self) -> None:
        """However it ended: nothing that was not committed is left."""
        self.database.close()

    async def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # What machines do

    async def boot(self, mac: str) -> str:
        return await self.boots.generate_script(mac)

    async def report(self, mac: str, event: str, *, report_id: str | None, token: str | None) -> Accepted:
        return await self.journal.report(
            MacAddress.parse(mac), NodeEvent("", event), report_id=report_id, boot_token=token
        )

    async def move(self, node_id: str, state: NodeState, *, token: str | None) -> Accepted:
        return await self.journal.move(node_id, state, report_id=None, boot_token=token)

    async def register(self, mac: str, facts: dict[str, str]) -> Accepted:
        return await self.journal.register(MacAddress.parse(mac), facts=facts)

    # What people at the site do

    async def decree(self, node_id: str, state: NodeState) -> Accepted:
        return await self.journal.decree(node_id, state, comment="", person="Ada")

    async def settle(self, conflict_id: str, how: Resolution) -> Accepted | None:
        return await self.detector.settle(conflict_id, how, person="Ada")

    # What the agent's loops do, one step each

    async def push(self) -> ProcessResult:
        return await self.processor.process_queue()

    async def listen(self) -> None:
        """Reads the feed while a push is under way."""
        await self._beside_a_push.sync_once()

    async def tidy(self) -> None:
        await self.observations.flush()
        limit = self.limits.sent_bytes
        await self.database.store.write(lambda tx: self.queue.forget_sent(tx, self.clock.when().replace(year=2000)))
        assert self.usage("sent")[1] <= limit, "sync_sent is over its bound"

    # What a checker looks at: the file itself, whatever the memory says

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in self.database.store.read_now(lambda c: c.execute(sql).fetchall())]

    def held(self) -> set[str]:
        """The ids of all items that the file holds, settled or not."""
        return {str(row[0]) for row in self.rows("SELECT id FROM sync_queue UNION SELECT id FROM sync_sent")}

    def targets(self, ids: set[str]) -> dict[str, Stage]:
        """Where those of these items lead that are state updates."""
        said = {str(id): json.loads(str(payload)) for id, payload in self.rows(_UPDATES)} if ids else {}
        return {id: Stage(NodeState(said[id]["to_state"]), said[id].get("attempt", 0)) for id in ids & said.keys()}

    def is_disputed(self, node_id: str) -> bool:
        """Whether it was told of a conflict that nobody has settled."""
        open = self.rows(f"SELECT 1 FROM conflict WHERE node_id = '{node_id}' AND resolved = 0 AND preview = 0")
        return bool(open)

    def usage(self, what: str) -> tuple[int, int]:
        [[items, size]] = self.rows(f"SELECT items, bytes FROM queue_usage WHERE what = '{what}'")
        assert isinstance(items, int)
        assert isinstance(size, int)
        return items, size

    def accounts(self) -> Sequence[EpochAccount]:
        return self.database.store.read_now(accounts.read)

    def node(self, mac: str) -> CachedNode | None:
        return self.cache.by_mac(MacAddress.parse(mac))


_UPDATES = """
SELECT id, payload FROM sync_queue WHERE item_type = 'state_update'
UNION SELECT id, payload FROM sync_sent WHERE item_type = 'state_update'
"""
