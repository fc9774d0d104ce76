import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pureboot.core.errors import StorageFull
from pureboot.storage.sqlite import DamagedFile, Store, Transaction

SCHEMA = ["CREATE TABLE note (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE)"]


def insert(text: str):
    return lambda tx: tx.execute("INSERT INTO note (text) VALUES (?)", [text]).lastrowid


def texts(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        return [row[0] for row in connection.execute("SELECT text FROM note ORDER BY id")]


@pytest.fixture
def store(tmp_path: Path):
    store = Store(tmp_path / "state" / "a.db", SCHEMA)
    yield store
    store.close()


async def test_a_write_is_on_disk_when_it_returns(store: Store) -> None:
    await store.write(insert("one"))
    assert texts(store.path) == ["one"]


async def test_a_failing_write_takes_no_other_of_its_group_with_it(store: Store) -> None:
    results = await asyncio.gather(
        *(store.write(insert(text)) for text in ["a", "b", "a", "c"]), return_exceptions=True
    )
    assert isinstance(results[2], sqlite3.IntegrityError)
    assert texts(store.path) == ["a", "b", "c"]


async def test_hooks_run_after_the_commit_and_not_for_a_write_that_failed(store: Store) -> None:
    seen: list[list[str]] = []

    def work(tx: Transaction, text: str) -> None:
        tx.after_commit(lambda: seen.append(texts(store.path)))
        tx.execute("INSERT INTO note (text) VALUES (?)", [text])

    await store.write(lambda tx: work(tx, "x"))
    with pytest.raises(sqlite3.IntegrityError):
        await store.write(lambda tx: work(tx, "x"))
    assert seen == [["x"]]


async def test_a_full_disk_refuses_the_write_stores_nothing_and_the_store_goes_on(store: Store) -> None:
    await store.write(lambda tx: tx.execute("INSERT INTO note (text) VALUES ('kept')"))
    await store.write(limit_pages)
    with pytest.raises(StorageFull):
        await store.write(insert("x" * 100_000))
    assert texts(store.path) == ["kept"]
    await store.write(insert("small"))
    assert texts(store.path) == ["kept", "small"]


def limit_pages(tx: Transaction) -> None:
    pages = tx.execute("PRAGMA page_count").fetchone()[0]
    tx.execute(f"PRAGMA max_page_count = {pages + 2}")


async def test_a_cancelled_write_that_has_not_begun_is_never_made(store: Store) -> None:
    blocker = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait(tx: Transaction) -> None:
        asyncio.run_coroutine_threadsafe(blocker.wait(), loop).result(10)

    first = asyncio.create_task(store.write(wait))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(store.write(insert("never")))
    await asyncio.sleep(0.05)
    second.cancel()
    await asyncio.sleep(0)
    blocker.set()
    await first
    await store.write(insert("after"))
    assert texts(store.path) == ["after"]


@pytest.mark.parametrize("before", [False, True], ids=["a new file", "one of before"])
def test_the_file_is_its_owners_only(tmp_path: Path, before: bool) -> None:
    path = tmp_path / "a.db"
    if before:
        path.touch(mode=0o644)
    store = Store(path, SCHEMA)
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {
        "a.db": 0o600,
        "a.db-shm": 0o600,
        "a.db-wal": 0o600,
    }
    store.close()


def test_an_existing_file_gets_only_the_migrations_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Store(path, SCHEMA).close()
    store = Store(path, [*SCHEMA, "ALTER TABLE note ADD COLUMN extra TEXT"])
    assert store.read_now(lambda c: c.execute("PRAGMA user_version").fetchone()[0]) == 2
    store.close()


@pytest.mark.parametrize("damage", [b"this is no database at all" * 100, None])
def test_a_damaged_file_is_named_as_such(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "a.db"
    store = Store(path, [*SCHEMA, "CREATE INDEX note_text ON note (text)"])
    store.submit(lambda tx: [insert(f"{i}" * 50)(tx) for i in range(200)]).result(10)
    store.close()
    content = bytearray(path.read_bytes())
    content[2048:] = b"\xa5" * (len(content) - 2048)
    path.write_bytes(damage or bytes(content))
    with pytest.raises(DamagedFile):
        Store(path, SCHEMA)


def test_a_view_that_could_not_follow_its_commit_ends_the_process_and_keeps_the_write(tmp_path: Path) -> None:
    failures: list[Exception] = []
    store = Store(tmp_path / "a.db", SCHEMA, on_disk_failure=failures.append)

    def work(tx: Transaction) -> None:
        insert("kept")(tx)
        tx.after_commit(lambda: [][0])

    store.submit(work).result(10)
    assert [type(failure) for failure in failures] == [IndexError]
    store.submit(insert("goes on where nothing ends it")).result(10)
    store.close()
    assert texts(store.path) == ["kept", "goes on where nothing ends it"]


class Stumbling(sqlite3.Connection):
    """Its statements raise what `stumbles` says, once each."""

    stumbles: ClassVar[dict[str, Exception]] = {}

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if error := self.stumbles.pop(sql, None):
            raise error
        return super().execute(sql, *parameters)


@pytest.mark.parametrize(
    ("stumbles", "ends"),
    [
        ({"COMMIT": MemoryError("none left")}, "none left"),
        ({"COMMIT": sqlite3.Error("full"), "ROLLBACK": sqlite3.Error("no rollback")}, "no rollback"),
        ({"BEGIN IMMEDIATE": MemoryError("none left")}, "none left"),
    ],
    ids=["commit", "rollback", "begin"],
)
async def test_whatever_a_commit_stumbles_over_is_told_and_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stumbles: dict[str, Exception], ends: str
) -> None:
    failures: list[Exception] = []
    store = Store(tmp_path / "a.db", SCHEMA, on_disk_failure=failures.append, writing=Stumbling)
    try:
        monkeypatch.setattr(Stumbling, "stumbles", stumbles)
        with pytest.raises((MemoryError, sqlite3.Error), match=ends):
            await asyncio.wait_for(store.write(insert("never")), 10)
        assert [str(failure) for failure in failures] == [ends]
        for text in ("answered", "stored"):  # what is left of a transaction, the next one comes upon
            with contextlib.suppress(sqlite3.Error):
                await asyncio.wait_for(asyncio.wrap_future(store.submit(insert(text))), 10)
    finally:
        store.close()
    assert "stored" in texts(store.path)
    assert "never" not in texts(store.path)


class FailingDisk(sqlite3.Connection):
    """Writes and syncs fail in what is done outside a transaction, once it is told so."""

    fails_in = "nothing"

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        self._touch(sql)
        return super().execute(sql, *parameters)

    def executescript(self, sql: str) -> sqlite3.Cursor:
        self._touch(sql)
        return super().executescript(sql)

    def _touch(self, sql: str) -> None:
        if self.fails_in in sql:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error


@pytest.mark.parametrize("step", ["incremental_vacuum", "wal_checkpoint"])
async def test_a_disk_that_fails_while_the_file_shrinks_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    failures: list[Exception] = []
    store = Store(tmp_path / "a.db", SCHEMA, on_disk_failure=failures.append, writing=FailingDisk)
    try:
        await store.write(lambda tx: [insert(f"{i}" * 2000)(tx) for i in range(50)])
        await store.write(lambda tx: tx.execute("DELETE FROM note"))
        monkeypatch.setattr(FailingDisk, "fails_in", step)
        await store.shrink()
    finally:
        store.close()
    assert [str(failure) for failure in failures] == ["disk I/O error"]
