"""The agent's file: opened once, and never a reason not to start."""

import asyncio
import hashlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pureboot.agent import accounts
from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.database import Database, damaged_copies, get_meta, set_meta
from pureboot.agent.queue import QueueItem, SyncQueue
from pureboot.agent.schema import MIGRATIONS
from pureboot.core.errors import SettingsError
from pureboot.core.lifecycle import NodeState
from pureboot.wire.messages import Outcome, PushResult
from tests.support.parts import EPOCH, MAC, opened

ITEMS = 300
PAGE = 4096
# The first byte of a page with rows of a table (https://www.sqlite.org/fileformat.html, 1.6).
LEAF = 0x0D


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "agent.db"


async def fill(path: Path) -> list[str]:
    """An outbox over some thirty pages, and a node."""
    with opened(path) as parts:
        await parts.knows()
        payload = {"event": "e", "message": "x" * 300}
        items = (
            QueueItem(id=f"item-{n:03}", item_type="event", payload=payload, created_at=EPOCH, lane=f"n{n % 3}")
            for n in range(ITEMS)
        )
        await asyncio.gather(*map(parts.queue.enqueue, items))
        return [item.id for item in await parts.waiting()]


def leaves(path: Path) -> list[int]:
    """Offsets of the pages that hold rows of the outbox."""
    content = path.read_bytes()
    pages = range(0, len(content), PAGE)
    return [at for at in pages if content[at] == LEAF and content.count(b"item-", at, at + PAGE) > 5]


def overwrite(path: Path, *offsets: int) -> None:
    content = bytearray(path.read_bytes())
    for offset in offsets:
        content[offset : offset + PAGE] = b"\xa5" * PAGE
    path.write_bytes(bytes(content))


def cut(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(size)


def spoil(path: Path, damage: Callable[[bytes], bytes]) -> None:
    path.write_bytes(damage(path.read_bytes()))


def size_of(path: Path) -> int:
    return path.stat().st_size


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def aside(path: Path) -> list[Path]:
    return [file for file in path.parent.glob("agent.db.damaged-*") if not file.name.endswith(("-wal", "-shm"))]


async def survivors(path: Path) -> list[str]:
    with opened(path) as parts:
        await parts.queue.initialize()
        assert parts.queue.pending_count == len(await parts.waiting())
        return [item.id for item in await parts.waiting()]


async def test_a_damaged_file_is_kept_aside_and_its_outbox_carried_over(path: Path) -> None:
    everything = await fill(path)
    overwrite(path, 3 * PAGE)
    damaged = digest(path)
    assert await survivors(path) == everything
    (kept,) = aside(path)
    assert digest(kept) == damaged


@pytest.mark.parametrize("which", ["first", "middle", "last", "two"])
async def test_a_page_that_cannot_be_read_takes_only_its_own_items(path: Path, which: str) -> None:
    everything = await fill(path)
    pages = leaves(path)
    lost = {"first": pages[:1], "middle": pages[9:10], "last": pages[-1:], "two": [pages[2], pages[20]]}[which]
    overwrite(path, *lost)
    saved = await survivors(path)
    assert saved == [id for id in everything if id in set(saved)]
    assert len(everything) - 12 * len(lost) <= len(saved) < len(everything)


async def test_items_carried_over_keep_their_place_in_line(path: Path) -> None:
    await fill(path)
    with opened(path) as parts:
        seqs = [(item.id, item.seq, item.lane, item.epoch) for item in await parts.waiting()]
    overwrite(path, 3 * PAGE)
    with opened(path) as parts:
        assert [(item.id, item.seq, item.lane, item.epoch) for item in await parts.waiting()] == seqs
        await parts.queue.enqueue(QueueItem(id="new", item_type="event", payload={}, created_at=EPOCH))
        assert (await parts.waiting())[-1].seq > seqs[-1][1]


async def test_a_file_cut_short_keeps_what_is_left_of_its_outbox(path: Path) -> None:
    everything = await fill(path)
    cut(path, leaves(path)[12] + 777)
    saved = await survivors(path)
    assert saved == everything[: len(saved)]
    assert len(saved) >= 80


def nothing_of_a_database(_: bytes) -> bytes:
    return b"this is no database at all" * 1000


def zeroes(content: bytes) -> bytes:
    return bytes(len(content))


def half_a_header(content: bytes) -> bytes:
    return content[:40]


def half_a_first_page(content: bytes) -> bytes:
    return content[:100] + os.urandom(PAGE - 100) + content[PAGE:]


@pytest.mark.parametrize("damage", [nothing_of_a_database, zeroes, half_a_header, half_a_first_page])
async def test_a_file_that_is_beyond_help_is_kept_aside_and_the_agent_starts(
    path: Path, damage: Callable[[bytes], bytes]
) -> None:
    await fill(path)
    spoil(path, damage)
    assert await survivors(path) == []
    assert len(aside(path)) == 1
    assert await survivors(path) == []  # and the new file is sound
    assert len(aside(path)) == 1


async def test_an_empty_file_is_a_new_one(path: Path) -> None:
    cut(path, 0)
    assert await survivors(path) == []
    assert aside(path) == []


def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    with opened(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="newer PureBoot"):
        Database(path).open()
    assert (path.read_bytes(), damaged_copies(path)) == (before, [])


async def test_what_is_written_after_a_rescue_survives_a_crash(path: Path, tmp_path: Path) -> None:
    """The copy is what a machine that loses power leaves behind: nothing was closed."""
    await fill(path)
    overwrite(path, 3 * PAGE)
    with opened(path) as parts:
        await parts.queue.enqueue(QueueItem(id="after", item_type="event", payload={}, created_at=EPOCH))
        shutil.copytree(path.parent, tmp_path / "crashed")
    assert "after" in await survivors(tmp_path / "crashed" / "agent.db")


async def test_a_torn_write_ahead_log_costs_only_what_was_never_acknowledged(path: Path, tmp_path: Path) -> None:
    with opened(path) as parts:
        await parts.queue.initialize()
        await parts.queue.enqueue(QueueItem(id="acknowledged", item_type="event", payload={}, created_at=EPOCH))
        shutil.copytree(path.parent, tmp_path / "crashed")
        size = size_of(tmp_path / "crashed" / "agent.db-wal")
        await parts.queue.enqueue(QueueItem(id="torn", item_type="event", payload={}, created_at=EPOCH))
        shutil.copytree(path.parent, tmp_path / "crashed", dirs_exist_ok=True)
    cut(tmp_path / "crashed" / "agent.db-wal", size + 1000)
    assert await survivors(tmp_path / "crashed" / "agent.db") == ["acknowledged"]


async def test_one_file_is_opened_once_however_many_are_given_it(path: Path) -> None:
    database = Database(path)
    cache, queue = NodeStateCache(database), SyncQueue(Database(database))
    await cache.initialize()
    await queue.initialize()
    assert cache.database.store is queue.database.store is database.store
    await cache.cache_node(CachedNode("n1", MAC, NodeState.ACTIVE))
    database.close()
    database.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT id, state FROM node").fetchall() == [("n1", "active")]
    connection.close()


async def test_what_is_noted_is_read_back(path: Path) -> None:
    database = Database(path)
    assert get_meta(database.store, "cursor") is None
    for value in ("1.2", "3.4"):
        await database.store.write(partial(set_meta, key="cursor", value=value))
    assert get_meta(database.store, "cursor") == "3.4"
    database.close()


async def test_the_log_names_the_damage_and_what_was_saved(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await fill(path)
    overwrite(path, 3 * PAGE)
    with caplog.at_level(logging.ERROR):
        await survivors(path)
    assert f"{ITEMS} unsent items were carried over" in caplog.text


async def test_a_damaged_file_is_named_until_a_person_has_taken_it_away(path: Path) -> None:
    await fill(path)
    assert damaged_copies(path) == []
    overwrite(path, 3 * PAGE)
    await survivors(path)
    (kept,) = aside(path)
    (sentence,) = damaged_copies(path)
    assert str(kept) in sentence
    kept.unlink()
    assert damaged_copies(path) == []


async def test_items_that_could_not_be_read_leave_a_gap_in_their_epochs_account(path: Path) -> None:
    everything = await fill(path)
    overwrite(path, leaves(path)[9])
    saved = await survivors(path)
    with opened(path) as parts:
        (account,) = parts.database.store.read_now(accounts.read)
    assert (account.made, account.queued) == (len(everything), len(saved))
    assert accounts.gap(account) == len(everything) - len(saved) > 0


async def test_what_central_refused_is_no_gap_where_the_accounts_cannot_be_read(path: Path) -> None:
    """Nor after a restore of central's, for which it goes out again."""
    with opened(path) as parts:
        for id in ("refused", "refused too", "waiting"):
            await parts.queue.enqueue(QueueItem(id=id, item_type="event", payload={"event": "e"}, created_at=EPOCH))
        refusals = [PushResult(id=id, outcome=Outcome.REJECTED, reason="no") for id in ("refused", "refused too")]
        await parts.database.store.write(lambda tx: parts.queue.settle_all(tx, refusals))
        ((root,),) = parts.rows("SELECT rootpage FROM sqlite_schema WHERE name = 'epoch_account'")
    overwrite(path, (root - 1) * PAGE)
    with opened(path) as parts:
        assert parts.rows("SELECT made, settled FROM epoch_account") == [(3, 2)]
        (account,) = parts.database.store.read_now(accounts.read)
        assert (account.queued, accounts.gap(account)) == (1, 0)
        await parts.mirror.begin_generation(2)
        (account,) = parts.database.store.read_now(accounts.read)
        assert (account.settled, account.queued, accounts.gap(account)) == (0, 3, 0)
