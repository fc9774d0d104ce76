"""The one door to the database: `write` and `read` run a plain function on a connection, in a thread.

SQLite has one writer; so do we, and nobody waits for a lock. `BEGIN IMMEDIATE` is sent by us, since Python's driver
would begin late, by itself, and not at all before DDL.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from alembic.util import CommandError
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError, TimeoutError

from pureboot.central import migrations, positions
from pureboot.central.bell import Bell
from pureboot.core.errors import Busy, SettingsError, StorageFull

T = TypeVar("T")

# Reads are short; more threads would only take turns for Python's lock.
READERS = 4


class Database:
    """Open at birth, at the newest schema. Raises SettingsError where it cannot be opened.

    `bell` rings after each commit that left something on the feed.
    """

    def __init__(self, path: Path, bell: Bell) -> None:
        self.bell = bell
        self._writing = _engine(path, "BEGIN IMMEDIATE", 1)
        self._reading = _engine(path, "BEGIN", READERS, "PRAGMA query_only = 1")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="central-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="central-reader")
        try:
            migrations.upgrade(self._writing)
        except DatabaseError as error:
            raise SettingsError(f"The database {path} cannot be opened: {error.orig}.") from None
        except CommandError:
            raise SettingsError(
                f"The database {path} was written by a newer PureBoot.", hint="Start that version, or a newer one."
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends after what was begun before has committed."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._reading.dispose()
        self._writing.dispose()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in one transaction; what it returns counts, for it is on disk. What it raises leaves nothing."""
        loop = asyncio.get_running_loop()

        def commit() -> T:
            result, scopes = self._commit(work)
            # From the thread, not after the await: whoever waited may be gone, the news are not.
            loop.call_soon_threadsafe(self.bell.ring, scopes)
            return result

        return await loop.run_in_executor(self._writer, commit)

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """As `write`, in this thread: before anything is served."""
        return self._commit(work)[0]

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` on one snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._look, work)

    def _commit(self, work: Callable[[Connection], T]) -> tuple[T, set[str]]:
        with _explained(), self._writing.begin() as conn:
            positions.begin(conn)
            result = work(conn)
            return result, positions.settle(conn)

    def _look(self, work: Callable[[Connection], T]) -> T:
        with _explained(), self._reading.begin() as conn:
            return work(conn)


@contextmanager
def _explained() -> Iterator[None]:
    """The database's own troubles as ours; a mistake in a statement stays what it is."""
    try:
        yield
    except OperationalError as error:
        if "full" in str(error.orig):
            raise StorageFull("The database has no space left; nothing was stored.", retry_after=30) from error
        raise Busy(f"The database cannot do this now: {error.orig}.", retry_after=5) from error
    except TimeoutError as error:
        raise Busy("The database has no connection free.", retry_after=1) from error


def _engine(path: Path, begin: str, size: int, *pragmas: str) -> Engine:
    engine = create_engine(f"sqlite:///{path}", poolclass=QueuePool, pool_size=size, max_overflow=0)

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
