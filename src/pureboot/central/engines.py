"""The two databases central can live in, and what is different about each of them.

SQLite has one writer, so nobody waits for a lock and nothing races. PostgreSQL has several: rows are locked in the
order of PROTOCOL 1, and what two transactions still did to each other is undone and tried again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError

from pureboot.central import database_file
from pureboot.core.errors import SettingsError
from pureboot.storage.private import make_private

# Reads are short; more threads would only take turns for Python's lock.
READERS = 4
# On PostgreSQL a writer spends most of its time waiting for a commit to be on disk.
WRITERS = 4
# Seconds that a writer waits for a row; longer means that somebody's transaction hangs.
LOCK_WAIT = 10

# A host that dies without a word (power, a failover of its address) is noticed after some 15 seconds, whether something
# was on its way to it (TCP_USER_TIMEOUT, in milliseconds) or an answer was waited for (keepalives, in seconds). By
# itself Linux takes a quarter of an hour, or two hours.
_LOST_AFTER = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15000,
}

_DEADLOCK, _NOT_SERIAL, _NOT_UNIQUE, _NO_PARENT = "40P01", "40001", "23505", "23503"
_DISK_FULL = "53100"
# The lock that every writing connection shares as long as it lives.
_CENTRAL = "hashtext('pureboot.central')"


@dataclass(frozen=True, slots=True)
class Engines:
    """`writers`: how many transactions may write at once."""

    writing: Engine
    reading: Engine
    writers: int

    def dispose(self) -> None:
        self.reading.dispose()
        self.writing.dispose()


def address(text: str) -> URL:
    """`postgresql://`, with or without a driver's name, and `sqlite:///FILE`."""
    url = make_url(text)
    if url.get_backend_name() != "postgresql":
        return url
    if "ssl" in url.query:  # asyncpg's word for it
        url = url.difference_update_query(["ssl"]).update_query_dict({"sslmode": str(url.query["ssl"])})
    return url.set(drivername="postgresql+psycopg")


def sqlite_file(path: Path) -> URL:
    return URL.create("sqlite", database=str(path))


def file_of(url: URL) -> Path | None:
    """Of SQLite, where the database itself lies, with its -wal beside it; not a link to it."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database)).resolve()


def connect(url: URL, *, doubted: bool = False) -> Engines:
    """Raises SettingsError where the database is not fit for use. `doubted`: it is looked through thoroughly."""
    if url.get_backend_name() == "postgresql":
        return Engines(_postgresql(url, WRITERS), _postgresql(url, READERS, only_reads=True), WRITERS)
    if file := file_of(url):
        # Hashes of passwords and tokens lie in it.
        make_private(file)
        database_file.check(file, thoroughly=doubted)
    return Engines(_sqlite(url, "BEGIN IMMEDIATE", 1), _sqlite(url, "BEGIN", READERS, "PRAGMA query_only = 1"), 1)


def nobody_else_writes(conn: Connection) -> bool:
    """Whether no other process has this database open as central; on SQLite the lock beside its file says so."""
    if conn.dialect.name != "postgresql":
        return True
    return bool(conn.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({_CENTRAL})").scalar_one())


def raced(error: DBAPIError) -> bool:
    """Whether another transaction is to blame: tried again, this one meets what the other left.

    A broken key is one, too: of two that insert the same MAC, the second finds the first's node when it looks again.
    """
    return _sqlstate(error) in (_DEADLOCK, _NOT_SERIAL, _NOT_UNIQUE, _NO_PARENT)


def disk_is_full(error: DBAPIError) -> bool:
    return _sqlstate(error) == _DISK_FULL or "disk is full" in str(error.orig)


def first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().split("\n")[0].rstrip(".")


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _sqlite(url: URL, begin: str, size: int, *pragmas: str) -> Engine:
    """`BEGIN IMMEDIATE` is sent by us, since Python's driver would begin late, by itself, and not at all before DDL."""
    engine = create_engine(url, poolclass=QueuePool, pool_size=size, max_overflow=0)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None
        for pragma in ("PRAGMA busy_timeout = 10000", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
            connection.execute(pragma)
        for pragma in ("PRAGMA foreign_keys = 1", *pragmas):
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def begin_for_real(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    return engine


def _postgresql(url: URL, size: int, *, only_reads: bool = False) -> Engine:
    """Writers see what is committed at each statement, and lock what they go by; readers see one snapshot."""
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        # After a restart of the database the first use of a connection would fail.
        pool_pre_ping=True,
        isolation_level="REPEATABLE READ" if only_reads else "READ COMMITTED",
        # What an operator says in the address counts.
        connect_args={name: value for name, value in _LOST_AFTER.items() if name not in url.query},
    )

    # First of all: what SQLAlchemy asks at its first connection, SQL_ASCII answers in bytes.
    @event.listens_for(engine, "connect", insert=True)
    def hold_every_letter(connection: Any, _: object) -> None:
        if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
            connection.close()
            raise _not_unicode(url, encoding)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        for setting in ("TimeZone = 'UTC'", f"lock_timeout = '{LOCK_WAIT}s'"):
            connection.execute(f"SET {setting}")
        if not only_reads:
            connection.execute(f"SELECT pg_advisory_lock_shared({_CENTRAL})")
        connection.commit()
        connection.read_only = only_reads or None  # False would be said aloud, and a standby believes it

    return engine


def _not_unicode(url: URL, encoding: str) -> SettingsError:
    """What machines and people write has letters that such a database refuses, and the item would wait for ever."""
    name = url.database or "NAME"
    return SettingsError(
        f"database_url: the database {name} is in {encoding}, and has to be in UTF8.",
        hint=f"Make it anew: CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0.",
    )
