import asyncio
import errno
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pureboot.agent.bandwidth import Bandwidth
from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.content import ContentFetcher
from pureboot.agent.download import MENDED_CUTS
from pureboot.agent.landing import HELD_BACK, Readable
from pureboot.core.errors import (
    Busy,
    CentralUnavailable,
    Forbidden,
    NotFound,
    PureBootError,
    StorageFull,
    Unauthenticated,
)
from pureboot.wire.messages import ContentCategory, ContentDocument
from tests.fakes import FolderSource
from tests.support.disk import small_disk

KERNEL = "images/debian/linux"
INITRD = "images/debian/initrd.gz"
LOADER = "bootloaders/undionly.kpxe"
FILES = {KERNEL: b"kernel" * 30_000, INITRD: b"initrd" * 50_000, LOADER: b"loader"}


def document(name: str, content: bytes, *, size: int | None = None) -> ContentDocument:
    category, _, path = name.partition("/")
    return ContentDocument(
        category=ContentCategory(category),
        path=path,
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        size=len(content) if size is None else size,
        version=1,
        updated_at=datetime(2026, 1, 28, tzinfo=UTC),
    )


@pytest.fixture
def wanted() -> dict[str, ContentDocument]:
    return {name: document(name, content) for name, content in FILES.items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(root: Path) -> ContentCache:
    return ContentCache(root, 1_000_000)


@pytest.fixture
def source() -> FolderSource:
    return FolderSource(FILES)


@pytest.fixture
async def fetcher(cache: ContentCache, source: FolderSource, wanted: dict[str, ContentDocument]):
    async with aclosing(ContentFetcher(cache, source, wanted=wanted.get, sleep=no_time)) as fetcher:
        yield fetcher


async def no_time(seconds: float) -> None:
    assert 0 <= seconds <= 8


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def files_in(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def until_waiting() -> None:
    """Lets every task run until it waits for something outside."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_file_comes_from_central_once_and_from_the_disk_ever_after(fetcher, source: FolderSource):
    first = await fetcher.fetch(KERNEL)
    source.away = True
    assert await fetcher.fetch(KERNEL) == first
    assert first.path.read_bytes() == FILES[KERNEL]
    assert source.downloads == {KERNEL: 1}


async def test_however_many_ask_there_is_one_download(fetcher, source: FolderSource):
    source.hold()
    asking = [asyncio.create_task(fetcher.fetch(KERNEL)) for _ in range(64)]
    await until_waiting()
    source.release()
    assert len(set(await asyncio.gather(*asking))) == 1
    assert source.downloads == {KERNEL: 1}


async def test_different_files_are_downloaded_side_by_side(fetcher, source: FolderSource):
    source.hold()
    asking = [asyncio.create_task(fetcher.fetch(name)) for name in FILES]
    await until_waiting()
    assert source.downloads == dict.fromkeys(FILES, 1)
    source.release()
    assert {file.name for file in await asyncio.gather(*asking)} == set(FILES)


async def test_an_asker_who_goes_away_takes_the_download_from_nobody(fetcher, source: FolderSource):
    source.hold()
    first, second = asyncio.create_task(fetcher.fetch(KERNEL)), asyncio.create_task(fetcher.fetch(KERNEL))
    await until_waiting()
    first.cancel()
    await until_waiting()
    assert first.cancelled()
    source.release()
    assert (await second).name == KERNEL
    assert source.downloads == {KERNEL: 1}


async def test_a_download_that_everybody_left_is_finished_for_the_next(fetcher, source: FolderSource):
    source.hold()
    asker = asyncio.create_task(fetcher.fetch(KERNEL))
    await until_waiting()
    asker.cancel()
    source.release()
    assert (await fetcher.fetch(KERNEL)).name == KERNEL
    assert source.downloads == {KERNEL: 1}


async def test_an_error_reaches_all_who_ask_and_is_not_remembered(fetcher, source: FolderSource):
    source.away = True
    results = await asyncio.gather(*(fetcher.fetch(KERNEL) for _ in range(8)), return_exceptions=True)
    assert all(isinstance(result, CentralUnavailable) for result in results)
    assert source.downloads == {KERNEL: 1}
    source.away = False
    assert (await fetcher.fetch(KERNEL)).name == KERNEL


class TestWhatCentralSendsWrong:
    async def test_wrong_bytes_are_never_kept(self, fetcher, source: FolderSource, root: Path):
        source.corrupt = True
        with pytest.raises(Busy, match="not those of its digest") as caught:
            await fetcher.fetch(KERNEL)
        assert not isinstance(caught.value, CentralUnavailable)  # other files may be had
        assert files_in(root) == []
        source.corrupt = False
        await fetcher.fetch(KERNEL)

    async def test_more_than_was_announced_is_refused_before_it_fills_the_disk(self, fetcher, source, wanted, root):
        wanted[KERNEL] = document(KERNEL, FILES[KERNEL], size=1000)
        with pytest.raises(Busy, match="more than the 1000 bytes"):
            await fetcher.fetch(KERNEL)
        assert files_in(root) == []

    async def test_less_than_was_announced_is_refused(self, fetcher, wanted, root: Path):
        wanted[KERNEL] = document(KERNEL, FILES[KERNEL], size=len(FILES[KERNEL]) + 1)
        with pytest.raises(Busy, match="1 bytes early"):
            await fetcher.fetch(KERNEL)
        assert files_in(root) == []

    async def test_silence_counts_as_being_away(self, cache, source: FolderSource, wanted, root: Path):
        source.hold()
        async with aclosing(ContentFetcher(cache, source, wanted=wanted.get, patience=0.01)) as fetcher:
            with pytest.raises(CentralUnavailable, match="sent nothing"):
                await fetcher.fetch(KERNEL)
        assert files_in(root) == []

    async def test_a_slow_transfer_is_not_silence(self, cache, wanted):
        class SlowSource(FolderSource):
            @asynccontextmanager
            async def download(self, name: str, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
                async with super().download(name, offset) as chunks:
                    yield self.slowly(chunks)

            async def slowly(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
                async for chunk in chunks:
                    await asyncio.sleep(0.05)
                    yield chunk

        source = SlowSource(FILES, chunk_size=20_000)
        async with aclosing(ContentFetcher(cache, source, wanted=wanted.get, patience=0.3)) as fetcher:
            assert (await fetcher.fetch(KERNEL)).path.read_bytes() == FILES[KERNEL]

    async def test_a_slow_disk_is_not_silence(self, cache, source: FolderSource, wanted, monkeypatch):
        fsync = os.fsync

        def slow_fsync(file: int) -> None:
            time.sleep(0.1)
            fsync(file)

        monkeypatch.setattr(os, "fsync", slow_fsync)
        async with aclosing(ContentFetcher(cache, source, wanted=wanted.get, patience=0.2)) as fetcher:
            assert (await fetcher.fetch(KERNEL)).path.read_bytes() == FILES[KERNEL]

    @pytest.mark.parametrize("refusal", [Unauthenticated("No."), Forbidden("No.")])
    async def test_a_refused_credential_is_not_the_machines_fault(self, cache, wanted, refusal: PureBootError):
        class RefusingSource:
            def download(self, name: str, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
                raise refusal

        async with aclosing(ContentFetcher(cache, RefusingSource(), wanted=wanted.get)) as fetcher:
            with pytest.raises(CentralUnavailable):
                await fetcher.fetch(KERNEL)


class TestCuts:
    """A connection that breaks: what has come stays, and the download goes on there."""

    async def test_a_cut_is_mended_where_it_happened(self, fetcher, source: FolderSource, root: Path):
        source.cut_after, source.cuts = 70_000, 1
        assert (await fetcher.fetch(KERNEL)).path.read_bytes() == FILES[KERNEL]
        assert source.asked == [(KERNEL, 0), (KERNEL, 70_000)]
        assert list((root / "landing").iterdir()) == []

    async def test_what_has_come_is_nobody_elses_while_it_waits_to_go_on(self, root: Path, source, wanted):
        cache = ContentCache(root, len(FILES[KERNEL]) + 100)
        waits, go_on = asyncio.Event(), asyncio.Event()

        async def wait(_: float) -> None:
            waits.set()
            await go_on.wait()

        source.cut_after, source.cuts = 70_000, 1
        async with aclosing(ContentFetcher(cache, source, wanted=wanted.get, sleep=wait)) as fetcher:
            asker = asyncio.create_task(fetcher.fetch(KERNEL))
            await waits.wait()
            with pytest.raises(StorageFull):
                async with cache.landing(INITRD, 101):
                    pass
            go_on.set()
            assert (await asker).path.read_bytes() == FILES[KERNEL]
        assert source.asked == [(KERNEL, 0), (KERNEL, 70_000)]

    async def test_a_central_that_is_gone_after_a_cut_is_told_at_once_and_the_part_stays(self, fetcher, source, root):
        source.cut_after = 0
        with pytest.raises(CentralUnavailable):
            await fetcher.fetch(KERNEL)
        assert source.asked == [(KERNEL, 0)]
        assert files_in(root) == []

    async def test_cuts_without_end_end_the_wait(self, fetcher, source: FolderSource):
        source.cut_after = 1
        with pytest.raises(CentralUnavailable):
            await fetcher.fetch(KERNEL)
        assert len(source.asked) == 1 + MENDED_CUTS

    async def test_the_next_life_goes_on_where_this_one_was_killed(self, root, fetcher, source, wanted):
        source.pause(after=2 * 64 * 1024)
        asker = asyncio.create_task(fetcher.fetch(KERNEL))
        while ContentCache(root, 1_000_000).landed(KERNEL, wanted[KERNEL].digest) < 2 * 64 * 1024:
            await asyncio.sleep(0.01)
        # What a kill -9 leaves: the files as they are now.
        shutil.copytree(root, root.with_name("next"))
        next_source = FolderSource(FILES)
        cache = ContentCache(root.with_name("next"), 1_000_000)
        async with aclosing(ContentFetcher(cache, next_source, wanted=wanted.get)) as next_fetcher:
            assert (await next_fetcher.fetch(KERNEL)).path.read_bytes() == FILES[KERNEL]
        assert next_source.asked == [(KERNEL, 2 * 64 * 1024)]
        asker.cancel()

    async def test_a_part_that_is_all_there_needs_no_central(self, cache, fetcher, source, wanted):
        source.away = True
        async with cache.landing(KERNEL, len(FILES[KERNEL]), digest=wanted[KERNEL].digest) as path:
            path.write_bytes(FILES[KERNEL])
        assert (await fetcher.fetch(KERNEL)).path.read_bytes() == FILES[KERNEL]
        assert source.asked == []

    @pytest.mark.parametrize("size", [100, len(FILES[KERNEL]), len(FILES[KERNEL]) + 1])
    async def test_a_part_that_is_wrong_is_thrown_away_and_fetched_anew(self, cache, fetcher, source, wanted, size):
        async with cache.landing(KERNEL, size, digest=wanted[KERNEL].digest) as path:
            path.write_bytes(b"?" * size)
        assert (await fetcher.fetch(KERNEL)).path.read_bytes() == FILES[KERNEL]
        assert source.asked[-1] == (KERNEL, 0)

    async def test_anew_once_only(self, cache, fetcher, source: FolderSource, wanted, root: Path):
        source.corrupt = True
        async with cache.landing(KERNEL, 100, digest=wanted[KERNEL].digest) as path:
            path.write_bytes(FILES[KERNEL][:100])
        with pytest.raises(Busy, match="not those of its digest"):
            await fetcher.fetch(KERNEL)
        assert source.asked == [(KERNEL, 100), (KERNEL, 0)]
        assert files_in(root) == []

    async def test_anew_once_only_through_any_number_of_cuts(self, cache, fetcher, source: FolderSource, wanted, root):
        source.corrupt, source.cut_after = True, 70_000
        async with cache.landing(KERNEL, 100, digest=wanted[KERNEL].digest) as path:
            path.write_bytes(FILES[KERNEL][:100])
        with pytest.raises(Busy, match="not those of its digest"):
            await fetcher.fetch(KERNEL)
        assert [offset for _, offset in source.asked] == [100, 70_100, 140_100, 0, 70_000, 140_000]
        assert files_in(root) == []

    async def test_a_part_of_a_version_that_nobody_wants_any_more_goes(self, cache, fetcher, wanted, root: Path):
        for name in (KERNEL, INITRD):
            async with cache.landing(name, 100, digest=wanted[name].digest) as path:
                path.write_bytes(b"part")
        wanted[KERNEL] = document(KERNEL, b"newer")
        await fetcher.forget_parts(wanted.values())
        assert len(files_in(root)) == 1
        assert cache.landed(INITRD, wanted[INITRD].digest) == 4

    async def test_a_download_under_way_is_no_such_part(self, fetcher, source, wanted):
        source.pause(after=64 * 1024)
        asker = asyncio.create_task(fetcher.fetch(KERNEL))
        await until(lambda: bool(source.asked))
        await fetcher.forget_parts([])
        source.release()
        assert (await asker).path.read_bytes() == FILES[KERNEL]

    async def test_parts_make_room_before_anything_else(self, root: Path, source, wanted):
        cache = ContentCache(root, 400_000)
        async with aclosing(ContentFetcher(cache, source, wanted=wanted.get)) as fetcher:
            await fetcher.fetch(LOADER)
            async with cache.landing(KERNEL, 180_000, digest=wanted[KERNEL].digest) as path:
                path.write_bytes(bytes(150_000))
            await fetcher.fetch(INITRD)
        assert [file.name for file in cache.files()] == [LOADER, INITRD]
        assert cache.landed(KERNEL, wanted[KERNEL].digest) == 0


class TestReadingAlong:
    BIG = "images/disk.img"
    CONTENT = bytes(range(256)) * 6000  # 1.5 MB

    @pytest.fixture
    def source(self, wanted) -> FolderSource:
        wanted[self.BIG] = document(self.BIG, self.CONTENT)
        return FolderSource(FILES | {self.BIG: self.CONTENT})

    @pytest.fixture
    def cache(self, root: Path) -> ContentCache:
        return ContentCache(root, 3_000_000)

    async def read(self, file: Readable, start: int = 0, end: int = -1) -> bytes:
        end = file.size if end < 0 else end
        descriptor, content = file.open(), b""
        try:
            while start + len(content) < end:
                position = start + len(content)
                readable = await file.readable(position)
                assert readable > position
                content += os.pread(descriptor, min(readable, end) - position, position)
        finally:
            os.close(descriptor)
        return content

    async def test_readers_follow_the_download_each_from_where_it_likes(self, fetcher, source: FolderSource):
        source.pause(after=1_000_000)
        first = await fetcher.open(self.BIG)
        assert await self.read(first, end=900_000) == self.CONTENT[:900_000]
        readers = [asyncio.create_task(self.read(await fetcher.open(self.BIG), at)) for at in (0, 5, 1_400_000)]
        await until_waiting()
        assert not any(reader.done() for reader in readers)
        source.release()
        assert await asyncio.gather(*readers) == [self.CONTENT[at:] for at in (0, 5, 1_400_000)]
        assert source.downloads == {self.BIG: 1}

    async def test_the_end_is_held_back_until_the_digest_holds(self, fetcher, source, monkeypatch):
        seen: list[int] = []
        file_digest = hashlib.file_digest

        def looks(*arguments):
            seen.append(landing.edge)
            return file_digest(*arguments)

        monkeypatch.setattr(hashlib, "file_digest", looks)
        source.pause(after=0)
        asking = asyncio.create_task(fetcher.open(self.BIG))
        landing = await asking
        source.release()
        assert await self.read(landing) == self.CONTENT
        assert seen == [len(self.CONTENT) - HELD_BACK]

    async def test_wrong_bytes_are_whole_for_nobody(self, fetcher, source: FolderSource, root: Path):
        source.corrupt = True
        file = await fetcher.open(self.BIG)
        with pytest.raises(Busy, match="not those of its digest"):
            await self.read(file)
        with pytest.raises(PureBootError):
            file.open()
        assert files_in(root) == []

    async def test_a_reader_of_a_wrong_part_is_cut_and_the_next_gets_the_file(self, cache, fetcher, source, wanted):
        async with cache.landing(self.BIG, 1_000_000, digest=wanted[self.BIG].digest) as path:
            path.write_bytes(bytes(1_000_000))
        source.hold()
        file = await fetcher.open(self.BIG)
        reader = asyncio.create_task(self.read(file))
        await until_waiting()
        source.release()
        with pytest.raises(Busy):
            await reader
        assert await self.read(await fetcher.open(self.BIG)) == self.CONTENT

    async def test_a_reader_goes_on_through_a_cut(self, fetcher, source: FolderSource):
        source.cut_after, source.cuts = 800_000, 1
        assert await self.read(await fetcher.open(self.BIG)) == self.CONTENT

    async def test_a_reader_is_told_when_central_dies(self, fetcher, source: FolderSource):
        source.pause(after=500_000)
        file = await fetcher.open(self.BIG)
        reader = asyncio.create_task(self.read(file))
        await until_waiting()
        source.cut_after = 0
        await fetcher.aclose()
        with pytest.raises(CentralUnavailable):
            await reader

    async def test_a_download_that_is_given_up_before_it_begins_leaves_nobody_waiting(self, fetcher):
        asking = asyncio.create_task(fetcher.open(self.BIG))
        await asyncio.sleep(0)
        await fetcher.aclose()
        with pytest.raises(CentralUnavailable, match="stopping"):
            await asyncio.wait_for(asking, 5)

    async def test_who_opens_gets_no_bytes_of_a_central_that_is_away(self, fetcher, source: FolderSource):
        source.away = True
        with pytest.raises(CentralUnavailable):
            await fetcher.open(self.BIG)

    async def test_a_landing_that_is_whole_can_still_be_opened(self, fetcher, source: FolderSource):
        file = await fetcher.open(self.BIG)
        await fetcher.fetch(self.BIG)
        assert await self.read(file) == self.CONTENT

    async def test_a_disk_that_fills_up_cuts_the_reader_and_gives_its_bytes_back(self, tmp_path, source, wanted):
        with small_disk(tmp_path / "disk", "1m") as disk:
            cache = ContentCache(disk / "cache", 10**9)
            async with aclosing(ContentFetcher(cache, source, wanted=wanted.get)) as fetcher:
                await fetcher.fetch(LOADER)
                file = await fetcher.open(self.BIG)
                with pytest.raises(StorageFull):
                    await self.read(file)
                assert cache.landed(self.BIG, wanted[self.BIG].digest) == 0
                assert (await fetcher.fetch(KERNEL)).path.read_bytes() == FILES[KERNEL]
                assert fetcher.missing([LOADER]) == ()

    async def test_no_descriptor_is_left_behind(self, fetcher, source: FolderSource):
        before = len(os.listdir("/proc/self/fd"))
        await self.read(await fetcher.open(self.BIG))
        source.corrupt = True
        with suppress(PureBootError):
            await self.read(await fetcher.open(KERNEL))
        assert len(os.listdir("/proc/self/fd")) == before


class TestBandwidth:
    async def test_a_machines_file_goes_before_what_looks_ahead(self, cache, wanted):
        """Of two downloads side by side, the one that a machine waits for is whole first, though it began later."""
        order: list[str] = []
        source = FolderSource(FILES, chunk_size=1000)
        bandwidth = Bandwidth(10**6, now=lambda: 0, sleep=lambda _: asyncio.sleep(0))

        async with aclosing(ContentFetcher(cache, source, wanted=wanted.get, bandwidth=bandwidth)) as site:

            async def done(name: str) -> None:
                await site.fetch(name)
                order.append(name)

            ahead = asyncio.create_task(done(KERNEL))
            await until(lambda: bool(source.asked))
            await site.open(INITRD)
            await asyncio.gather(done(INITRD), ahead)
        assert order == [INITRD, KERNEL]

    async def test_a_limit_slower_than_patience_is_no_silence(self, cache, source: FolderSource, wanted):
        bandwidth = Bandwidth(10**6)  # 65 ms for a chunk, 0.2 s for the file
        fetcher = ContentFetcher(cache, source, wanted=wanted.get, bandwidth=bandwidth, patience=0.05)
        began = time.monotonic()
        async with aclosing(fetcher):
            await fetcher.fetch(KERNEL)
        assert time.monotonic() - began > 0.17


class TestVersions:
    NEW = b"a newer kernel"

    async def test_an_older_version_is_replaced_and_never_served_as_current(self, fetcher, source, wanted, cache):
        await fetcher.fetch(KERNEL)
        wanted[KERNEL], source.files[KERNEL] = document(KERNEL, self.NEW), self.NEW
        source.away = True
        with pytest.raises(CentralUnavailable):
            await fetcher.fetch(KERNEL)
        source.away = False
        assert (await fetcher.fetch(KERNEL)).path.read_bytes() == self.NEW
        assert cache.usage == len(self.NEW)

    async def test_who_asks_for_the_new_version_does_not_get_the_old_download(self, fetcher, source, wanted):
        source.hold()
        old = asyncio.create_task(fetcher.fetch(KERNEL))
        await until_waiting()
        wanted[KERNEL] = document(KERNEL, self.NEW)
        new = asyncio.create_task(fetcher.fetch(KERNEL))
        await until_waiting()
        source.release()
        await old
        with pytest.raises(Busy):  # this central still sends the old one
            await new

    async def test_what_central_does_not_have_is_not_found(self, fetcher, wanted, source: FolderSource):
        with pytest.raises(NotFound):
            await fetcher.fetch("images/other")
        await fetcher.fetch(KERNEL)
        del wanted[KERNEL]
        with pytest.raises(NotFound):
            await fetcher.fetch(KERNEL)
        assert source.downloads == {KERNEL: 1}


class TestMissing:
    async def test_names_what_is_not_here_whole_in_the_current_version(self, fetcher, wanted):
        names = [LOADER, KERNEL, INITRD, "images/unknown"]
        assert fetcher.missing(names) == tuple(names)
        for name in (LOADER, KERNEL, INITRD):
            await fetcher.fetch(name)
        wanted[INITRD] = document(INITRD, b"newer")
        assert fetcher.missing(names) == (INITRD, "images/unknown")

    async def test_names_a_file_that_was_taken_away_behind_our_back(self, fetcher):
        file = await fetcher.fetch(KERNEL)
        file.path.unlink()
        assert fetcher.missing([KERNEL]) == (KERNEL,)

    async def test_does_not_name_what_is_still_landing_as_here(self, fetcher, source: FolderSource):
        source.hold()
        asker = asyncio.create_task(fetcher.fetch(KERNEL))
        await until_waiting()
        assert fetcher.missing([KERNEL]) == (KERNEL,)
        source.release()
        await asker
        assert fetcher.missing([KERNEL]) == ()


class TestRoom:
    async def test_what_approved_installs_need_is_not_evicted_for_another_file(self, root: Path, source, wanted):
        size = len(FILES[KERNEL])
        cache = ContentCache(root, size + len(FILES[LOADER]))
        keep = frozenset({KERNEL, LOADER})
        async with aclosing(ContentFetcher(cache, source, wanted=wanted.get, keep=lambda: keep)) as fetcher:
            await fetcher.fetch(KERNEL)
            await fetcher.fetch(LOADER)
            with pytest.raises(StorageFull):
                await fetcher.fetch(INITRD)
            assert fetcher.missing([KERNEL, LOADER]) == ()

    async def test_nothing_is_evicted_while_central_is_away(self, root: Path, source: FolderSource, wanted):
        cache = ContentCache(root, len(FILES[INITRD]))
        async with aclosing(ContentFetcher(cache, source, wanted=wanted.get)) as fetcher:
            await fetcher.fetch(KERNEL)
            source.away = True
            with suppress(CentralUnavailable):
                await fetcher.fetch(INITRD)
            assert fetcher.missing([KERNEL]) == ()


async def test_a_disk_that_fails_is_the_agents_trouble_and_passes(fetcher, root: Path, monkeypatch):
    def broken_replace(*_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", broken_replace)
        with pytest.raises(Busy, match="Input/output error"):
            await fetcher.fetch(KERNEL)
    assert files_in(root) == []
    assert (await fetcher.fetch(KERNEL)).name == KERNEL


async def test_closing_ends_the_downloads_and_tells_who_waits(fetcher, source: FolderSource, root: Path):
    source.hold()
    asker = asyncio.create_task(fetcher.fetch(KERNEL))
    await until_waiting()
    await fetcher.aclose()
    with pytest.raises(CentralUnavailable, match="stopping"):
        await asker
    assert files_in(root) == []
