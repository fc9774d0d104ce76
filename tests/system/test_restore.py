"""Central comes back from a backup: what it forgot it hears again from its agents, which went on meanwhile."""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from pureboot.core.lifecycle import NodeState
from tests.support.fleet import Fleet, Site, running_fleet
from tests.support.postgres import Postgres
from tests.support.programs import Central
from tests.support.verdict import nothing_else_is_there, nothing_is_wrong, what_was_promised_is_there

pytestmark = pytest.mark.timeout(300)


class Backup(Protocol):
    """Of the database of a central that does not run."""

    def take(self, central: Central) -> None: ...
    def put_back(self, central: Central) -> None: ...


@dataclass
class OfFile:
    file: Path

    def take(self, central: Central) -> None:
        with (
            closing(sqlite3.connect(central.folder / "central.db")) as live,
            closing(sqlite3.connect(self.file)) as kept,
        ):
            live.backup(kept)

    def put_back(self, central: Central) -> None:
        for file in central.folder.glob("central.db*"):
            file.unlink()
        shutil.copy(self.file, central.folder / "central.db")


@dataclass
class OfServer:
    server: Postgres
    database: str
    spare: str

    def take(self, central: Central) -> None:
        self.server.copy(self.database, self.spare)

    def put_back(self, central: Central) -> None:
        self.server.copy(self.spare, self.database)


@pytest.fixture
def backup(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Backup]:
    if not database:
        yield OfFile(tmp_path / "central.backup")
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as spare:
        yield OfServer(server, database, spare)


class Story:
    """Of two machines of one site: one is moved in, and one is new."""

    def __init__(self, fleet: Fleet, site: Site) -> None:
        self._fleet, self._site = fleet, site
        self._moving, self._new, self._late = (fleet.reporter(site, number) for number in range(3))

    async def before_the_backup(self) -> None:
        self.node_id = await self._fleet.import_node(self._site, self._moving.mac, NodeState.CLONING_TARGET)
        await self._moving.chatters(self.node_id, 5)
        await self._moving.says("install_complete")
        self.new_id = await self._new.registers()
        await self._new.chatters(self.new_id, 5)

    async def after_it(self) -> None:
        await self._moving.chatters(self.node_id, 5)
        await self._moving.becomes(self.node_id, NodeState.ACTIVE)
        await self._new.chatters(self.new_id, 5)
        await self._late.chatters(await self._late.registers(), 5)

    async def while_central_is_dead(self) -> None:
        await self._moving.chatters(self.node_id, 5)
        await self._new.chatters(self.new_id, 5)


async def test_what_the_backup_forgot_comes_back_from_the_agents_once_and_in_order(
    tmp_path: Path, database: str, backup: Backup
) -> None:
    async with running_fleet(tmp_path, ("attic", "barn"), database) as fleet:
        stories = [Story(fleet, site) for site in fleet.sites]
        await asyncio.gather(*(story.before_the_backup() for story in stories))
        await fleet.drained()
        await fleet.central.end()
        backup.take(fleet.central)
        await fleet.central.start()
        await asyncio.gather(*(story.after_it() for story in stories))
        await fleet.drained()
        await what_was_promised_is_there(fleet)

        await fleet.central.kill()
        await asyncio.gather(*(story.while_central_is_dead() for story in stories))
        backup.put_back(fleet.central)
        await fleet.central.post_restore()
        await fleet.central.start()

        await fleet.drained()
        await what_was_promised_is_there(fleet)
        await nothing_else_is_there(fleet)
        await nothing_is_wrong(fleet)
