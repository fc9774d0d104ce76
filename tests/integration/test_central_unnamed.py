"""Content that no name stands for: its bytes go a while after the last name, and nothing that is named ever goes."""

from datetime import timedelta
from pathlib import Path

import pytest

from pureboot.central.content import Shelf, named_digests
from pureboot.central.main import build
from pureboot.central.unnamed import KEEP_UNNAMED, Unnamed
from pureboot.config.central import CentralSettings
from tests.support.central import RunningCentral, SetClock

CONTENT = bytes(range(256)) * 4000
PATH = "/content/images/k"


class Attic:
    def __init__(self, central: RunningCentral, clock: SetClock) -> None:
        self.central, self.clock = central, clock
        self.shelf = Shelf(central.folder / "content")
        self.unnamed = Unnamed(self.shelf)

    async def put(self, content: bytes = CONTENT, path: str = PATH) -> None:
        await self.central.ask("PUT", path, content=content)

    async def sweep(self, later: timedelta = timedelta(0)) -> int:
        self.clock.advance(later.total_seconds())
        named = await self.central.db.read(named_digests)
        return len(self.unnamed.sweep(named, self.clock.now()))

    def files(self) -> list[Path]:
        return sorted(path for path in (self.central.folder / "content" / "sha256").rglob("*") if path.is_file())


@pytest.fixture
def attic(central: RunningCentral, clock: SetClock) -> Attic:
    return Attic(central, clock)


async def test_bytes_go_some_time_after_their_last_name(attic: Attic) -> None:
    await attic.put()
    await attic.put(path="/content/images/twin")
    await attic.central.ask("DELETE", PATH, 204)
    assert await attic.sweep() == await attic.sweep(2 * KEEP_UNNAMED) == 0  # the twin names them
    await attic.central.ask("DELETE", "/content/images/twin", 204)
    assert await attic.sweep() == await attic.sweep(KEEP_UNNAMED - timedelta(seconds=1)) == 0
    assert await attic.sweep(timedelta(seconds=1)) == 1
    assert attic.files() == []


async def test_the_bytes_of_a_version_that_was_replaced_go_too(attic: Attic) -> None:
    await attic.put(b"old")
    await attic.put(b"new")
    assert await attic.sweep() == 0
    assert await attic.sweep(KEEP_UNNAMED) == 1
    assert (await attic.central.admin.get(f"/api/v1{PATH}")).content == b"new"


async def test_a_reader_goes_on(attic: Attic) -> None:
    await attic.put()
    with attic.files()[0].open("rb") as reader:
        head = reader.read(100)
        await attic.central.ask("DELETE", PATH, 204)
        await attic.sweep()
        assert await attic.sweep(KEEP_UNNAMED) == 1
        assert head + reader.read() == CONTENT


async def test_what_is_put_again_while_it_is_swept_stays(attic: Attic) -> None:
    """Its name is not stored yet when the sweep asks for the names."""
    await attic.put()
    await attic.central.ask("DELETE", PATH, 204)
    await attic.sweep()
    await attic.put()
    attic.clock.advance(KEEP_UNNAMED.total_seconds())
    assert attic.unnamed.sweep(set(), attic.clock.now()) == []
    assert (await attic.central.admin.get(f"/api/v1{PATH}")).content == CONTENT
    await attic.central.ask("DELETE", PATH, 204)
    assert await attic.sweep(KEEP_UNNAMED) == 1  # its own while is over


async def test_a_file_that_took_the_place_of_an_unnamed_one_is_not_discarded_for_it(attic: Attic) -> None:
    await attic.put()
    [(digest, made)] = attic.shelf.files()
    await attic.put()
    assert not attic.shelf.discard(digest, made)
    assert len(attic.files()) == 1


async def test_housekeeping_sweeps(tmp_path: Path, clock: SetClock) -> None:
    with build(CentralSettings(data_dir=tmp_path), clock) as central:
        file = Shelf(tmp_path / "content").path("sha256:" + "ab" * 32)
        file.parent.mkdir(parents=True)
        file.write_bytes(b"nobody names me")
        await central.housekeeping.round()
        assert file.exists()
        clock.advance(KEEP_UNNAMED.total_seconds())
        await central.housekeeping.round()
        assert not file.exists()
