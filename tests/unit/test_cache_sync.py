"""Following central's feed: once round, then patiently."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.central_client import CentralClient, http_client
from pureboot.agent.content import ContentFetcher
from pureboot.agent.site import Position
from pureboot.agent.sync import CacheSyncService
from pureboot.core.changes import NodeEvent
from pureboot.core.errors import PureBootError
from pureboot.core.lifecycle import NodeState
from pureboot.core.mac import MacAddress
from pureboot.wire.messages import ContentDocument, FeedItem, FeedPage
from tests.fakes import FakeCentral
from tests.support.link import URL, Link, linked
from tests.support.parts import EPOCH, MAC, OTHER_MAC, Parts, node_item, opened, page


class Feed(httpx2.AsyncBaseTransport):
    """Central's feed: the pages it was given, then nothing new; who may wait for news waits."""

    def __init__(self, *pages: FeedPage) -> None:
        self.pages = list(pages)
        self.asked: list[tuple[str, float]] = []
        self.waiting = asyncio.Event()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        since, wait = request.url.params["since"], float(request.url.params["wait"])
        self.asked.append((since, wait))
        if not self.pages and wait:
            self.waiting.set()
            await asyncio.Event().wait()
        found = self.pages.pop(0) if self.pages else page(next=since)
        return httpx2.Response(200, content=found.model_dump_json(), headers={"Content-Type": "application/json"})


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with opened(tmp_path / "agent.db") as parts:
        yield parts


@asynccontextmanager
async def following(parts: Parts, link: Link, folder: Path, feed: Feed, **more: Any) -> AsyncIterator[CacheSyncService]:
    http = http_client(URL, timeout=5, transport=feed)
    client = CentralClient(http, credential="secret")
    content = ContentCache(folder / "cache", 10**6)
    fetcher = ContentFetcher(content, client, wanted=parts.site.content, keep=frozenset)
    sync = CacheSyncService(
        client,
        link.connectivity,
        parts.mirror,
        parts.site,
        parts.cache,
        parts.queue,
        fetcher,
        parts.detector,
        drain=link.processor.push_unless_resting,
        insist=link.processor.process_queue,
        **more,
    )
    try:
        yield sync
    finally:
        await sync.stop()
        await fetcher.aclose()
        await http.aclose()


async def test_a_pass_reads_every_page_and_asks_from_where_it_stopped(parts: Parts, tmp_path: Path) -> None:
    feed = Feed(page(node_item("n1", MAC), next="1.0", more=True), page(next="2.0"))
    async with linked(parts, FakeCentral()) as link, following(parts, link, tmp_path, feed) as sync:
        assert await sync.sync_once() == (2, 1)
        assert parts.node().state is NodeState.INSTALLED
        await sync.sync_once()
    assert [since for since, _ in feed.asked] == ["0", "1.0", "2.0"]


async def test_what_the_site_has_to_say_goes_before_it_listens(parts: Parts, tmp_path: Path) -> None:
    central = FakeCentral()
    central.add("n1", MAC, NodeState.INSTALLED)
    await parts.knows()
    event = await parts.journal.record("n1", NodeEvent("n1", "e"))
    async with linked(parts, central) as link, following(parts, link, tmp_path, Feed()) as sync:
        await link.connectivity.check_connectivity()
        await sync.sync_once()
    assert central.effects == [event.queue_id]


async def test_the_feed_is_read_however_much_there_is_to_say(parts: Parts, tmp_path: Path) -> None:
    """Many machines install, and each push takes long enough for their next reports."""

    class Busy(FakeCentral):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path.endswith("/push"):
                await parts.journal.record("n1", NodeEvent("n1", "more"))
            return await super().handle_async_request(request)

    central = Busy()
    await parts.knows()
    central.add("n1", MAC, NodeState.INSTALLED)
    await parts.journal.record("n1", NodeEvent("n1", "first"))
    async with linked(parts, central) as link, following(parts, link, tmp_path, feed := Feed(page())) as sync:
        await link.connectivity.check_connectivity()
        async with asyncio.timeout(60):
            await sync.sync_once()
    assert (len(feed.asked), len(central.batches)) == (1, 1)
    assert parts.queue.pending_count == 1


async def test_an_item_that_has_to_wait_does_not_make_the_feed_spin(parts: Parts, tmp_path: Path) -> None:
    """The comparison of both sides is due and waits for the outbox; central is asked once, and then left to answer."""
    central = FakeCentral()
    central.add("n1", MAC, NodeState.INSTALLED)
    central.put_off = {"n1"}
    await parts.knows()
    await parts.journal.record("n1", NodeEvent("n1", "e"))
    feed = Feed()
    async with linked(parts, central) as link, following(parts, link, tmp_path, feed) as sync:
        await link.connectivity.check_connectivity()
        await sync.start()
        await asyncio.wait_for(feed.waiting.wait(), 5)
    assert [wait for _, wait in feed.asked] == [0, 25]


async def test_a_central_that_takes_no_pushes_does_not_make_it_spin_either(parts: Parts, tmp_path: Path) -> None:
    central = FakeCentral()
    await parts.knows()
    await parts.journal.record("n1", NodeEvent("n1", "e"))
    central.push = "broken"
    feed = Feed()
    async with linked(parts, central) as link, following(parts, link, tmp_path, feed) as sync:
        await link.connectivity.check_connectivity()
        await sync.start()
        await asyncio.wait_for(feed.waiting.wait(), 5)
    assert len(central.batches) <= 3
    assert [wait for _, wait in feed.asked] == [0, 25]


async def test_a_central_that_asked_for_patience_is_read_and_left_in_peace(parts: Parts, tmp_path: Path) -> None:
    """However much it has to say meanwhile."""
    central = FakeCentral()
    central.add("n1", MAC, NodeState.INSTALLED)
    await parts.knows()
    await parts.journal.record("n1", NodeEvent("n1", "e"))
    central.push = "busy"
    feed = Feed(*(page(node_item(f"n{n}", f"52:54:00:00:00:{n:02x}"), next=f"{n}.0") for n in range(2, 9)))
    async with linked(parts, central) as link, following(parts, link, tmp_path, feed) as sync:
        await link.connectivity.check_connectivity()
        await link.processor.start()
        await central.heard(lambda c: len(c.batches) == 1)
        await sync.start()
        await asyncio.wait_for(feed.waiting.wait(), 5)
    assert len(central.batches) == 1
    assert parts.site.position.cursor == "8.0"


async def test_a_restored_central_that_asked_for_patience_is_read_without_a_push(parts: Parts, tmp_path: Path) -> None:
    central = FakeCentral()
    central.add("n1", MAC, NodeState.INSTALLED)
    await parts.knows()
    event = await parts.journal.record("n1", NodeEvent("n1", "e"))
    central.push = "busy"
    later = page(node_item("n1", MAC, version=1001), next="1.0", generation=2)
    async with linked(parts, central) as link, following(parts, link, tmp_path, Feed(later, later)) as sync:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        assert await sync.sync_once() == (1, 1)
        assert (len(central.batches), parts.site.position) == (1, Position(2, "1.0"))
        assert [item.id for item in await parts.waiting()] == [event.queue_id]


async def test_a_person_insists(parts: Parts, tmp_path: Path) -> None:
    """What central takes then ends its rest."""
    central = FakeCentral()
    central.add("n1", MAC, NodeState.INSTALLED)
    await parts.knows()
    said = [await parts.journal.record("n1", NodeEvent("n1", "e"))]
    central.push = "busy"
    async with linked(parts, central) as link, following(parts, link, tmp_path, Feed()) as sync:
        await link.connectivity.check_connectivity()
        await sync.sync_once()
        await sync.sync_now()
        assert len(central.batches) == 2
        central.push = "well"
        await sync.sync_once()
        assert len(central.batches) == 2
        await sync.sync_now()
        said.append(await parts.journal.record("n1", NodeEvent("n1", "e")))
        await sync.sync_once()
    assert central.effects == [one.queue_id for one in said]


async def test_the_end_of_an_outage_ends_the_rest_before_the_feed_is_read(parts: Parts, tmp_path: Path) -> None:
    central = FakeCentral()
    central.add("n1", MAC, NodeState.INSTALLED)
    await parts.knows()
    event = await parts.journal.record("n1", NodeEvent("n1", "e"))
    central.push = "busy"
    async with linked(parts, central) as link, following(parts, link, tmp_path, Feed()) as sync:
        await link.connectivity.check_connectivity()
        await sync.sync_once()
        central.all("refuses")
        while await link.connectivity.check_connectivity() or link.connectivity.is_online:
            pass
        central.all("well")
        await link.connectivity.check_connectivity()
        await sync.sync_once()
    assert central.effects == [event.queue_id]


async def test_a_page_nobody_can_read_stops_nothing_else(parts: Parts, tmp_path: Path) -> None:
    broken = node_item("n1", MAC).model_copy(update={"doc": {"id": "n1"}})
    feed = Feed(page(broken, next="9.9"), page(node_item("n1", MAC), next="1.0"))
    async with linked(parts, FakeCentral()) as link, following(parts, link, tmp_path, feed, retry_delay=0.001) as sync:
        await link.connectivity.check_connectivity()
        await sync.start()
        await asyncio.wait_for(feed.waiting.wait(), 5)
    assert [since for since, _ in feed.asked] == ["0", "0", "1.0"]
    assert parts.node().base_version == 1


async def test_both_sides_are_compared_once_the_outbox_is_empty(parts: Parts, tmp_path: Path) -> None:
    central = FakeCentral()
    lost = await parts.journal.report(MacAddress.parse(MAC), NodeEvent("", "hello"))
    central.refused = {lost.node.node_id}
    async with linked(parts, central) as link, following(parts, link, tmp_path, Feed()) as sync:
        await sync.sync_once()
        assert parts.conflicts.pending_count == 0
        await link.connectivity.check_connectivity()
        await sync.sync_once()
        (conflict,) = await parts.detector.get_pending_conflicts()
    assert (conflict.node_mac, conflict.conflict_type) == (MAC, "missing_central")


async def test_a_document_that_rotted_keeps_the_feed_from_nothing(parts: Parts, tmp_path: Path) -> None:
    central = FakeCentral()
    await parts.knows()
    await parts.database.store.write(lambda tx: tx.execute("UPDATE node SET document = substr(document, 2)"))
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        async with following(parts, link, tmp_path, Feed(page(), page(next="1.2"))) as sync:
            assert await sync.sync_once() == (1, 0)
    assert await parts.detector.get_pending_conflicts() == []


async def test_an_error_of_central_is_one_of_ours(parts: Parts, tmp_path: Path) -> None:
    class Broken(Feed):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, html="<html>Please log in.</html>")

    async with linked(parts, FakeCentral()) as link, following(parts, link, tmp_path, Broken()) as sync:
        with pytest.raises(PureBootError):
            await sync.sync_once()
    assert parts.site.last_pass is None


class Restored(Feed):
    """Its feed begins anew: it no longer knows the place of who asks."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.params["since"] != "0" and not self.asked:
            self.asked.append((request.url.params["since"], 0))
            body = {"error": {"code": "cursor_too_old", "message": "Begin at 0.", "hint": ""}}
            return httpx2.Response(410, json=body)
        return await super().handle_async_request(request)


async def test_a_place_the_feed_no_longer_knows_is_given_up_for_its_start(parts: Parts, tmp_path: Path) -> None:
    """What was deleted meanwhile is told by nothing but its absence."""
    await parts.reads(page(node_item("n1", MAC), node_item("n2", OTHER_MAC), next="5.0"))
    feed = Restored(page(node_item("n2", OTHER_MAC), next="7.0", more=True), page(next="8.0"))
    async with linked(parts, FakeCentral()) as link, following(parts, link, tmp_path, feed) as sync:
        await sync.sync_once()
    assert [since for since, _ in feed.asked] == ["5.0", "0", "7.0"]
    assert [node.node_id for node in parts.cache.nodes()] == ["n2"]


async def test_a_page_of_another_generation_is_heard_after_this_site_has_spoken(parts: Parts, tmp_path: Path) -> None:
    central = FakeCentral()
    central.add("n1", MAC, NodeState.INSTALLED)
    await parts.reads(page(node_item("n1", MAC), next="5.0"))
    event = await parts.journal.record("n1", NodeEvent("n1", "e"))
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        await link.processor.process_queue()
        central.restore(central.nodes)
        later = page(node_item("n1", MAC, version=1001), next="1.0", generation=2)
        feed = Feed(later, later)
        async with following(parts, link, tmp_path, feed) as sync:
            await sync.sync_once()
    assert central.effects == [event.queue_id, event.queue_id]
    assert [since for since, _ in feed.asked] == ["5.0", "0"]
    assert (parts.site.position, parts.queue.pending_count) == (Position(2, "1.0"), 0)


def loader_item(name: str) -> FeedItem:
    """A boot loader whose bytes are its name."""
    digest = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
    document = ContentDocument(
        category="bootloaders", path=name, digest=digest, size=len(name), version=1, updated_at=EPOCH
    )
    return FeedItem(pos=1, type="content", op="upsert", id=document.name, doc=document.model_dump(mode="json"))


class Meanwhile(Feed):
    """While the first file is on its way, central has another one, and the feed tells of it."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(page(loader_item("first")))
        self.fetched: list[str] = []
        self.second_is_known, self.second_is_asked = asyncio.Event(), asyncio.Event()
        self._parts = parts

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if "/content/" not in request.url.path:
            if not self.pages and not self.fetched:
                await self.second_is_known.wait()
            return await super().handle_async_request(request)
        name = request.url.path.rpartition("/")[2]
        self.fetched.append(name)
        if name == "first":
            self.pages.append(page(loader_item("second")))
            self.second_is_known.set()
            while self._parts.site.content("bootloaders/second") is None:
                await asyncio.sleep(0.001)
        else:
            self.second_is_asked.set()
        return httpx2.Response(200, content=name.encode())


async def test_a_file_that_becomes_due_while_another_is_fetched_is_fetched_too(parts: Parts, tmp_path: Path) -> None:
    feed = Meanwhile(parts)
    async with linked(parts, FakeCentral()) as link, following(parts, link, tmp_path, feed) as sync:
        await link.connectivity.check_connectivity()
        await sync.start()
        await asyncio.wait_for(feed.second_is_asked.wait(), 5)
    assert feed.fetched == ["first", "second"]
