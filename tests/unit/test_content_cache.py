import asyncio
import contextlib
import errno
import hashlib
import itertools
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.cache.content_index import CachedFile
from pureboot.core.errors import Invalid, Malformed, StorageFull
from tests.support.disk import small_disk, through_tar

ROOM = 1_000_000

KERNEL = "images/debian/linux"
INITRD = "images/debian/initrd.gz"
LOADER = "bootloaders/undionly.kpxe"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(root: Path) -> ContentCache:
    return ContentCache(root, ROOM)


def landed(root: Path, content: bytes) -> Path:
    path = root / "landing" / uuid.uuid4().hex
    path.write_bytes(content)
    return path


async def put(cache: ContentCache, root: Path, name: str, content: bytes, *keep: str) -> CachedFile:
    return await cache.put(name, landed(root, content), digest_of(content), keep=frozenset(keep))


def files_in(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def names_in(cache: ContentCache) -> list[str]:
    return [file.name for file in cache.files()]


def assert_sound(root: Path) -> ContentCache:
    """What opens after a crash is whole, and there is nothing else."""
    cache = ContentCache(root, ROOM)
    for file in cache.files():
        assert digest_of(file.path.read_bytes()) == file.digest
        assert cache.contains(file.name, file.digest)
    assert len(files_in(root)) == len(cache.files()) + len({file.path for file in cache.files()})
    return cache


class TestKeeping:
    async def test_what_was_put_is_found_by_its_name_with_the_right_bytes(self, cache: ContentCache, root: Path):
        kept = await put(cache, root, KERNEL, b"kernel")
        assert await cache.get(KERNEL) == kept
        assert kept.path.read_bytes() == b"kernel"
        assert (kept.digest, kept.size) == (digest_of(b"kernel"), 6)
        assert cache.contains(KERNEL, digest_of(b"kernel"))
        assert cache.usage == 6

    async def test_nothing_of_a_name_becomes_part_of_a_path(self, cache: ContentCache, root: Path):
        await put(cache, root, KERNEL, b"kernel")
        assert files_in(root) == {
            f"images/{hashlib.sha256(b'kernel').hexdigest()}",
            f"index/{hashlib.sha256(KERNEL.encode()).hexdigest()}.json",
        }

    async def test_another_version_takes_the_place_of_the_one_before(self, cache: ContentCache, root: Path):
        await put(cache, root, KERNEL, b"old")
        await put(cache, root, KERNEL, b"newer")
        assert not cache.contains(KERNEL, digest_of(b"old"))
        assert await cache.get(KERNEL, digest_of(b"old")) is None
        assert cache.usage == 5
        assert len(files_in(root)) == 2

    async def test_hits_and_misses_are_counted(self, cache: ContentCache, root: Path):
        await put(cache, root, KERNEL, b"kernel")
        await cache.get(KERNEL)
        await cache.get(KERNEL, digest_of(b"other"))
        await cache.get(INITRD)
        assert (cache.hits, cache.misses) == (1, 2)

    async def test_an_empty_file_is_a_file(self, cache: ContentCache, root: Path):
        await put(cache, root, KERNEL, b"")
        assert cache.contains(KERNEL, digest_of(b""))

    async def test_an_evicted_name_is_gone(self, cache: ContentCache, root: Path):
        await put(cache, root, KERNEL, b"kernel")
        assert await cache.evict(KERNEL)
        assert not await cache.evict(KERNEL)
        assert await cache.get(KERNEL) is None
        assert files_in(root) == set()

    async def test_an_open_file_can_be_read_to_its_end_after_its_eviction(self, cache: ContentCache, root: Path):
        kept = await put(cache, root, KERNEL, b"kernel")
        with kept.path.open("rb") as file:
            await cache.evict(KERNEL)
            assert file.read() == b"kernel"


class TestRefusals:
    @pytest.mark.parametrize("digest", [digest_of(b"other"), "sha256:00", "md5:" + "0" * 32, "", "../../etc/passwd"])
    async def test_bytes_that_are_not_those_of_the_digest_are_removed(self, cache, root, digest: str):
        source = landed(root, b"kernel")
        with pytest.raises(Invalid):
            await cache.put(KERNEL, source, digest)
        assert files_in(root) == set()
        assert await cache.get(KERNEL) is None

    async def test_a_mismatch_says_so_and_the_version_before_stays(self, cache: ContentCache, root: Path):
        await put(cache, root, KERNEL, b"good")
        with pytest.raises(Invalid) as caught:
            await cache.put(KERNEL, landed(root, b"bad"), digest_of(b"good too"))
        assert caught.value.code == "digest_mismatch"
        assert cache.contains(KERNEL, digest_of(b"good"))

    @pytest.mark.parametrize(
        "name",
        [
            "", "images", "images/", "/images/a", "images//a", "images/../a", "images/./a", "images/a/..", "../a",
            "secrets/a", "images/a\0b", "images/a\nb", "images\\a", "images/..\\a", "images/\ud800",
            "images/" + "a" * 600,
        ],
    )  # fmt: skip
    async def test_what_is_no_name_is_refused(self, cache: ContentCache, root: Path, name: str):
        with pytest.raises(Malformed):
            await put(cache, root, name, b"kernel")
        assert files_in(root) == set()


class TestSharing:
    async def test_names_with_the_same_bytes_share_them_within_a_category(self, cache: ContentCache, root: Path):
        first = await put(cache, root, "images/a", b"same")
        second = await put(cache, root, "images/b", b"same")
        other = await put(cache, root, "scripts/c", b"same")
        assert first.path == second.path != other.path
        assert cache.usage == 8
        assert names_in(assert_sound(root)) == ["images/a", "images/b", "scripts/c"]

    async def test_evicting_one_name_keeps_the_bytes_for_the_other(self, cache: ContentCache, root: Path):
        await put(cache, root, "images/a", b"same")
        await put(cache, root, "images/b", b"same")
        await cache.evict("images/a")
        assert cache.contains("images/b", digest_of(b"same"))
        await put(cache, root, "images/b", b"other")
        assert len(files_in(root)) == 2

    async def test_room_is_made_by_the_last_of_the_names_that_share_bytes(self, root: Path):
        cache = ContentCache(root, 10)
        for name in ("images/a", "images/b"):
            await put(cache, root, name, b"same")
        await put(cache, root, "images/c", b"12345678")
        assert names_in(cache) == ["images/c"]


class TestEviction:
    async def test_the_least_recently_used_goes_first(self, root: Path):
        cache = ContentCache(root, 10)
        for name in ("images/a", "images/b", "images/c"):
            await put(cache, root, name, name[-1:].encode() * 3)
        await cache.get("images/a")
        await put(cache, root, "images/d", b"ddd")
        assert names_in(cache) == ["images/c", "images/a", "images/d"]
        assert cache.usage == 9

    async def test_what_was_used_last_is_known_after_a_restart(self, root: Path):
        cache = ContentCache(root, 10)
        for name in ("images/a", "images/b", "images/c"):
            await put(cache, root, name, name[-1:].encode() * 3)
        await cache.get("images/a")
        cache = ContentCache(root, 10)
        assert names_in(cache) == ["images/b", "images/c", "images/a"]
        await cache.get("images/b")
        assert names_in(ContentCache(root, 10)) == ["images/c", "images/a", "images/b"]

    async def test_what_must_be_kept_is_never_evicted(self, root: Path):
        cache = ContentCache(root, 10)
        await put(cache, root, LOADER, b"loader")
        await put(cache, root, KERNEL, b"old")
        await put(cache, root, INITRD, b"1234", LOADER)
        assert names_in(cache) == [LOADER, INITRD]

    async def test_what_cannot_fit_is_refused_and_nothing_is_evicted_for_it(self, root: Path):
        cache = ContentCache(root, 10)
        await put(cache, root, LOADER, b"loader")
        await put(cache, root, KERNEL, b"old")
        with pytest.raises(StorageFull):
            await put(cache, root, INITRD, b"12345", LOADER)
        assert names_in(cache) == [LOADER, KERNEL]
        assert len(files_in(root)) == 4

    async def test_a_new_version_replaces_its_old_one_before_others_have_to_go(self, root: Path):
        cache = ContentCache(root, 10)
        await put(cache, root, "images/a", b"aaa")
        await put(cache, root, KERNEL, b"old v1")
        await put(cache, root, KERNEL, b"new v2", KERNEL)
        assert names_in(cache) == ["images/a", KERNEL]

    @pytest.mark.parametrize("keep", [(), (LOADER, "images/a")])
    async def test_but_a_boot_loader_is_there_until_its_new_version_is(self, root: Path, keep: tuple[str, ...]):
        cache = ContentCache(root, 10)
        await put(cache, root, "images/a", b"aaaa")
        await put(cache, root, LOADER, b"old v1")
        async with cache.landing(LOADER, 6, keep=frozenset(keep)) as path:
            assert names_in(cache) == ["images/a", LOADER]
            path.write_bytes(b"new v2")
            await cache.put(LOADER, path, digest_of(b"new v2"), keep=frozenset(keep))
        assert names_in(cache) == ["images/a", LOADER]
        assert cache.contains(LOADER, digest_of(b"new v2"))
        assert cache.usage == 10

    async def test_a_larger_one_makes_room_for_what_it_is_larger_by(self, root: Path):
        cache = ContentCache(root, 10)
        for name in ("images/a", "images/b"):
            await put(cache, root, name, name[-2:].encode())
        await put(cache, root, LOADER, b"old v1")
        async with cache.landing(LOADER, 8):
            assert names_in(cache) == ["images/b", LOADER]
        with pytest.raises(StorageFull):
            async with cache.landing(LOADER, 11):
                pass
        assert names_in(cache) == ["images/b", LOADER]

    async def test_bytes_that_land_have_their_room_reserved(self, root: Path):
        cache = ContentCache(root, 10)
        await put(cache, root, "images/a", b"aaa")
        async with cache.landing(KERNEL, 6) as path:
            path.write_bytes(b"kernel")
            with pytest.raises(StorageFull):
                await put(cache, root, INITRD, b"12345")
            await cache.put(KERNEL, path, digest_of(b"kernel"))
        assert names_in(cache) == ["images/a", KERNEL]

    async def test_a_landing_that_was_given_up_leaves_nothing(self, root: Path):
        cache = ContentCache(root, 10)
        with contextlib.suppress(RuntimeError):
            async with cache.landing(KERNEL, 10) as path:
                path.write_bytes(b"half")
                raise RuntimeError
        assert files_in(root) == set()
        await put(cache, root, INITRD, b"1234567890")

    async def test_a_landing_that_was_cancelled_while_it_waited_holds_no_room(self, root: Path, monkeypatch):
        cache = ContentCache(root, 10)
        busy, free = threading.Event(), threading.Event()
        replace = os.replace

        def slow_replace(source: Path, target: Path) -> None:
            busy.set()
            free.wait(10)
            replace(source, target)

        async def land() -> None:
            async with cache.landing(KERNEL, 8):
                pytest.fail("there is no room to wait for")

        monkeypatch.setattr(os, "replace", slow_replace)
        first = asyncio.create_task(put(cache, root, "images/a", b"a"))
        await asyncio.to_thread(busy.wait, 10)
        landing = asyncio.create_task(land())
        await asyncio.sleep(0)
        landing.cancel()
        await asyncio.wait([landing])
        free.set()
        await first
        await put(cache, root, INITRD, b"123456789")
        assert names_in(cache) == ["images/a", INITRD]

    async def test_many_changes_at_once_leave_the_cache_within_its_limit_and_sound(self, root: Path):
        cache = ContentCache(root, 1000)
        contents = {f"images/{number}": bytes([number]) * 90 for number in range(40)}
        await asyncio.gather(
            *(put(cache, root, name, content) for name, content in contents.items()),
            *(cache.evict(f"images/{number}") for number in range(0, 40, 3)),
            *(cache.get(name) for name in contents),
        )
        assert cache.usage <= 1000
        assert set(names_in(assert_sound(root))) == set(names_in(cache))


class Disk:
    """Of 1000 bytes with a floor of 50, as the cache sees it: what lies in `root`, and what others take."""

    def __init__(self, root: Path) -> None:
        self.root, self.taken = root, 0

    def spare(self, floors: float) -> float:
        held = sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file() and path.suffix != ".json")
        return 1000 - self.taken - held - 50 * floors


class TestTheDisk:
    """It is smaller than the limit."""

    @pytest.fixture
    def disk(self, root: Path) -> Disk:
        return Disk(root)

    @pytest.fixture
    def cache(self, root: Path, disk: Disk) -> ContentCache:
        return ContentCache(root, ROOM, spare=disk.spare)

    async def test_content_leaves_twice_the_floor_free_for_reports(self, cache, root, disk: Disk):
        async with cache.landing("images/a", 900) as path:
            path.write_bytes(bytes(900))
            await cache.put("images/a", path, digest_of(bytes(900)))
        assert (disk.spare(2), cache.max_bytes) == (0, 900)
        with pytest.raises(StorageFull) as caught:
            async with cache.landing("images/b", 1, keep=frozenset({"images/a"})):
                pass
        assert caught.value.hint.startswith("Free disk space")

    async def test_what_is_on_its_way_has_its_room(self, cache, root, disk: Disk):
        async with cache.landing("images/a", 500) as path:
            path.write_bytes(bytes(200))
            assert cache.max_bytes == 900
            async with cache.landing("images/b", 400):
                with pytest.raises(StorageFull):
                    cache.check_room("images/c", 1, digest=digest_of(b"c"))

    async def test_whether_there_is_room_is_known_before_anything_comes(self, cache, root, disk: Disk):
        await put(cache, root, "images/a", bytes(500))
        cache.check_room("images/b", 900, digest=digest_of(b"b"))
        with pytest.raises(StorageFull):
            cache.check_room("images/b", 901, digest=digest_of(b"b"))
        with pytest.raises(StorageFull):
            cache.check_room("images/b", 401, digest=digest_of(b"b"), keep=frozenset({"images/a"}))
        assert names_in(cache) == ["images/a"]

    async def test_it_shrinks_where_others_fill_the_disk_and_does_not_for_a_little(self, cache, root, disk: Disk):
        for name in ("images/a", "images/b", LOADER):
            await put(cache, root, name, name.encode() * 20)

        async def gone(taken: int) -> list[str]:
            disk.taken = taken
            ever, stays = lambda _: float("inf"), frozenset({LOADER})
            return list(await cache.expire(ever, keep=frozenset({"images/b"}), must_stay=stays))

        free = 1000 - cache.usage
        assert await gone(free - 75) == []
        assert await gone(free - 74) == ["images/a"]
        assert await gone(free + 100) == ["images/b"]
        assert await gone(2 * free) == []
        assert names_in(cache) == [LOADER]

    async def test_what_has_come_is_not_thrown_away_for_a_little_that_others_took(self, cache, root, disk: Disk):
        async with cache.landing("images/a", 900) as path:
            path.write_bytes(bytes(900))
            disk.taken = 25
            await cache.put("images/a", path, digest_of(bytes(900)))
        assert names_in(cache) == ["images/a"]


class TestDamage:
    @pytest.fixture
    async def kernel(self, cache: ContentCache, root: Path) -> Path:
        kept = await put(cache, root, KERNEL, b"kernel")
        return kept.path

    @pytest.fixture(params=["shrunk", "changed", "gone", "link"])
    def damage(self, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], None]:
        def do(path: Path) -> None:
            match request.param:
                case "shrunk":
                    os.truncate(path, 3)
                case "changed":
                    path.write_bytes(b"KERNEL")
                    os.utime(path, ns=(0, 0))
                case "gone":
                    path.unlink()
                case "link":
                    mtime = path.stat().st_mtime_ns
                    path.rename(tmp_path / "elsewhere")
                    path.symlink_to("kernel")  # as long as the file
                    os.utime(path, ns=(mtime, mtime), follow_symlinks=False)

        return do

    async def test_a_file_damaged_behind_our_back_is_not_served(self, cache, root, kernel: Path, damage):
        damage(kernel)
        assert not cache.contains(KERNEL, digest_of(b"kernel"))
        assert await cache.get(KERNEL) is None
        assert files_in(root) == set()

    async def test_a_file_damaged_while_we_were_away_is_dropped(self, root, kernel: Path, damage):
        damage(kernel)
        cache = ContentCache(root, ROOM)
        assert not cache.contains(KERNEL, digest_of(b"kernel"))
        assert await cache.get(KERNEL) is None
        assert names_in(assert_sound(root)) == []

    async def test_a_damaged_file_is_replaced_and_the_names_that_shared_it_lose_it(self, cache, root, kernel, damage):
        await put(cache, root, "images/twin", b"kernel")
        damage(kernel)
        await put(cache, root, KERNEL, b"kernel")
        assert names_in(assert_sound(root)) == [KERNEL]

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "\x00\xff", '{"name": "images/x"}', '{"name": 1, "digest": 2, "size": 3, "mtime_ns": 4}'],
    )
    async def test_a_damaged_entry_of_the_index_is_dropped(self, root: Path, kernel: Path, text: str, caplog):
        (entry,) = (root / "index").iterdir()
        entry.write_text(text)
        assert names_in(assert_sound(root)) == []
        assert "damaged" in caplog.text

    @pytest.mark.parametrize(
        "field",
        [
            {"name": "images/other"},
            {"name": "../../etc/passwd"},
            {"digest": "sha256:../../../etc/passwd"},
            {"digest": digest_of(b"other")},
            {"size": 5},
            {"extra": 1},
        ],
        ids=str,
    )
    async def test_an_entry_that_says_what_is_not_so_is_dropped(self, root: Path, kernel: Path, field: dict):
        (entry,) = (root / "index").iterdir()
        entry.write_text(json.dumps(json.loads(entry.read_text()) | field))
        assert names_in(assert_sound(root)) == []

    async def test_leftovers_go_and_what_is_not_ours_stays(self, root: Path, kernel: Path):
        (root / "landing" / "half").write_bytes(b"half")
        (root / "images" / ("0" * 64)).write_bytes(b"orphan")
        (root / "images" / "README").write_text("the operator's own")
        (root / "index" / "folder").mkdir()
        (root / "landing" / "folder").mkdir()
        assert names_in(ContentCache(root, ROOM)) == [KERNEL]
        assert {Path(name).parts[0] for name in files_in(root)} == {"images", "index"}
        assert len(files_in(root)) == 3

    async def test_a_file_replaced_after_the_look_up_is_not_dropped_for_the_old_one(self, cache, root, kernel: Path):
        os.truncate(kernel, 1)
        await asyncio.gather(cache.get(KERNEL), put(cache, root, KERNEL, b"new one"))
        assert cache.contains(KERNEL, digest_of(b"new one"))


class TestACopyOfTheFolder:
    """Made by what keeps no times, or whole seconds only (tar)."""

    NAMES = (KERNEL, "images/twin", LOADER)

    @pytest.fixture
    async def copy(self, cache: ContentCache, root: Path, tmp_path: Path) -> Path:
        for name in self.NAMES:
            await put(cache, root, name, b"loader" if name == LOADER else b"kernel")
        return through_tar(root, tmp_path / "copy")

    async def test_its_content_serves_once_its_bytes_were_read_again(self, copy: Path):
        cache = ContentCache(copy, ROOM)
        assert names_in(cache) == list(self.NAMES)
        assert not any(cache.contains(file.name, file.digest) for file in cache.files())
        kept = await cache.get(KERNEL, digest_of(b"kernel"))
        assert kept is not None
        assert kept.path.read_bytes() == b"kernel"
        assert cache.contains("images/twin", digest_of(b"kernel"))
        assert [file.name for file in cache.doubtful()] == [LOADER]
        assert [file.name for file in ContentCache(copy, ROOM).doubtful()] == [LOADER]

    async def test_no_other_bytes_serve_instead(self, copy: Path):
        cache = ContentCache(copy, ROOM)
        (copy / "images" / digest_of(b"kernel").removeprefix("sha256:")).write_bytes(b"KERNEL")
        assert await cache.get(KERNEL, digest_of(b"kernel")) is None
        assert names_in(cache) == [LOADER]
        assert await cache.get(LOADER) is not None
        assert names_in(assert_sound(copy)) == [LOADER]

    async def test_a_file_is_read_once_for_all_who_ask_at_once(self, copy: Path, monkeypatch):
        reads: list[int] = []
        pread = os.pread

        def counted(source: int, length: int, position: int) -> bytes:
            reads.append(position)
            return pread(source, length, position)

        monkeypatch.setattr(os, "pread", counted)
        cache = ContentCache(copy, ROOM)
        asked = [cache.get(name) for name in (KERNEL, "images/twin") * 4]
        assert None not in await asyncio.gather(*asked)
        assert reads == [0, 6]

    async def test_who_goes_away_while_it_is_read_takes_it_from_nobody(self, copy: Path):
        cache = ContentCache(copy, ROOM)
        gone = asyncio.create_task(cache.get(KERNEL))
        await asyncio.sleep(0)
        stays = asyncio.create_task(cache.get(KERNEL))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays is not None

    async def test_being_read_is_no_use_of_it(self, copy: Path):
        cache = ContentCache(copy, ROOM)
        for file in reversed(cache.doubtful()):
            await cache.confirm(file)
        assert names_in(cache) == names_in(assert_sound(copy)) == list(self.NAMES)

    async def test_what_the_disk_cannot_read_stays_and_serves_nobody(self, copy: Path, monkeypatch):
        def broken(source: int, length: int, position: int) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        cache = ContentCache(copy, ROOM)
        with monkeypatch.context() as broke:
            broke.setattr(os, "pread", broken)
            assert await cache.get(KERNEL) is None
        assert await cache.get(KERNEL) is not None

    async def test_a_new_download_of_it_takes_its_place(self, copy: Path):
        cache = ContentCache(copy, ROOM)
        await put(cache, copy, KERNEL, b"kernel")
        assert cache.contains(KERNEL, digest_of(b"kernel"))
        assert [file.name for file in cache.doubtful()] == [LOADER]


# Dies by kill -9 just before the n-th change to the file system, for every n. `old` is what the cache held before.
KILLED = """
import asyncio, hashlib, os, shutil, signal, sys
from pathlib import Path
from pureboot.agent.cache.content_cache import ContentCache

work, base, action = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
CHANGES = {"open", "os.rename", "os.remove", "os.utime", "os.mkdir"}

async def act(cache, root):
    match action:
        case "put new" | "put next" | "put twin":
            name = {"put new": "images/new", "put next": "images/old", "put twin": "images/twin"}[action]
            content = b"old" if action == "put twin" else b"new"
            async with cache.landing(name, len(content)) as path:
                path.write_bytes(content)
                await cache.put(name, path, f"sha256:{hashlib.sha256(content).hexdigest()}")
        case "evict":
            await cache.evict("images/old")
        case "get":
            await cache.get("images/old")

def run(root, step):
    left = step
    def die(event, arguments):
        nonlocal left
        if event in CHANGES and str(arguments[0]).startswith(str(root)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(die)
    asyncio.run(act(ContentCache(root, 1000), root))

for step in range(1, 200):
    root = Path(work) / str(step)
    shutil.copytree(base, root)
    child = os.fork()
    if child == 0:
        run(root, step)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


BEFORE = {"images/old": b"old", "images/b": b"b"}


@pytest.mark.parametrize(
    ("action", "after"),
    [
        ("put new", BEFORE | {"images/new": b"new"}),
        ("put next", BEFORE | {"images/old": b"new"}),
        ("put twin", BEFORE | {"images/twin": b"old"}),
        ("evict", {"images/b": b"b"}),
        ("get", BEFORE),
    ],
)
async def test_killed_at_any_step_the_cache_is_sound_and_as_before_or_after(
    tmp_path: Path, action: str, after: dict[str, bytes]
):
    base = tmp_path / "base"
    cache = ContentCache(base, ROOM)
    for name, content in BEFORE.items():
        await put(cache, base, name, content)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "steps"), str(base), action]
    await asyncio.to_thread(subprocess.run, command, check=True)
    steps = sorted((tmp_path / "steps").iterdir(), key=lambda path: int(path.name))
    held = [{file.name: file.path.read_bytes() for file in assert_sound(root).files()} for root in steps]
    assert len(held) > 3
    assert held[0] == BEFORE
    assert held[-1] == after
    assert all(state in (BEFORE, after) for state in held)


async def test_bytes_are_on_disk_before_they_get_their_name_and_the_name_before_put_returns(cache, root, monkeypatch):
    steps: list[tuple[str, Path]] = []
    replace, fsync = os.replace, os.fsync

    def noted_fsync(descriptor: int) -> None:
        steps.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(root)))
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        steps.append(("rename", source.relative_to(root)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    await put(cache, root, KERNEL, b"kernel")
    content, entry = steps[0][1], steps[3][1]
    assert content != entry
    assert steps == [
        ("fsync", content), ("rename", content), ("fsync", Path("images")),
        ("fsync", entry), ("rename", entry), ("fsync", Path("index")),
    ]  # fmt: skip


def fails_at(step: int, calls: Iterator[int], real: Callable, error: Exception) -> Callable:
    def call(*arguments):
        if next(calls) == step:
            raise error
        return real(*arguments)

    return call


class TestFullDisk:
    # fsync, rename, fsync of the folder: first for the bytes, then for the entry of the index.
    @pytest.mark.parametrize("step", range(6))
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    async def test_no_space_at_any_step_leaves_no_bytes_behind(self, cache, root, monkeypatch, step: int, number: int):
        await put(cache, root, LOADER, b"loader")
        before = files_in(root)
        with monkeypatch.context() as patch:
            calls = itertools.count()
            for name in ("fsync", "replace"):
                patch.setattr(os, name, fails_at(step, calls, getattr(os, name), OSError(number, "no space")))
            with pytest.raises(StorageFull):
                await put(cache, root, KERNEL, b"kernel")
        # At the last step the entry may already be there; it speaks of bytes that are gone.
        assert {name for name in files_in(root) - before if step < 5 or not name.startswith("index/")} == set()
        assert names_in(assert_sound(root)) == [LOADER]
        await put(cache, root, KERNEL, b"kernel")
        assert names_in(assert_sound(root)) == [LOADER, KERNEL]

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        with small_disk(tmp_path / "disk", "256k") as path:
            yield path

    async def test_a_disk_that_fills_up_refuses_the_file_and_holds_the_others(self, small_disk: Path):
        root = small_disk / "cache"
        cache = ContentCache(root, ROOM)
        await put(cache, root, LOADER, b"l" * 100_000)
        with pytest.raises(StorageFull):
            async with cache.landing(KERNEL, 200_000) as path:
                path.write_bytes(b"k" * 200_000)
        assert cache.contains(LOADER, digest_of(b"l" * 100_000))
        await put(cache, root, KERNEL, b"k" * 100_000)
        assert names_in(assert_sound(root)) == [LOADER, KERNEL]
