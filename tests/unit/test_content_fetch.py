import asyncio
import errno
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.content import ContentFetcher
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
    async with aclosing(ContentFetcher(cache, source, wanted=wanted.get)) as fetcher:
        yield fetcher


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

    @pytest.mark.parametrize("cut_after", [0, 1, 70_000])
    async def test_a_transfer_that_breaks_leaves_nothing(
        self, fetcher, source: FolderSource, root: Path, cut_after: int
    ):
        source.cut_after = cut_after
        with pytest.raises(CentralUnavailable):
            await fetcher.fetch(KERNEL)
        assert files_in(root) == []

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
