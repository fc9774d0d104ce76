"""A site agent, built in one place: read it from top to bottom to see what depends on what."""

import asyncio
import logging
import signal
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from typing import TypeVar

import httpx2
from starlette.types import ASGIApp

from pureboot.agent import identity
from pureboot.agent.app import create_app
from pureboot.agent.bandwidth import Bandwidth
from pureboot.agent.boot_service import AgentBootService
from pureboot.agent.bounds import Bounds
from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.cache.state_cache import NodeStateCache
from pureboot.agent.central_client import PATIENCE_FACTOR, CentralClient, http_client
from pureboot.agent.clock import Clock, SystemClock
from pureboot.agent.commands import Commands
from pureboot.agent.conflicts import ConflictDetector, ConflictTable
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.content import ContentFetcher
from pureboot.agent.database import Database, damaged_copies, get_meta, kept_aside, set_meta
from pureboot.agent.heartbeat import HeartbeatService
from pureboot.agent.housekeeping import Housekeeping
from pureboot.agent.journal import Journal
from pureboot.agent.live import Live
from pureboot.agent.metrics import SiteCollector, registry_of
from pureboot.agent.mirror import Mirror
from pureboot.agent.observations import Observations
from pureboot.agent.offline_boot import OfflineBootGenerator
from pureboot.agent.people import SiteAdmins
from pureboot.agent.progress import InstallProgress
from pureboot.agent.proxy import CentralProxy
from pureboot.agent.queue import SyncQueue
from pureboot.agent.queue_processor import QueueProcessor
from pureboot.agent.readiness import Readiness
from pureboot.agent.ready_scripts import QuickBoots, ReadyScripts
from pureboot.agent.routes.boot import boot_routes
from pureboot.agent.routes.boots import BootDesk
from pureboot.agent.routes.cache import CacheDesk
from pureboot.agent.routes.decisions import DecisionDesk
from pureboot.agent.routes.files import file_routes
from pureboot.agent.routes.nodes import Nodes
from pureboot.agent.routes.page import Page
from pureboot.agent.routes.queue import QueueDesk
from pureboot.agent.routes.status import Status
from pureboot.agent.routes.templates import Templates
from pureboot.agent.site import SiteState
from pureboot.agent.sync import CacheSyncService
from pureboot.agent.tftp import BootLoaders, TftpService
from pureboot.agent.verification import Verifier
from pureboot.agent.wants import Wants
from pureboot.config.settings import AgentSettings
from pureboot.core.errors import Busy, SettingsError
from pureboot.rendering.renderer import Renderer
from pureboot.storage.lock import FolderLock
from pureboot.tftp.server import TftpServer
from pureboot.wire.http import bind, serve_http, settle_down

log = logging.getLogger(__name__)

T = TypeVar("T")


class SiteAgent:
    """Born complete, with its file open and nothing asked of central. `transport` reaches central; none: the network.

    Raises SettingsError for a folder that `pureboot agent init` has not written or that cannot be used.
    """

    def __init__(self, settings: AgentSettings, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self.identity = identity.load(settings.data_dir)
        central_url = settings.central_url or self.identity.central_url
        site_id = settings.site_id or self.identity.site_id
        people = _usable(settings, lambda: SiteAdmins(settings.data_dir))
        clock = SystemClock()
        with ExitStack() as undo:
            self._lock = _usable(settings, lambda: FolderLock(settings.data_dir / "agent.lock", "agent"))
            undo.callback(self._lock.close)
            self.database = Database(settings.data_dir / "state" / "agent.db")
            _usable(settings, self.database.open)
            undo.callback(self.database.close)
            _check_site(self.database, self.identity.site_id)
            self.site, self.state_cache, conflicts = _views(self.database, clock)
            undo.pop_all()
        bounds = Bounds(
            settings.queue_max_items, settings.queue_max_bytes, settings.disk_floor_bytes, settings.sent_max_bytes
        )
        patience = PATIENCE_FACTOR * settings.connectivity_timeout
        self.sync_queue = SyncQueue(self.database, clock=clock, bounds=bounds, on_its_way=patience)
        self.journal = Journal(
            self.state_cache,
            self.sync_queue,
            self.site,
            registrations_per_minute=settings.registrations_per_minute,
        )
        self.conflict_detector = ConflictDetector(self.state_cache, table=conflicts, decide=self.journal.decide)
        wants = Wants(self.site, self.state_cache)
        folder = settings.data_dir / "cache"
        self.content_cache = ContentCache(
            folder,
            settings.cache_max_bytes,
            room=wants.room,
            spare=lambda floors: bounds.spare(folder / "index", floors),
        )

        self.connectivity = ConnectivityMonitor(
            central_url,
            settings.connectivity_check_interval,
            settings.connectivity_timeout,
            settings.connectivity_failure_threshold,
            last_online_at=_when(get_meta(self.database.store, "last_online_at")),
            ca_file=settings.ca_file,
            transport=transport,
        )
        self._http = http_client(
            central_url, timeout=settings.connectivity_timeout, ca_file=settings.ca_file, transport=transport
        )
        client = CentralClient(self._http, timeout=settings.connectivity_timeout, credential=self.identity.credential)

        self.proxy = CentralProxy(
            central_url,
            self.connectivity,
            self.sync_queue,
            agent_id=self.identity.agent_id,
            client=client,
            journal=self.journal,
            site=self.site,
            write_confirm_budget=settings.write_confirm_budget,
        )
        mirror = Mirror(self.state_cache, self.sync_queue, self.site, conflicts)
        self.queue_processor = QueueProcessor(
            self.sync_queue,
            self.proxy,
            self.connectivity,
            settings.queue_batch_size,
            settings.queue_retry_delay,
            settings.queue_max_retries,
            mirror=mirror,
            batch_max=settings.queue_batch_max,
            # What takes twice as long still comes before anybody gives up waiting.
            quick=0.4 * settings.connectivity_timeout,
        )

        self.observations = Observations(self.journal)
        self.offline_generator = OfflineBootGenerator(
            self.state_cache,
            self.content_cache,
            site_id,
            settings.offline_default_action,
            site=self.site,
            journal=self.journal,
            proxy=self.proxy,
            connectivity=self.connectivity,
            observations=self.observations,
            install_max_age=settings.offline_install_max_age,
            stale_after=settings.stale_after,
            # What is left of a boot's time covers the decision and its commit.
            confirm_budget=min(settings.write_confirm_budget, 0.7 * settings.boot_budget),
        )
        self.boot_service = AgentBootService(
            site_id,
            self.connectivity,
            self.offline_generator,
            budget=settings.boot_budget,
            advertise_url=settings.advertise_url,
        )
        self.fetcher = ContentFetcher(
            self.content_cache,
            client,
            wanted=self.site.content,
            keep=lambda: frozenset(wants.pressing()),
            bandwidth=Bandwidth(settings.bandwidth_limit),
        )
        loaders = BootLoaders(
            self.content_cache,
            self.fetcher,
            advertise_url=settings.advertise_url,
            http_port=settings.port,
            local_boot=lambda: self.site.local_boot,
        )
        tftp = TftpServer(loaders, settings.host, settings.tftp_port)
        self.tftp = TftpService(tftp, wanted=settings.tftp_port > 0)
        self.sync = CacheSyncService(
            client,
            self.connectivity,
            mirror,
            self.site,
            self.state_cache,
            self.sync_queue,
            self.fetcher,
            self.conflict_detector,
            drain=self.queue_processor.push_unless_resting,
            insist=self.queue_processor.process_queue,
            beat=lambda: self.heartbeat.beat(),
            retry_delay=settings.queue_retry_delay,
            schedule=settings.sync_schedule,
        )
        readiness = Readiness(self.state_cache, self.site, self.offline_generator)
        self.verifier = Verifier(self.content_cache, rate=settings.verify_rate, on_rotten=self.sync.fetch_again)
        self.heartbeat = HeartbeatService(
            self.identity.agent_id,
            client,
            self.connectivity,
            self.sync_queue,
            conflicts,
            self.content_cache,
            self.site,
            self.observations,
            data_dir=settings.data_dir,
            interval=settings.heartbeat_interval,
            active_boots=lambda: self.boot_service.active,
            services=lambda: {"http": "running", "tftp": self.tftp.state},
            readiness=readiness.summary,
            missing=lambda: self.fetcher.missing(wants.ahead()),
            damaged=lambda: kept_aside(self.database.path),
            commands=Commands(self.sync_queue, sync=self.sync.request, invalidate=self._invalidate),
        )
        self.housekeeping = Housekeeping(
            self.site,
            self.sync_queue,
            self.journal,
            self.observations,
            self.connectivity,
            sent_retention_days=settings.sent_retention_days,
        )

        self.renderer = Renderer()
        templates = Templates(
            self.state_cache, self.site, self.fetcher, self.renderer, base_url=self.boot_service.base_url
        )
        progress = InstallProgress(self.state_cache, self.site, self.journal)
        collector = SiteCollector(
            self.heartbeat.collect,
            self.offline_generator.boots.counts,
            self.state_cache.count,
            lambda: (self.content_cache.hits, self.content_cache.misses),
            tftp,
            self.verifier,
        )
        status = Status(
            people,
            connectivity=self.connectivity,
            heartbeat=self.heartbeat,
            queue=self.sync_queue,
            detector=self.conflict_detector,
            nodes=self.state_cache,
            site=self.site,
            link=self.offline_generator.link,
            sync=self.sync,
            session=self.queue_processor.session,
            readiness=readiness,
            notices=lambda: [
                *damaged_copies(self.database.path),
                *filter(None, [self.tftp.problem, self.sync.problem, self.verifier.problem]),
                *(f"{name} rotted on the disk and is not back yet." for name in sorted(self.sync.lost)),
            ],
            registry=registry_of(collector),
        )
        boots = self.offline_generator.boots
        self.live = Live(
            lambda: (
                boots.seq,
                self.connectivity.since,
                self.sync_queue.pending_count,
                self.sync_queue.failed_count,
                conflicts.pending_count,
                self.site.last_pass,
                self.content_cache.usage,
            )
        )
        decisions = DecisionDesk(people, self.conflict_detector, self.journal, self.proxy)
        page = Page(
            people,
            status,
            queue=self.sync_queue,
            detector=self.conflict_detector,
            desk=decisions,
            readiness=readiness,
            boots=boots,
            missing=lambda: self.fetcher.missing(wants.ahead()),
            live=self.live,
        )
        ready = ReadyScripts(self.state_cache, self.site, self.connectivity, self.observations, self.offline_generator)
        nodes = Nodes(self.proxy, self.state_cache, self.offline_generator.may_install)
        app = create_app(
            [
                *boot_routes(self.boot_service),
                *nodes.routes(),
                *file_routes(self.fetcher, served=progress.served),
                *templates.routes(),
                *QueueDesk(people, self.sync_queue).routes(),
                *decisions.routes(),
                *CacheDesk(people, self.content_cache, wants, self.verifier, fetch=self.sync.request).routes(),
                *BootDesk(people, boots).routes(),
                *status.routes(),
                *page.routes(),
            ],
            max_body_bytes=settings.max_body_bytes,
            quick=nodes.reports,
        )
        self.app: ASGIApp = QuickBoots(app, ready)

    async def start(self) -> None:
        """Begins to serve the site. Asks nothing of central that anyone waits for."""
        await self.sync_queue.initialize()
        for part in (
            self.connectivity,
            self.queue_processor,
            self.sync,
            self.heartbeat,
            self.housekeeping,
            self.verifier,
        ):
            await part.start()

    async def stop(self) -> None:
        for part in (
            self.verifier,
            self.housekeeping,
            self.heartbeat,
            self.sync,
            self.queue_processor,
            self.connectivity,
        ):
            await part.stop()
        await self.renderer.aclose()
        await self.fetcher.aclose()
        await self._http.aclose()
        self.database.close()
        self._lock.close()

    async def _invalidate(self, name: str) -> None:
        """Central wants the file gone; what the policy asks for is fetched anew."""
        await self.content_cache.evict(name)
        self.sync.request()


async def run(settings: AgentSettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    with bind(settings.host, settings.port) as sock:
        agent = SiteAgent(settings.model_copy(update={"port": sock.getsockname()[1]}))
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def told() -> None:
            log.info("site agent %s stops, as it was told to", agent.identity.agent_id)
            agent.live.close()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told)
        await agent.start()
        await agent.tftp.start()
        try:
            where = ":".join(map(str, sock.getsockname()[:2]))
            log.info("site agent %s serves on %s", agent.identity.agent_id, where)
            settle_down()
            most = settings.max_connections
            # Generous: behind one address may be a whole LAN.
            await serve_http(agent.app, sock, stop=stop, max_connections=most, max_per_address=max(64, most // 4))
        finally:
            await agent.tftp.stop()
            await agent.stop()


def _views(database: Database, clock: Clock) -> tuple[SiteState, NodeStateCache, ConflictTable]:
    """What is kept in memory of the file, read from it. A file that makes no sense is set aside; then they begin empty,
    and the feed fills them."""
    try:
        return _loaded(database, clock)
    except (ValueError, TypeError, KeyError, sqlite3.DatabaseError) as error:
        database.set_aside(error)
        return _loaded(database, clock)


def _loaded(database: Database, clock: Clock) -> tuple[SiteState, NodeStateCache, ConflictTable]:
    views = SiteState(database, clock), NodeStateCache(database), ConflictTable(database)
    for view in views:
        view.load()
    return views


def _check_site(database: Database, site_id: str) -> None:
    """What one site's agent holds must not be served, or delivered, as another's."""
    kept = get_meta(database.store, "site_id")
    if kept is None:
        database.store.submit(lambda tx: set_meta(tx, "site_id", site_id)).result()
    elif kept != site_id:
        raise SettingsError(
            f"data_dir holds what the agent of site {kept} knows, and this is now the agent of site {site_id}.",
            hint="Give each site's agent a folder of its own, and run `pureboot agent init` there.",
        )


def _usable(settings: AgentSettings, make: Callable[[], T]) -> T:
    try:
        return make()
    except (OSError, ValueError, sqlite3.Error, Busy) as error:
        raise SettingsError(
            f"data_dir {settings.data_dir} cannot be used: {error}.",
            hint="The agent has to be able to write there.",
        ) from None


def _when(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
