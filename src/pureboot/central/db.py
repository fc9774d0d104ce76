"""The one door to the database: `write` and `read` run a plain function on a connection, in a thread."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self, TypeVar

from alembic.util import CommandError
from sqlalchemy import URL, Connection
from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    TimeoutError,
)

from pureboot.central import engines, migrations, positions
from pureboot.central.bell import Bell
from pureboot.core.errors import Busy, Invalid, SettingsError, StorageFull

T = TypeVar("T")

# How often a transaction is tried that others get in the way of. The lock order makes a second try rare already.
TRIES = 5


class Database:
    """Open at birth, at the newest schema. Raises SettingsError where it cannot be opened. `writers`: how many
    transactions may write at once.

    `bell` rings after each commit that left something on the feed. `threaded=False`: whatever is asked for is done
    before the call returns, as the agent's `Store` has it.
    """

    def __init__(self, url: URL, bell: Bell, *, threaded: bool = True, doubted: bool = False) -> None:
        self.bell = bell
        self._threaded = threaded
        self._engines = engines.connect(url, doubted=doubted)
        self.writers = self._engines.writers
        self._writing = ThreadPoolExecutor(self.writers, thread_name_prefix="central-writer")
        self._reading = ThreadPoolExecutor(engines.READERS, thread_name_prefix="central-reader")
        try:
            migrations.upgrade(self._engines.writing)
        except DatabaseError as error:
            raise SettingsError(f"The database {_named(url)} cannot be opened: {engines.first_line(error)}.") from None
        except CommandError:
            raise SettingsError(
                f"The database {_named(url)} was written by a newer PureBoot.",
                hint="Start that version, or a newer one.",
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends after what was begun before has committed."""
        self._writing.shutdown()
        self._reading.shutdown()
        self._engines.dispose()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in one transaction; what it returns counts, for it is on disk. What it raises leaves nothing.

        Where another transaction got in the way, `work` runs again, so beside the database it may change only
        what bears being changed twice.
        """
        loop = asyncio.get_running_loop()

        def commit() -> T:
            result, scopes = self._commit(work)
            # From the thread, not after the await: whoever waited may be gone, the news are not.
            loop.call_soon_threadsafe(self.bell.ring, scopes)
            return result

        return await loop.run_in_executor(self._writing, commit) if self._threaded else commit()

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """As `write`, in this thread: before anything is served."""
        return self._commit(work)[0]

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` on one snapshot."""
        if not self._threaded:
            return self._look(work)
        return await asyncio.get_running_loop().run_in_executor(self._reading, self._look, work)

    def _commit(self, work: Callable[[Connection], T]) -> tuple[T, set[str]]:
        with _explained():
            for tried in range(1, TRIES):
                try:
                    return self._attempt(work)
                except DBAPIError as error:
                    if not engines.raced(error):
                        raise
                    # Apart, or the same two would meet again.
                    time.sleep(random.uniform(0, 0.01 * 2**tried))
            return self._attempt(work)

    def _attempt(self, work: Callable[[Connection], T]) -> tuple[T, set[str]]:
        with self._engines.writing.begin() as conn:
            positions.begin(conn)
            result = work(conn)
            return result, positions.settle(conn)

    def _look(self, work: Callable[[Connection], T]) -> T:
        with _explained(), self._engines.reading.begin() as conn:
            return work(conn)


def _named(url: URL) -> str:
    """As an operator knows it; without its password, which may be among its options too."""
    return (url.database if url.get_backend_name() == "sqlite" else None) or url.set(query={}).render_as_string()


@contextmanager
def _explained() -> Iterator[None]:
    """The database's own troubles as ours; a mistake in a statement stays what it is."""
    try:
        yield
    except DataError as error:
        raise Invalid(f"The database cannot hold a value of this: {engines.first_line(error)}.") from error
    except (IntegrityError, ProgrammingError, NotSupportedError):
        raise
    # What is left is the database's own: a lock, a lost connection, a damaged page. It is no item's fault.
    except DatabaseError as error:
        if engines.disk_is_full(error):
            raise StorageFull("The database has no space left; nothing was stored.", retry_after=30) from error
        raise Busy(f"The database cannot do this now: {engines.first_line(error)}.", retry_after=5) from error
    except TimeoutError as error:
        raise Busy("The database has no connection free.", retry_after=1) from error
