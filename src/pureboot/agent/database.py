"""The agent's one file, `state/agent.db`: cache, outbox, conflicts and meta commit together."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pureboot.agent import accounts
from pureboot.agent.schema import MIGRATIONS
from pureboot.storage.sqlite import DamagedFile, Store, Transaction

log = logging.getLogger(__name__)

# Rows of a damaged file that are looked for one by one; more would keep the agent from starting for minutes.
WIDEST_GAP = 200_000


class Database:
    """A file that is opened once, however many objects are given it. `opening` opens it."""

    def __init__(self, where: "Path | str | Database", *, opening: "Callable[[Path], Store] | None" = None) -> None:
        self.path: Path = where.path if isinstance(where, Database) else Path(where)
        self.opened: list[Store] = where.opened if isinstance(where, Database) else []
        self._opening = opening or open_store

    def open(self) -> Store:
        if not self.opened:
            self.opened.append(self._opening(self.path))
        return self.opened[0]

    @property
    def store(self) -> Store:
        return self.open()

    def set_aside(self, why: Exception) -> None:
        """What the file holds makes no sense, though its pages are sound: it is treated as a damaged one."""
        log.error("%s is damaged: %r", self.path, why)
        self.close()
        self.opened[:] = [_anew(self.path)]

    def close(self) -> None:
        for store in self.opened:
            store.close()


def open_store(path: Path) -> Store:
    """A damaged file is moved aside and its outbox carried over, so that the agent starts whatever happened."""
    try:
        return Store(path, MIGRATIONS)
    except DamagedFile as damage:
        log.error("%s is damaged: %s", path, damage)
    # Not inside the except clause: what failed to open is closed by now, and touches no file of this name again.
    return _anew(path)


def _anew(path: Path) -> Store:
    aside = _move_aside(path)
    store = Store(path, MIGRATIONS)
    carried = store.submit(lambda tx: _carry_over(aside, tx, "sync_queue")).result()
    store.submit(accounts.count_refused).result()
    # What the lives before have made, over what carrying over has counted: items which could not be read leave a gap
    # that is seen.
    store.submit(lambda tx: _carry_over(aside, tx, "epoch_account")).result()
    log.error("it is kept as %s; %d unsent items were carried over from it", aside, carried)
    return store


def kept_aside(path: Path) -> list[Path]:
    """The files that were damaged and are still kept beside this one: until a person has taken them away."""
    kept = path.parent.glob(f"{path.name}.damaged-*")
    return [file for file in sorted(kept) if not file.name.endswith(("-wal", "-shm"))]


def damaged_copies(path: Path) -> list[str]:
    """One sentence for each that is kept aside."""
    return [
        f"{path.name} was damaged; its outbox was carried over as far as it could be read. Look at {file}, then"
        " remove it."
        for file in kept_aside(path)
    ]


def _move_aside(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _carry_over(damaged: Path, tx: Transaction, table: str) -> int:
    here = [row["name"] for row in tx.execute(f"PRAGMA table_info({table})")]
    columns = _shared_columns(damaged, table, here)
    rows = _readable_items(damaged, columns) if table == "sync_queue" else _readable_rows(damaged, table, columns)
    otherwise = "IGNORE" if table == "sync_queue" else "REPLACE"
    sql = f"INSERT OR {otherwise} INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    return sum(tx.execute(sql, row).rowcount for row in rows)


def _shared_columns(damaged: Path, table: str, here: list[str]) -> list[str]:
    """A damaged file may be of an older version; where its schema cannot be read, all are tried."""
    with closing(sqlite3.connect(damaged)) as connection:
        connection.execute("PRAGMA writable_schema = 1")
        there = {row[1] for row in _readable(connection, f"PRAGMA table_info({table})")}
    return [name for name in here if name in there] or here


def _readable_rows(path: Path, table: str, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = 1")
        yield from _readable(connection, f"SELECT {', '.join(columns)} FROM {table}")


def _readable_items(path: Path, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """Every row of the outbox that can be read, in order: from both ends up to a page that cannot be, then one by one
    in between. A page that is torn can yield half a row, too."""
    rows = f"SELECT {', '.join(columns)} FROM sync_queue WHERE json_valid(payload) AND json_valid(accepted)"
    seq = columns.index("seq")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = 1")  # else a file cut short is not read at all
        head = list(_readable(connection, f"{rows} ORDER BY seq"))
        first = head[-1][seq] if head else 0
        tail = list(_readable(connection, f"{rows} AND seq > {first} ORDER BY seq DESC"))
        last = tail[-1][seq] if tail else first
        yield from head
        for number in range(first + 1, min(last, first + WIDEST_GAP)):
            yield from _readable(connection, f"{rows} AND seq = {number}")
        yield from reversed(tail)


def _readable(connection: sqlite3.Connection, sql: str) -> Iterator[tuple[Any, ...]]:
    try:
        yield from connection.execute(sql)
    except sqlite3.DatabaseError as error:
        log.debug("a page of a damaged file cannot be read: %s", error)


def get_meta(store: Store, key: str) -> str | None:
    row = store.read_now(lambda c: c.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone())
    return None if row is None else str(row["value"])


def set_meta(tx: Transaction, key: str, value: str) -> None:
    tx.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", [key, value])
