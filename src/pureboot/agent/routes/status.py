"""How the site is, for people and their monitoring."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pureboot.agent.cache.state_cache import NodeStateCache
from pureboot.agent.conflicts import ConflictDetector, Which
from pureboot.agent.connectivity import ConnectivityMonitor
from pureboot.agent.heartbeat import HeartbeatService
from pureboot.agent.people import People
from pureboot.agent.queue import SyncQueue
from pureboot.agent.readiness import Readiness
from pureboot.agent.routes.bodies import read_limit
from pureboot.agent.session import Session
from pureboot.agent.site import SiteState
from pureboot.agent.sync import CacheSyncService
from pureboot.core.errors import Invalid
from pureboot.core.ipxe import Link
from pureboot.core.lifecycle import site_may_settle


class Status:
    def __init__(
        self,
        people: People,
        *,
        connectivity: ConnectivityMonitor,
        heartbeat: HeartbeatService,
        queue: SyncQueue,
        detector: ConflictDetector,
        nodes: NodeStateCache,
        site: SiteState,
        link: Callable[[], Link],
        sync: CacheSyncService,
        session: Session,
        readiness: Readiness,
        notices: Callable[[], list[str]],
        registry: CollectorRegistry,
    ) -> None:
        self._people = people
        self._connectivity, self._heartbeat, self._queue = connectivity, heartbeat, queue
        self._detector, self._nodes = detector, nodes
        self._site, self._link, self._sync, self._registry = site, link, sync, registry
        self._session, self._notices, self._readiness = session, notices, readiness

    def routes(self) -> list[Route]:
        return [
            Route("/health", self.health, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/api/v1/agent/status", self.status, methods=["GET"]),
            Route("/api/v1/agent/conflicts", self.conflicts, methods=["GET"]),
            Route("/api/v1/agent/readiness", self.readiness, methods=["GET"]),
            Route("/api/v1/agent/clock/confirm", self.confirm_clock, methods=["POST"]),
            Route("/api/v1/agent/sync", self.sync, methods=["POST"]),
        ]

    async def health(self, _: Request) -> Response:
        """`degraded`: online, but something waits for a person."""
        return JSONResponse(self._health())

    async def status(self, request: Request) -> Response:
        self._people.admit(request)
        return JSONResponse(self.everything())

    def everything(self) -> dict[str, Any]:
        """What the status route says."""
        metrics = self._heartbeat.collect().model_dump(mode="json", exclude={"report"})
        document = self._site.document
        about = {
            "site": document.model_dump(mode="json") if document else None,
            "nodes": self._nodes.count(),
            "may_settle": site_may_settle(self._site.autonomy),
            "cursor": self._site.position.cursor,
            "generation": self._site.position.generation,
        }
        return self._health() | metrics | about

    async def conflicts(self, request: Request) -> Response:
        self._people.admit(request)
        said = request.query_params.get("status", Which.PENDING)
        if said not in list(Which):
            raise Invalid(f"status: {said[:40]!r} is none of {', '.join(Which)}.")
        after = request.query_params.get("cursor", "")
        found, cursor = await self._detector.table.page(Which(said), read_limit(request), after)
        return JSONResponse({"items": [each.model_dump(mode="json") for each in found], "next_cursor": cursor})

    async def readiness(self, request: Request) -> Response:
        """Which machines the site could install without central, and what keeps it from the others."""
        self._people.admit(request)
        return JSONResponse(self._readiness.report().model_dump(mode="json"))

    async def sync(self, request: Request) -> Response:
        self._people.admit(request)
        result = await self._sync.sync_now()
        return JSONResponse({"items": result.items, "fetched": result.fetched, "missing": list(result.missing)})

    async def confirm_clock(self, request: Request) -> Response:
        """A person says that this host's clock is right."""
        self._people.admit(request)
        return JSONResponse({"knowledge_age_seconds": round(await self._site.confirm_clock())})

    async def metrics(self, request: Request) -> Response:
        self._people.admit(request)
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def _health(self) -> dict[str, Any]:
        metrics = self._heartbeat.collect()
        problems = [
            *filter(None, [self._connectivity.problem]),
            *filter(None, [self._sync.refused or self._unheard(), self._session.problem]),
            *filter(None, [self._queue.crowded(), self._site.clock_problem]),
            *self._notices(),
            *_counted(metrics.failed_queue_items, "queued item", "failed"),
            *_counted(metrics.conflicts_pending, "conflict", "to be settled"),
        ]
        return {
            "product": "pureboot-agent",
            "status": "offline" if not metrics.is_online else "degraded" if problems else "online",
            "problems": problems,
            "version": metrics.version,
            "is_online": metrics.is_online,
            "last_online_at": metrics.last_online_at.isoformat() if metrics.last_online_at else None,
            "state_since": self._connectivity.since.isoformat(),
            "offline_duration_seconds": metrics.offline_duration_seconds,
            "pending_queue_items": metrics.pending_queue_items,
            "failed_queue_items": metrics.failed_queue_items,
            "conflicts_pending": metrics.conflicts_pending,
            "services": metrics.services,
        }

    def _unheard(self) -> str:
        """Central answers, but not with what has changed."""
        if self._link() is not Link.STALE:
            return ""
        age = self._site.knowledge_age()
        since = "yet" if age is None else f"for {age / 3600:.1f} h"
        why = self._sync.stumble or "It is being read."
        return f"Central answers, but its feed has not been read to its end {since}: {why}"


def _counted(number: int, what: str, how: str) -> list[str]:
    """Nothing, where there are none."""
    return [f"{number} {what}{'' if number == 1 else 's'} {how}."] if number else []
