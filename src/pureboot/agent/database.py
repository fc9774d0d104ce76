"""The agent's one file, `state/agent.db`: cache, outbox, conflicts and meta commit together."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pureboot.storage.sqlite import DamagedFile, Store, Transaction

log = logging.getLogger(__name__)

# `seq` is AUTOINCREMENT: a plain rowid of a deleted last row would be given out again, and order would be a lie.
_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE node (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL, attempt INTEGER NOT NULL,
    base_version INTEGER, base_state_rev INTEGER, base_state TEXT, base_attempt INTEGER,
    workflow_id TEXT, hostname TEXT NOT NULL DEFAULT '', facts TEXT NOT NULL DEFAULT '{}',
    document TEXT,
    boot_token TEXT, begun INTEGER NOT NULL DEFAULT 0, conflict_id TEXT,
    updated_at TEXT NOT NULL, cached_at TEXT NOT NULL
);
CREATE TABLE node_mac (mac TEXT PRIMARY KEY, node_id TEXT NOT NULL REFERENCES node (id) ON DELETE CASCADE);
CREATE INDEX node_mac_node ON node_mac (node_id);
CREATE TABLE node_alias (alias TEXT PRIMARY KEY, node_id TEXT NOT NULL);
CREATE TABLE departed (mac TEXT PRIMARY KEY, last_state TEXT NOT NULL);
CREATE TABLE workflow (id TEXT PRIMARY KEY, version INTEGER NOT NULL, document TEXT NOT NULL);
CREATE TABLE content (name TEXT PRIMARY KEY, version INTEGER NOT NULL, document TEXT NOT NULL);
CREATE TABLE conflict (
    id TEXT PRIMARY KEY, node_id TEXT, node_mac TEXT NOT NULL, conflict_type TEXT NOT NULL,
    local_state TEXT NOT NULL, central_state TEXT NOT NULL,
    local_updated_at TEXT NOT NULL, central_updated_at TEXT NOT NULL,
    resolved INTEGER NOT NULL DEFAULT 0, resolution TEXT, preview INTEGER NOT NULL
);
CREATE TABLE sync_queue (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, lane TEXT NOT NULL, item_type TEXT NOT NULL, payload TEXT NOT NULL,
    base_generation INTEGER, base_state_rev INTEGER, after TEXT, conflict_id TEXT,
    epoch TEXT NOT NULL, autonomy TEXT NOT NULL,
    created_at TEXT NOT NULL, accepted TEXT NOT NULL, report_key TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL DEFAULT 0, last_error TEXT,
    status TEXT NOT NULL DEFAULT 'pending', refused INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX sync_queue_lane ON sync_queue (lane, seq);
CREATE INDEX sync_queue_held ON sync_queue (lane) WHERE status = 'failed' OR next_at > 0;
CREATE UNIQUE INDEX sync_queue_report ON sync_queue (report_key) WHERE report_key IS NOT NULL;
CREATE TABLE sync_sent (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, lane TEXT NOT NULL, item_type TEXT NOT NULL,
    payload TEXT NOT NULL, epoch TEXT NOT NULL, report_key TEXT, outcome TEXT NOT NULL, settled_at TEXT NOT NULL
);
CREATE INDEX sync_sent_report ON sync_sent (report_key) WHERE report_key IS NOT NULL;
"""

MIGRATIONS = [_FIRST]

# Rows of a damaged file that are looked for one by one; more would keep the agent from starting for minutes.
WIDEST_GAP = 200_000


class Database:
    """A file that is opened once, however many objects are given it. `initialize` is idempotent."""

    def __init__(self, where: "Path | str | Database") -> None:
        self.path: Path = where.path if isinstance(where, Database) else Path(where)
        self.opened: list[Store] = where.opened if isinstance(where, Database) else []

    def open(self) -> Store:
        if not self.opened:
            self.opened.append(open_store(self.path))
        return self.opened[0]

    @property
    def store(self) -> Store:
        return self.open()

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
    aside = _move_aside(path)
    store = Store(path, MIGRATIONS)
    carried = store.submit(lambda tx: _carry_over(aside, tx)).result()
    log.error("it is kept as %s; %d unsent items were carried over from it", aside, carried)
    return store


def _move_aside(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _carry_over(damaged: Path, tx: Transaction) -> int:
    columns = [row["name"] for row in tx.execute("PRAGMA table_info(sync_queue)")]
    sql = f"INSERT OR IGNORE INTO sync_queue ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    return sum(tx.execute(sql, row).rowcount for row in _readable_items(damaged, columns))


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
