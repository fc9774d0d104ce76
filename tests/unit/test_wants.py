"""What a site wants on its disk, by policy; and the rounds that fetch it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.central_client import CentralClient, http_client
from pureboot.agent.content import ContentFetcher
from pureboot.agent.sync import CacheSyncService
from pureboot.agent.wants import DAY, GIB, Wants
from pureboot.core.errors import StorageFull
from pureboot.wire.messages import ContentCategory
from tests.fakes import FakeCentral, FolderSource
from tests.support.content import content_document, has_content, has_policy, has_workflow
from tests.support.link import URL, Link, linked
from tests.support.parts import MAC, OTHER_MAC, Parts, opened, page

LOADER = "bootloaders/undionly.kpxe"
APPROVED = "images/debian/linux"
ASSIGNED = "images/rocky/vmlinuz"
MATCHED = "images/tools/memtest"
OTHER = "scripts/other.ipxe"
FILES = {name: name.encode() * 10 for name in (OTHER, MATCHED, ASSIGNED, APPROVED, LOADER)}


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    with opened(tmp_path / "agent.db") as parts:
        await parts.knows("n1", MAC, state="pending", workflow_id="debian")
        await parts.knows("n2", OTHER_MAC, state="active", workflow_id="rocky")
        await has_content(parts, FILES)
        await has_workflow(parts, "debian", APPROVED)
        await has_workflow(parts, "rocky", ASSIGNED)
        yield parts


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("minimal", [LOADER, APPROVED]),
        ("assigned", [LOADER, APPROVED, ASSIGNED]),
        ("pattern", [LOADER, APPROVED, MATCHED]),
        ("mirror", [LOADER, APPROVED, ASSIGNED, MATCHED, OTHER]),
    ],
)
async def test_a_policy_says_what_is_fetched_ahead_and_in_which_order(parts: Parts, policy: str, wanted: list[str]):
    await has_policy(parts, policy, cache_patterns=["images/tools/*", "images/none/*"])
    wants = Wants(parts.site, parts.cache)
    assert wants.ahead() == wanted
    assert wants.pressing() == [LOADER, APPROVED]


async def test_until_central_has_told_the_policy_it_is_assigned(parts: Parts):
    wants = Wants(parts.site, parts.cache)
    assert wants.ahead() == [LOADER, APPROVED, ASSIGNED]
    assert wants.room() == wants.age(ContentCategory.IMAGES) == float("inf")


async def test_a_site_says_how_much_and_how_long(parts: Parts):
    await has_policy(parts, "minimal", cache_max_size_gb=2, cache_retention_days=10)
    wants = Wants(parts.site, parts.cache)
    assert wants.room() == 2 * GIB
    assert [wants.age(category) / DAY for category in ContentCategory] == [float("inf"), 40, 40, 10]


class Rounds:
    """The rounds of a site over what FolderSource sends."""

    def __init__(
        self,
        sync: CacheSyncService,
        fetcher: ContentFetcher,
        cache: ContentCache,
        source: FolderSource,
        link: Link,
        central: FakeCentral,
    ):
        self.sync, self.fetcher, self.cache, self.source = sync, fetcher, cache, source
        self.link, self.central = link, central

    @property
    def held(self) -> list[str]:
        return sorted(file.name for file in self.cache.files())


@asynccontextmanager
async def rounds(parts: Parts, folder: Path, max_bytes: int = 10**6, **more: Any) -> AsyncIterator[Rounds]:
    source = FolderSource(FILES)
    wants = Wants(parts.site, parts.cache)
    cache = ContentCache(folder / "cache", max_bytes, room=wants.room, now=lambda: parts.clock.when().timestamp())
    fetcher = ContentFetcher(cache, source, wanted=parts.site.content, keep=lambda: frozenset(wants.pressing()))
    central = FakeCentral()
    http = http_client(URL, timeout=5, transport=central)
    async with linked(parts, central) as link:
        await link.connectivity.check_connectivity()
        sync = CacheSyncService(
            CentralClient(http, credential="secret"),
            link.connectivity,
            parts.mirror,
            parts.site,
            parts.cache,
            parts.queue,
            fetcher,
            parts.detector,
            drain=link.processor.process_queue,
            **more,
        )
        yield Rounds(sync, fetcher, cache, source, link, central)
        await fetcher.aclose()
        await http.aclose()


async def test_a_round_fetches_what_the_policy_asks_for_and_the_next_nothing(parts: Parts, tmp_path: Path):
    await has_policy(parts, "mirror")
    async with rounds(parts, tmp_path) as site:
        assert await site.sync.fetch_needed() == (5, ())
        assert site.held == sorted(FILES)
        assert await site.sync.fetch_needed() == (0, ())
        assert len(site.source.asked) == 5


async def test_what_presses_is_fetched_without_the_rest(parts: Parts, tmp_path: Path):
    await has_policy(parts, "mirror")
    async with rounds(parts, tmp_path) as site:
        assert await site.sync.fetch_needed(everything=False) == (2, ())
        assert site.held == sorted([LOADER, APPROVED])


async def test_an_install_approved_while_a_mirror_fills_is_next(parts: Parts, tmp_path: Path, monkeypatch):
    await has_policy(parts, "mirror")
    newer = FILES[LOADER] * 2
    async with rounds(parts, tmp_path) as site:
        download = site.source.download

        @asynccontextmanager
        async def meanwhile(name: str, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
            if name == ASSIGNED:
                await has_content(parts, {LOADER: newer})
                await has_workflow(parts, "tools", OTHER)
                await parts.knows("n2", OTHER_MAC, state="pending", workflow_id="tools", version=9)
            async with download(name, offset) as chunks:
                yield chunks

        monkeypatch.setattr(site.source, "download", meanwhile)
        site.source.files |= {LOADER: newer, MATCHED: b"of another digest"}
        assert await site.sync.fetch_needed() == (4, (MATCHED,))
        assert [name for name, _ in site.source.asked] == [LOADER, APPROVED, ASSIGNED, LOADER, OTHER, MATCHED]


async def test_what_no_policy_asks_for_can_still_be_had(parts: Parts, tmp_path: Path):
    await has_policy(parts, "minimal")
    async with rounds(parts, tmp_path) as site:
        await site.sync.fetch_needed()
        await site.fetcher.fetch(OTHER)
        assert site.held == sorted([LOADER, APPROVED, OTHER])


async def test_a_mirror_that_does_not_fit_holds_what_is_wanted_most_and_does_not_spin(parts: Parts, tmp_path: Path):
    await has_policy(parts, "mirror")
    room = sum(len(FILES[name]) for name in (LOADER, APPROVED, ASSIGNED)) + 5
    async with rounds(parts, tmp_path, room) as site:
        assert await site.sync.fetch_needed() == (3, (MATCHED, OTHER))
        assert site.sync.problem.startswith("2 files")
        assert "Raise the limit of the agent's cache" in site.sync.problem
        assert await site.sync.fetch_needed() == (0, (MATCHED, OTHER))
        assert [name for name, _ in site.source.asked] == [LOADER, APPROVED, ASSIGNED]
        assert site.held == sorted([LOADER, APPROVED, ASSIGNED])


async def test_a_machines_file_makes_what_only_the_policy_wants_go_but_nothing_that_presses(parts, tmp_path: Path):
    await has_policy(parts, "mirror")
    room = sum(len(FILES[name]) for name in (LOADER, APPROVED, ASSIGNED)) + 5
    async with rounds(parts, tmp_path, room) as site:
        await site.sync.fetch_needed()
        await site.fetcher.open(OTHER)
        await site.fetcher.fetch(OTHER)
        assert site.held == sorted([LOADER, APPROVED, OTHER])


async def test_what_presses_and_does_not_fit_is_said(parts: Parts, tmp_path: Path):
    async with rounds(parts, tmp_path, len(FILES[LOADER]) + 3) as site:
        assert await site.sync.fetch_needed() == (1, (APPROVED, ASSIGNED))
        with pytest.raises(StorageFull):
            await site.fetcher.fetch(APPROVED)


async def test_what_lay_unused_beyond_its_age_goes(parts: Parts, tmp_path: Path):
    await has_policy(parts, "minimal", cache_retention_days=10)
    async with rounds(parts, tmp_path) as site:
        for name in FILES:
            await site.fetcher.fetch(name)
        parts.clock.advance(9 * DAY)
        await site.fetcher.fetch(MATCHED)
        await parts.reads(page())
        assert await site.sync.tidy_content() == ()
        parts.clock.advance(2 * DAY)
        assert await site.sync.tidy_content() == (ASSIGNED,)
        parts.clock.advance(30 * DAY)
        assert await site.sync.tidy_content() == (MATCHED, OTHER)
        assert site.held == sorted([LOADER, APPROVED])


async def test_nothing_goes_while_central_is_away(parts: Parts, tmp_path: Path):
    await has_policy(parts, "minimal", cache_retention_days=10)
    async with rounds(parts, tmp_path) as site:
        await site.fetcher.fetch(OTHER)
        await parts.reads(page())
        parts.clock.advance(1000 * DAY)
        site.central.all("refuses")
        for _ in range(3):
            await site.link.connectivity.check_connectivity()
        assert await site.sync.tidy_content() == ()


async def test_when_it_was_last_used_is_known_after_a_restart(parts: Parts, tmp_path: Path):
    await has_policy(parts, "minimal", cache_retention_days=10)
    async with rounds(parts, tmp_path) as site:
        await site.fetcher.fetch(ASSIGNED)
        await site.fetcher.fetch(MATCHED)
        parts.clock.advance(9 * DAY)
        await site.fetcher.fetch(ASSIGNED)
    parts.clock.advance(2 * DAY)
    async with rounds(parts, tmp_path) as site:
        await parts.reads(page())
        assert await site.sync.tidy_content() == (MATCHED,)


async def test_a_smaller_limit_makes_the_cache_smaller_but_for_what_presses(parts: Parts, tmp_path: Path):
    await has_policy(parts, "mirror")
    async with rounds(parts, tmp_path) as site:
        await site.sync.fetch_needed()
        await parts.reads(page())
        await has_policy(parts, "mirror", cache_max_size_gb=1 / GIB)
        assert await site.sync.tidy_content() == tuple(sorted([ASSIGNED, MATCHED, OTHER]))
        assert site.held == sorted([LOADER, APPROVED])


async def test_parts_of_what_central_no_longer_has_go(parts: Parts, tmp_path: Path):
    async with rounds(parts, tmp_path) as site:
        await parts.reads(page())
        for content in (b"old", FILES[OTHER]):
            digest = content_document(OTHER, content).digest
            async with site.cache.landing(OTHER, 10, digest=digest) as path:
                path.write_bytes(b"part")
        await site.sync.tidy_content()
        assert len(os.listdir(tmp_path / "cache" / "landing")) == 1
        assert site.cache.landed(OTHER, content_document(OTHER, FILES[OTHER]).digest) == 4


async def test_with_a_schedule_only_what_presses_is_fetched_until_its_time_or_somebody_asks(parts, tmp_path: Path):
    await has_policy(parts, "mirror")
    # A time that comes once in four years.
    async with rounds(parts, tmp_path, schedule="0 0 29 2 *") as site:
        await site.sync.start()
        try:
            await until(lambda: site.held == sorted([LOADER, APPROVED]))
            await asyncio.sleep(0.05)
            assert site.held == sorted([LOADER, APPROVED])
            site.sync.request()
            await until(lambda: site.held == sorted(FILES))
        finally:
            await site.sync.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)
