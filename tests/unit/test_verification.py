"""Kept content is read again, at a low rate; what rotted is out of the cache before anybody is served it again."""

import asyncio
import os
from pathlib import Path

import pytest

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.cache.reading import PIECE
from pureboot.agent.verification import Verifier
from tests.support.content import content_document

KERNEL, TWIN, LOADER = "images/debian/linux", "images/twin", "bootloaders/undionly.kpxe"
CONTENT = bytes(range(256)) * 10_000


@pytest.fixture
async def cache(tmp_path: Path) -> ContentCache:
    cache = ContentCache(tmp_path / "cache", 10**8)
    for name in (KERNEL, TWIN, LOADER):
        content = b"loader" if name == LOADER else CONTENT
        async with cache.landing(name, len(content)) as path:
            path.write_bytes(content)
            await cache.put(name, path, content_document(name, content).digest)
    return cache


class Pauses:
    def __init__(self) -> None:
        self.all: list[float] = []
        self.rotten: list[str] = []

    async def sleep(self, seconds: float) -> None:
        self.all.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def verifier(cache: ContentCache, pauses: Pauses) -> Verifier:
    return Verifier(cache, rate=PIECE, on_rotten=pauses.rotten.extend, sleep=pauses.sleep)


def rot(cache: ContentCache, name: str) -> Path:
    """One bit, and nothing else shows it."""
    path = next(file.path for file in cache.files() if file.name == name)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(100)
        byte = file.read(1)[0]
        file.seek(100)
        file.write(bytes([byte ^ 4]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path


async def whole_round(verifier: Verifier) -> None:
    while await verifier.verify_next():
        pass


async def test_a_round_reads_each_file_once_at_its_rate(verifier: Verifier, cache: ContentCache, pauses: Pauses):
    assert verifier.begin_round() == 2  # two names share one file
    await whole_round(verifier)
    assert sum(pauses.all) == pytest.approx((len(CONTENT) + 6) / PIECE)
    assert max(pauses.all) <= 1
    assert (verifier.verified, verifier.rotten, pauses.rotten) == (2, 0, [])
    assert len(cache.files()) == 3


async def test_what_rotted_is_out_of_the_cache_under_all_its_names(verifier, cache, pauses, caplog):
    path = rot(cache, KERNEL)
    assert await cache.get(KERNEL) is not None  # its size and time are right
    verifier.begin_round()
    await whole_round(verifier)
    assert sorted(pauses.rotten) == [KERNEL, TWIN]
    assert [file.name for file in cache.files()] == [LOADER]
    assert not path.exists()
    assert (verifier.verified, verifier.rotten) == (1, 1)
    assert "rotted" in caplog.text
    assert [file.name for file in ContentCache(path.parents[1], 10**8).files()] == [LOADER]


async def test_a_disk_that_cannot_read_it_has_lost_it(verifier, cache, pauses, monkeypatch):
    pread = os.pread

    def broken(descriptor: int, length: int, position: int) -> bytes:
        if position > 0:
            raise OSError(5, "Input/output error")
        return pread(descriptor, length, position)

    monkeypatch.setattr(os, "pread", broken)
    verifier.begin_round()
    await whole_round(verifier)
    # Of the small one the first read is good, and the next, for its end, is not.
    assert sorted(pauses.rotten) == [LOADER, KERNEL, TWIN]


async def test_what_went_meanwhile_is_not_rotten(verifier: Verifier, cache: ContentCache, pauses: Pauses):
    verifier.begin_round()
    await cache.evict(LOADER)
    await whole_round(verifier)
    assert pauses.rotten == []


async def test_without_a_rate_nothing_is_read(cache: ContentCache, pauses: Pauses):
    verifier = Verifier(cache, rate=0, on_rotten=pauses.rotten.extend, sleep=pauses.sleep)
    rot(cache, KERNEL)
    assert verifier.begin_round() == 0
    assert not await verifier.verify_next()
    assert len(cache.files()) == 3


async def test_what_came_back_with_other_times_is_read_at_the_start_whatever_the_rate(cache, pauses, caplog):
    for file in cache.files():
        os.utime(file.path, ns=(0, 0))
    root = cache.files()[0].path.parents[1]
    cache = ContentCache(root, 10**8)
    wrong = next(file.path for file in cache.files() if file.name == LOADER)
    wrong.write_bytes(b"LOADER")
    verifier = Verifier(cache, rate=0, on_rotten=pauses.rotten.extend, sleep=pauses.sleep)
    assert not any(cache.contains(file.name, file.digest) for file in cache.files())
    await verifier.start()
    try:
        async with asyncio.timeout(10):
            while cache.doubtful() or verifier.problem:
                await asyncio.sleep(0.01)
    finally:
        await verifier.stop()
    assert (pauses.rotten, verifier.rotten) == ([LOADER], 1)
    assert sorted(file.name for file in cache.files() if cache.contains(file.name, file.digest)) == [KERNEL, TWIN]
    assert not wrong.exists()
    assert "2 kept files have other times than they had" in caplog.text
    assert ContentCache(root, 10**8).doubtful() == []


async def test_a_round_can_be_asked_for(verifier: Verifier, cache: ContentCache, pauses: Pauses):
    rot(cache, KERNEL)
    await verifier.start()
    try:
        assert verifier.request() == 2
        async with asyncio.timeout(10):
            while not pauses.rotten:
                await asyncio.sleep(0.01)
    finally:
        await verifier.stop()
