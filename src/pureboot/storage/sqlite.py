"""One SQLite file: one writer thread with group commit, readers beside it.

Writes that wait at the same time share one transaction and so one fsync. One that fails takes no other with it: where
it had changed something by then, the transaction is undone and its writes are made again, each in a savepoint of its
own. So a write may run twice, and changes nothing but what it is given. A write's result is handed out only after the
commit that holds it.

What a failure means (https://www.sqlite.org/rescode.html):
- no space: nothing of the transaction is stored, the writers get StorageFull, the file goes on;
- an I/O error in write or fsync: the process ends. The kernel may have dropped the dirty pages, so that a second fsync
  would succeed and lie; only a new open reads what is really there. So it does at whatever else a commit comes upon,
  and where a transaction cannot be rolled back.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from asyncio import to_thread
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from pureboot.core.errors import Busy, SettingsError, StorageFull
from pureboot.storage.private import make_private

log = logging.getLogger(__name__)

T = TypeVar("T")

# Each number is a statement of its own, which SQLite compiles once.
_ROWS_AT_ONCE = (64, 16, 4, 1)
# More would only make the first writer of a group wait longer; 512 small rows commit in about 10 ms.
GROUP_SIZE = 512
# Seconds to wait for somebody else's lock (a shell, a backup): machines wait behind it.
LOCKED_FOR = 2.0
# Pages a transaction hands back; 2,000 take some 10 ms.
SHRINK_STEP = 2000
# `PRAGMA auto_vacuum`: free pages are listed, and go when they are told to.
INCREMENTAL = 2
# Bytes of an older file that opening it may rewrite; more would keep the agent from starting for seconds.
REWRITTEN_AT_MOST = 64 * 1024**2


class DamagedFile(Exception):
    """The file is no database, or its pages contradict each other."""


class Transaction:
    """The open write transaction. `after_commit` runs in the writer thread, in commit order, before any result is
    handed out: what it updates is never older than an acknowledged write, and never newer than the disk.

    `known` is what one of the writes that share it has found out, so that the others need not ask: each statement
    hands Python's lock to the event loop and waits for it again. Of a write that is undone it forgets what that one put
    in, so its values are replaced and never changed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.known: dict[str, Any] = {}
        self.hooks: list[Callable[[], None]] = []
        self.is_sound = True
        self._insert = ""
        self._rows: list[Sequence[Any]] = []
        self._unchanged = connection.total_changes

    def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Cursor:
        self.flush()
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any] | dict[str, Any]]) -> None:
        self.flush()
        self._connection.executemany(sql, rows)

    def insert(self, sql: str, row: Sequence[Any]) -> None:
        """`sql` ends in VALUES. Rows that follow each other go in by one statement, before any other statement is
        executed. One that cannot go in makes its own write fail, as if it had been executed at once."""
        if sql != self._insert:
            self.flush()
            self._insert = sql
        self._rows.append(row)
        self._unchanged -= 1

    def flush(self) -> None:
        rows, self._rows = self._rows, []
        before = self._connection.total_changes
        try:
            for size in _ROWS_AT_ONCE:
                while len(rows) >= size:
                    now, rows = rows[:size], rows[size:]
                    places = f"({', '.join('?' * len(now[0]))})"
                    values = [value for row in now for value in row]
                    self._connection.execute(f"{self._insert} {', '.join([places] * size)}", values)
        except Exception:  # SQLite's, or Python's that binds a value: a lone surrogate, a number beyond 64 bits
            self.is_sound = False  # whose row it was is not known, and it need not be the write that is under way
            raise
        self._unchanged += self._connection.total_changes - before  # they counted when they were handed in

    def forget(self, known: dict[str, Any]) -> None:
        """A write was undone; `known` is what was known before it."""
        self.known = known
        self._rows.clear()

    @property
    def changes(self) -> int:
        """More after a write than before it, if it has changed anything."""
        return self._connection.total_changes - self._unchanged

    def once(self, name: str, ask: Callable[[], T]) -> T:
        """What is `known` by that name; asked for where nobody has yet."""
        if name not in self.known:
            self.known[name] = ask()
        found: T = self.known[name]
        return found

    def after_commit(self, hook: Callable[[], None]) -> None:
        self.hooks.append(hook)


class _Answer(Generic[T]):
    """What a coroutine waits for: of a Future what the writer needs, without its lock and without a copy of it in the
    event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.waiting: asyncio.Future[T] = self.loop.create_future()

    def set_running_or_notify_cancel(self) -> bool:
        return not self.waiting.cancelled()

    def give(self, result: Any, error: BaseException | None) -> None:
        """In the loop."""
        if self.waiting.done():
            return
        if error is None:
            self.waiting.set_result(result)
        else:
            self.waiting.set_exception(error)


class _Job:
    """`afterwards` is done on the writer's connection once the group is on disk, outside a transaction."""

    def __init__(
        self,
        work: Callable[[Transaction], Any],
        future: Future[Any] | _Answer[Any],
        afterwards: Callable[[sqlite3.Connection], None] = lambda _: None,
    ) -> None:
        self.work = work
        self.future = future
        self.afterwards = afterwards
        self.result: Any = None
        self.error: Exception | None = None


def _hand_out(group: Sequence[_Job]) -> None:
    """A loop is called once for all of its answers: each call wakes it."""
    loops: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
    for job in group:
        if isinstance(job.future, _Answer):
            loops.setdefault(job.future.loop, []).append(partial(job.future.give, job.result, job.error))
        elif job.error:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
    for loop, answers in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            loop.call_soon_threadsafe(_call_all, answers)


def _call_all(answers: list[Callable[[], None]]) -> None:
    for answer in answers:
        answer()


def end_process(error: Exception) -> None:
    log.critical("the process ends, so that a restart reads what is stored: %r", error)
    os._exit(74)  # EX_IOERR


class Store:
    """Open at birth, at the newest schema. `migrations` are scripts in order; each commits together with its record
    (`PRAGMA user_version`). Raises DamagedFile.

    `threaded=False`: each write is committed by whoever asks for it, one transaction each, before the call returns; so
    a history of writes can be told again step by step. `writing`: the kind of connection that writes.
    """

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        *,
        on_disk_failure: Callable[[Exception], None] = end_process,
        threaded: bool = True,
        writing: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self.path = path
        self._on_disk_failure = on_disk_failure
        self._threaded = threaded
        path.parent.mkdir(parents=True, exist_ok=True)
        make_private(path)
        self._writer = self._prepare(migrations, writing)
        # Two readers: a long listing in a thread must not keep the event loop from a look-up of its own.
        self._reader, self._near = _reader(path), _reader(path)
        self._reading, self._looking = threading.Lock(), threading.Lock()
        self._jobs: SimpleQueue[list[_Job] | None] = SimpleQueue()
        self._collected: list[_Job] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"writer of {path.name}", daemon=True)
        if threaded:
            self._thread.start()

    def _prepare(self, migrations: Sequence[str], kind: type[sqlite3.Connection]) -> sqlite3.Connection:
        try:
            connection = _connect(self.path, kind)
            try:
                if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                    raise DamagedFile(found)
                _free_pages_one_by_one(connection, self.path)
                connection.execute("PRAGMA journal_mode = WAL")
                _migrate(connection, migrations)
            except BaseException:
                connection.close()
                raise
        except sqlite3.DatabaseError as error:
            if _primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise DamagedFile(str(error)) from error
            raise
        return connection

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Runs `work` in the writer thread; returns once it is on disk. Raises what `work` raised (then nothing of
        it is stored) or StorageFull."""
        answer: _Answer[T] = _Answer()
        self._collect(_Job(work, answer))
        return await answer.waiting

    def _collect(self, job: _Job) -> None:
        """What the loop comes to ask for in one go is handed over in one go, when it has nothing else to do: a writer
        that begins with the first would only take Python's lock from whoever asks for the next."""
        if not self._threaded:
            self._submit(job)
            return
        self._check_open()
        self._collected.append(job)
        asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        collected, self._collected = self._collected, []
        if collected:
            self._jobs.put(collected)

    def submit(self, work: Callable[[Transaction], T]) -> "Future[T]":
        future: Future[T] = Future()
        self._submit(_Job(work, future))
        return future

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the store is closed")

    def _submit(self, job: _Job) -> None:
        self._check_open()
        if self._threaded:
            self._jobs.put([job])
        else:
            self._commit([job])

    async def _between(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Does `work` on the writer's connection, outside a transaction."""
        answer: _Answer[None] = _Answer()
        self._submit(_Job(lambda _: None, answer, afterwards=work))
        await answer.waiting

    async def shrink(self, over: int = 0) -> None:
        """Hands pages that hold nothing any more back to the disk, where there are more than `over`; bit by bit, so
        that writers come in between."""
        free = await self.read(lambda c: int(c.execute("PRAGMA freelist_count").fetchone()[0]))
        if free <= over:
            return
        try:
            for _ in range(0, free, SHRINK_STEP):
                await self._between(_hand_back)
            await self._between(_checkpoint)
        except sqlite3.Error as error:
            log.warning("%s does not shrink now: %s", self.path, error)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await to_thread(self._read, work) if self._threaded else self._read(work)

    def read_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """As `read`, in this thread: for start-up and for queries of one indexed row."""
        with self._looking:
            return work(self._near)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._reading:
            return work(self._reader)

    def close(self) -> None:
        """Ends after what was submitted before is on disk."""
        if self._closed:
            return
        self._closed = True
        if self._threaded:
            self._pass_on()
            self._jobs.put(None)
            self._thread.join()
        for connection in (self._reader, self._near, self._writer):
            connection.close()

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            group, last = self._group(first)
            self._commit_or_end([job for job in group if job.future.set_running_or_notify_cancel()])
            if last:
                return

    def _group(self, first: list[_Job]) -> tuple[list[_Job], bool]:
        group = first
        while len(group) < GROUP_SIZE and not self._jobs.empty():
            following = self._jobs.get()
            if following is None:
                return group, True
            group += following
        return group, False

    def _commit_or_end(self, group: list[_Job]) -> None:
        """A writer that died in silence would leave all who write waiting for ever."""
        try:
            self._commit(group)
        except Exception as error:  # no memory, or a rollback that fails: only a new open reads what is really there
            log.exception("a write transaction came to no end")
            self._on_disk_failure(error)
            waiting = [job for job in group if isinstance(job.future, _Answer) or not job.future.done()]
            for job in waiting:
                job.error = error
            _hand_out(waiting)

    def _commit(self, group: list[_Job]) -> None:
        try:
            transaction = self._run_all(group)
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(group, error)
            return
        try:
            for hook in transaction.hooks:
                hook()
        except Exception as error:  # what is shown is no longer what is stored; only a new start mends that
            log.exception("a hook failed after its commit")
            self._on_disk_failure(error)
        for job in group:
            self._afterwards(job)
        _hand_out(group)

    def _run_all(self, group: list[_Job]) -> Transaction:
        transaction = self._begin()
        if self._run_together(group, transaction):
            return transaction
        self._writer.execute("ROLLBACK")
        transaction = self._begin()
        for job in group:
            self._run_apart(job, transaction)
        return transaction

    def _begin(self) -> Transaction:
        self._writer.execute("BEGIN IMMEDIATE")
        return Transaction(self._writer)

    def _run_together(self, group: list[_Job], transaction: Transaction) -> bool:
        """False where something half done is left of one of them."""
        if not all(self._run_job(job, transaction) and transaction.is_sound for job in group):
            return False
        try:
            transaction.flush()
        except Exception as error:  # whose row it was, they find out apart
            if self._is_over(error):
                raise
            return False
        return True

    def _run_apart(self, job: _Job, transaction: Transaction) -> None:
        known = dict(transaction.known)
        self._writer.execute("SAVEPOINT job")
        if not self._run_job(job, transaction, flush=True):
            transaction.forget(known)
            self._writer.execute("ROLLBACK TO job")
        self._writer.execute("RELEASE job")

    def _run_job(self, job: _Job, transaction: Transaction, *, flush: bool = False) -> bool:
        """False where it failed and has changed something by then."""
        hooks, changes = len(transaction.hooks), transaction.changes
        job.error = None
        try:
            job.result = job.work(transaction)
            if flush:
                transaction.flush()
        except Exception as error:  # whatever it is, it belongs to the caller and undoes this job alone
            if self._is_over(error):
                raise
            job.error = error
            del transaction.hooks[hooks:]
        return job.error is None or transaction.changes == changes

    def _is_over(self, error: Exception) -> bool:
        """Whether it ends the whole transaction: SQLite may have rolled it back already."""
        return _is_disk_failure(error) or not self._writer.in_transaction

    def _afterwards(self, job: _Job) -> None:
        try:
            job.afterwards(self._writer)
        except sqlite3.Error as error:
            self._look_at_disk(error)
            job.error = error

    def _look_at_disk(self, error: sqlite3.Error) -> None:
        if _primary_code(error) == sqlite3.SQLITE_IOERR:
            self._on_disk_failure(error)

    def _roll_back(self, group: list[_Job], error: sqlite3.Error) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        self._look_at_disk(error)
        failure: Exception = error
        if _primary_code(error) == sqlite3.SQLITE_FULL:
            failure = StorageFull("There is no space left; nothing was stored.", retry_after=10)
        if _primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY):
            failure = Busy(f"The agent's file cannot be written now ({error}).", retry_after=5)
        log.error("a write transaction was rolled back: %s", error)
        for job in group:
            job.error = failure
        _hand_out(group)


def _connect(path: Path, kind: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=LOCKED_FOR, factory=kind)
    connection.row_factory = sqlite3.Row
    # Else one byte that rotted would keep all rows of a query from being read.
    connection.text_factory = _as_it_is_by_now
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = 1")
    return connection


def _as_it_is_by_now(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _free_pages_one_by_one(connection: sqlite3.Connection, path: Path) -> None:
    """So that the file can shrink. A file from before is rewritten once, if that is quick and there is room."""
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] == INCREMENTAL:
        return
    connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
    has_tables = connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is not None
    if has_tables and path.stat().st_size <= REWRITTEN_AT_MOST:
        try:
            connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            log.warning("%s stays as it is, and will not shrink: %s", path, error)


def _hand_back(connection: sqlite3.Connection) -> None:
    # Not `execute`: that stops after the first page.
    connection.executescript(f"PRAGMA incremental_vacuum({SHRINK_STEP})")


def _checkpoint(connection: sqlite3.Connection) -> None:
    """What readers still look at stays for the next time."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _reader(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    connection.execute("PRAGMA query_only = 1")
    return connection


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    have = connection.execute("PRAGMA user_version").fetchone()[0]
    if have > len(migrations):
        raise SettingsError(
            "This folder was written by a newer PureBoot.", hint="Install that version, or a newer one."
        )
    for number, script in enumerate(migrations[have:], start=have + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _is_disk_failure(error: Exception) -> bool:
    """These end the whole transaction, not one savepoint."""
    return isinstance(error, sqlite3.Error) and _primary_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _primary_code(error: sqlite3.Error) -> int:
    """Extended result codes carry the primary one in their low byte; errors of the module itself carry none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
