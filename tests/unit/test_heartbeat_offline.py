"""What the heartbeat says of an outage (user's contract, task 9)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.central_client import CentralClient, http_client
from pureboot.agent.commands import Commands
from pureboot.agent.heartbeat import AgentMetrics, HeartbeatService
from pureboot.agent.observations import Observations
from pureboot.agent.queue import QueueItem
from pureboot.core.errors import CentralUnavailable
from pureboot.wire.beats import OutageTold
from pureboot.wire.messages import Heartbeat
from tests.fakes import FakeCentral
from tests.support.link import URL, Link, linked
from tests.support.parts import EPOCH, Parts, conflict_document, opened

CONTRACT = {
    "is_online": True,
    "last_online_at": None,
    "offline_duration_seconds": 0,
    "pending_queue_items": 0,
    "failed_queue_items": 0,
    "conflicts_pending": 0,
}


class Listening(httpx2.AsyncBaseTransport):
    """Central's address for heartbeats, and what it was told there."""

    def __init__(self, commands: list[dict[str, Any]] | None = None) -> None:
        self.heard: list[Heartbeat] = []
        self.away = False
        self._commands = commands or []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.away:
            raise httpx2.ConnectError("nobody is there", request=request)
        assert request.url.path == "/api/v1/agents/heartbeat"
        self.heard.append(Heartbeat.model_validate_json(request.content))
        return httpx2.Response(200, json={"status": "ok", "commands": self._commands})


@asynccontextmanager
async def beating(
    parts: Parts, link: Link, folder: Path, transport: Listening, obeyed: list[str]
) -> AsyncIterator[HeartbeatService]:
    async def invalidate(name: str) -> None:
        obeyed.append(name)

    http = http_client(URL, timeout=1, transport=transport)
    service = HeartbeatService(
        "a1",
        CentralClient(http, credential="secret"),
        link.connectivity,
        parts.queue,
        parts.conflicts,
        ContentCache(folder / "cache", 10**6),
        parts.site,
        Observations(parts.journal),
        data_dir=folder,
        interval=17,
        active_boots=lambda: 3,
        services=lambda: {"http": "running"},
        missing=lambda: ["images/a"],
        commands=Commands(parts.queue, sync=lambda: obeyed.append("sync"), invalidate=invalidate),
    )
    try:
        yield service
    finally:
        await service.stop()
        await http.aclose()


@asynccontextmanager
async def site(
    folder: Path, transport: Listening | None = None, obeyed: list[str] | None = None
) -> AsyncIterator[tuple[Parts, Link, FakeCentral, HeartbeatService]]:
    central = FakeCentral()
    with opened(folder / "agent.db") as parts:
        async with linked(parts, central) as link:
            given = obeyed if obeyed is not None else []
            async with beating(parts, link, folder, transport or Listening(), given) as service:
                yield parts, link, central, service


def item(id: str, lane: str) -> QueueItem:
    return QueueItem(id=id, item_type="event", payload={"event": "e"}, created_at=EPOCH, lane=lane)


def test_the_fields_of_the_contract_have_its_names_and_defaults() -> None:
    assert {name: getattr(AgentMetrics(), name) for name in CONTRACT} == CONTRACT


async def test_heartbeat_includes_offline_metrics(tmp_path: Path) -> None:
    central_hears = Listening()
    async with site(tmp_path, central_hears) as (parts, link, _, service):
        await link.connectivity.check_connectivity()
        await parts.queue.enqueue(item("i1", "n1"))
        await service.beat()
        (heartbeat,) = central_hears.heard
        assert (heartbeat.agent_id, heartbeat.interval_seconds) == ("a1", 17)
        said = heartbeat.metrics
        assert (said.is_online, said.offline_duration_seconds, said.pending_queue_items) == (True, 0, 1)
        assert said.last_online_at == parts.clock.when()
        assert (said.active_boots, said.services) == (3, {"http": "running"})
        assert said.disk_free_bytes > 0


async def test_metrics_when_offline(tmp_path: Path) -> None:
    async with site(tmp_path) as (parts, link, central, service):
        await link.connectivity.check_connectivity()
        last = parts.clock.when()
        central.all("refuses")
        for _ in range(3):
            await link.connectivity.check_connectivity()
        parts.clock.advance(125.9)
        metrics = service.collect()
        assert (metrics.is_online, metrics.last_online_at) == (False, last)
        assert metrics.offline_duration_seconds == 125
        central.all("well")
        await link.connectivity.check_connectivity()
        assert (service.collect().is_online, service.collect().offline_duration_seconds) == (True, 0)


async def test_an_agent_that_never_met_central_says_since_when_it_tries(tmp_path: Path) -> None:
    async with site(tmp_path) as (parts, _, _, service):
        parts.clock.advance(60)
        metrics = service.collect()
        assert (metrics.is_online, metrics.last_online_at, metrics.offline_duration_seconds) == (False, None, 60)


async def test_queue_metrics_accuracy(tmp_path: Path) -> None:
    """Counted as the queue and the conflicts stand, through every way in and out, and after a restart."""
    async with site(tmp_path) as (parts, link, central, service):

        def numbers() -> tuple[int, int, int]:
            metrics = service.collect()
            return metrics.pending_queue_items, metrics.failed_queue_items, metrics.conflicts_pending

        assert numbers() == (0, 0, 0)
        for n in range(5):
            await parts.queue.enqueue(item(f"i{n}", f"n{n}"))
        assert numbers() == (5, 0, 0)
        await parts.queue.mark_failed("i0", "x")
        await parts.queue.dequeue("i1")
        assert numbers() == (3, 1, 0)
        await parts.database.store.write(lambda tx: parts.conflicts.store(tx, conflict_document("c1", "n1")))
        assert numbers() == (3, 1, 1)
    with opened(tmp_path / "agent.db") as parts:
        async with linked(parts, central) as link, beating(parts, link, tmp_path, Listening(), []) as service:
            assert numbers() == (3, 1, 1)
            await link.connectivity.check_connectivity()
            await link.processor.process_queue()  # nobody knows n2 to n4: rejected, and shown
            assert numbers() == (0, 4, 1)
            await parts.queue.clear_failed()
            assert numbers() == (0, 0, 1)
            await parts.database.store.write(lambda tx: parts.conflicts.drop(tx, "c1"))
            assert numbers() == (0, 0, 0)


async def test_what_central_asks_for_is_done_and_told_with_the_next_heartbeat(tmp_path: Path) -> None:
    obeyed: list[str] = []
    asks = Listening([{"id": "c1", "command": "sync", "from_the_future": True}])
    async with site(tmp_path, asks, obeyed) as (_, link, _, service):
        await service.beat()
        assert link.connectivity.is_online  # an answer is contact
    first, second, *_ = [heartbeat.metrics.report for heartbeat in asks.heard]
    assert first is not None
    assert second is not None
    assert (first.commands_done, [done.id for done in second.commands_done]) == ([], ["c1"])
    # A central that asks again and again for the same does not keep the agent busy.
    assert obeyed == ["sync"] * 3


async def test_a_central_of_before_gets_one_heartbeat_and_ignores_what_it_does_not_know(tmp_path: Path) -> None:
    obeyed: list[str] = []
    asks = Listening([{"command": "sync"}])
    async with site(tmp_path, asks, obeyed) as (_, _, _, service):
        await service.beat()
    [heartbeat] = asks.heard
    assert obeyed == ["sync"]
    # Unknown fields are refused everywhere but inside the metrics.
    assert set(heartbeat.model_dump()) == {"agent_id", "interval_seconds", "metrics"}


async def test_a_heartbeat_tells_what_failed_and_what_is_missing(tmp_path: Path) -> None:
    central_hears = Listening()
    async with site(tmp_path, central_hears) as (parts, _, _, service):
        for n in range(60):
            await parts.queue.enqueue(item(f"i{n}", f"n{n}"))
            await parts.queue.mark_failed(f"i{n}", "poison\n" * 1000)
        await service.beat()
        report = central_hears.heard[0].metrics.report
        assert report is not None
        assert (report.epoch, len(report.failed_items)) == (parts.queue.epoch, 50)
        assert (report.failed_items[0].id, report.failed_items[0].attempts) == ("i0", 1)
        assert len(report.failed_items[0].last_error) <= 500
        assert (report.content_missing, report.content_missing_total) == (["images/a"], 1)


async def test_a_heartbeat_after_an_outage_tells_how_long_it_was(tmp_path: Path) -> None:
    central_hears = Listening()
    async with site(tmp_path, central_hears) as (parts, link, central, service):
        await link.connectivity.check_connectivity()
        central.all("refuses")
        for _ in range(3):
            await link.connectivity.check_connectivity()
        parts.clock.advance(125.9)
        central.all("well")
        await link.connectivity.check_connectivity()
        parts.clock.advance(10)
        await link.connectivity.check_connectivity()
        await service.beat()
        report = central_hears.heard[0].metrics.report
        assert report is not None
        assert report.last_outage == OutageTold(seconds=125, ended_seconds_ago=10)


async def test_a_heartbeat_that_reaches_nobody_changes_nothing(tmp_path: Path) -> None:
    central_hears = Listening()
    central_hears.away = True
    async with site(tmp_path, central_hears) as (_, link, _, service):
        with pytest.raises(CentralUnavailable):
            await service.beat()
        assert not link.connectivity.is_online


async def test_times_are_said_in_utc(tmp_path: Path) -> None:
    central_hears = Listening()
    async with site(tmp_path, central_hears) as (_, link, _, service):
        await link.connectivity.check_connectivity()
        await service.beat()
        said = central_hears.heard[0].metrics.last_online_at
        assert said is not None
        assert said.tzinfo is not None
        assert said.utcoffset() == UTC.utcoffset(None)
