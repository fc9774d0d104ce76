"""Central as a program: the only place that reads its settings and builds its parts."""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import URL, Connection

from pureboot.central import accounts, database_file, engines, people
from pureboot.central.app import create_app
from pureboot.central.bell import Bell
from pureboot.central.browsers import SessionLife
from pureboot.central.clock import Clock, SystemClock
from pureboot.central.content import Shelf
from pureboot.central.db import Database
from pureboot.central.edge import Services
from pureboot.central.gate import Gate
from pureboot.central.generation import begin_anew, generation_of
from pureboot.central.housekeeping import Housekeeping
from pureboot.central.ingest import Ingest
from pureboot.central.metrics import Metrics
from pureboot.central.news import News
from pureboot.central.passwords import Passwords
from pureboot.central.patience import Patience
from pureboot.central.unnamed import Unnamed
from pureboot.central.watch import Watch
from pureboot.config.central import CentralSettings
from pureboot.core.errors import SettingsError
from pureboot.storage.lock import FolderLock
from pureboot.wire.http import bind, serve_http, settle_down

log = logging.getLogger(__name__)

TOKEN_FILE = "admin-token"
# What history calls whoever uses the token in it.
ADMIN = "admin"
GENERATION_FILE = "generation"


@dataclass(frozen=True, slots=True)
class Central:
    app: FastAPI
    db: Database
    housekeeping: Housekeeping
    watch: Watch
    news: News

    def stop_waiting(self) -> None:
        """Long polls answer at once from now on, and the streams of open pages end."""
        self.db.bell.close()
        self.news.close()


@contextmanager
def build(settings: CentralSettings, clock: Clock | None = None) -> Iterator[Central]:
    """Everything central is, ready to answer, and closed at the end. Raises SettingsError."""
    clock = clock or SystemClock()
    folder, url = _usable(settings.data_dir), _database(settings)
    shelf = Shelf(folder / "content")
    with _alone(folder, url), Database(url, Bell()) as db:
        _know_the_generation(folder, db.write_now(generation_of))
        shelf.open()
        _let_admin_in(db, folder / TOKEN_FILE, clock)
        services = Services(
            db=db,
            clock=clock,
            shelf=shelf,
            ingest=Ingest(db, clock, timedelta(seconds=settings.session_lease)),
            gate=Gate(settings.max_pushes),
            metrics=Metrics(),
            max_body_bytes=settings.max_body_bytes,
            passwords=Passwords(),
            patience=Patience(),
            session_life=SessionLife(timedelta(hours=settings.session_idle), timedelta(hours=settings.session_longest)),
            news=News(db),
        )
        housekeeping = Housekeeping(db, clock, timedelta(days=settings.tombstone_days), Unnamed(shelf))
        yield Central(create_app(services), db, housekeeping, Watch(db, clock), services.news)


def post_restore(settings: CentralSettings, *, known: int = 0, with_wal: bool = False) -> int:
    """To be done once after the database came from a backup. Returns the new generation.

    `known`: the newest generation that any agent has seen, where the data folder does not remember it. `with_wal`: the
    backup has a -wal of its own. Raises SettingsError, also while central runs, and where no central ever served.
    """
    url = _existing(settings)
    folder = _usable(settings.data_dir)
    with _alone(folder, url):
        if (file := engines.file_of(url)) and not with_wal:
            database_file.refuse_a_wal(file)
        return _begin_anew(folder, url, known)


def _begin_anew(folder: Path, url: URL, known: int) -> int:
    with Database(url, Bell(), doubted=True) as db:
        remembered = max(known, _remembered_generation(folder))

        def begin(conn: Connection) -> int:
            if not (accounts.admin_exists(conn) or people.anybody(conn)):
                raise SettingsError("This database is empty: no central ever served it.", hint="Put the backup there.")
            return begin_anew(conn, remembered)

        new = db.write_now(begin)
        _remember_generation(folder, new)
        return new


def _know_the_generation(folder: Path, generation: int) -> None:
    """Raises SettingsError where agents have seen a newer one: to them this one's numbers are of what was lost."""
    if generation < (newest := _remembered_generation(folder)):
        raise SettingsError(
            f"The database came from a backup: its generation is {generation}, and {folder / GENERATION_FILE} remembers"
            f" {newest}.",
            hint="Run `pureboot central post-restore`, then start again.",
        )
    _remember_generation(folder, generation)


def _remembered_generation(folder: Path) -> int:
    """Outside the database: a second restore of one backup must not make the same generation twice."""
    with suppress(OSError, ValueError):
        return int((folder / GENERATION_FILE).read_text())
    return 0


def _remember_generation(folder: Path, generation: int) -> None:
    if generation > _remembered_generation(folder):
        (folder / GENERATION_FILE).write_text(f"{generation}\n")


def _usable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"data_dir: the folder {folder} cannot be written: {os.strerror(error.errno or 0)}.",
            hint="Give it to the user central runs as, or choose another with --data-dir.",
        ) from None
    return folder


@contextmanager
def _alone(folder: Path, database: URL) -> Iterator[None]:
    """Two centrals on one folder would throw away each other's uploads and wake nobody's long polls; on one SQLite file
    neither would see the other there."""
    with ExitStack() as locks:
        locks.enter_context(closing(FolderLock(folder / "central.lock", "central")))
        if file := engines.file_of(database):
            locks.enter_context(closing(database_file.lock(file)))
        yield


def _database(settings: CentralSettings) -> URL:
    if settings.database_url:
        return engines.address(settings.database_url)
    return engines.sqlite_file(settings.data_dir / "central.db")


def _existing(settings: CentralSettings) -> URL:
    """Raises SettingsError where there is no file: to make one would look as if all had gone well."""
    url = _database(settings)
    if (file := engines.file_of(url)) and not file.is_file():
        raise SettingsError(f"There is no database {file}.", hint="Name central's folder with --data-dir.")
    return url


def _let_admin_in(db: Database, file: Path, clock: Clock) -> None:
    """The first start makes an administrator's token. The file is on disk before the database believes in it."""

    def first_start(conn: Connection) -> None:
        if accounts.admin_exists(conn):
            return
        token = accounts.new_token()
        _write_secret(file, token)
        accounts.add_admin(conn, ADMIN, token, clock.now())

    db.write_now(first_start)


def admin_token(settings: CentralSettings, clock: Clock | None = None) -> Path:
    """For who has lost theirs: the file that holds a new administrator's token, in place of the one called "admin".

    Raises SettingsError, also while central runs and where there is no database yet.
    """
    url = _existing(settings)
    clock = clock or SystemClock()
    file = _usable(settings.data_dir) / TOKEN_FILE

    def instead(conn: Connection) -> None:
        token = accounts.new_token()
        _write_secret(file, token)
        accounts.replace_admin(conn, ADMIN, token, clock.now())

    with _alone(settings.data_dir, url), Database(url, Bell()) as db:
        db.write_now(instead)
    return file


def _write_secret(file: Path, secret: str) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(secret + "\n")
        out.flush()
        os.fsync(out.fileno())


async def run(settings: CentralSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError."""
    with bind(settings.host, settings.port) as sock, build(settings) as central, _until_told(central) as stop:
        host, port = sock.getsockname()[:2]
        async with asyncio.TaskGroup() as group:
            works = [group.create_task(part.run()) for part in (central.housekeeping, central.watch)]
            settle_down()
            await serve_http(
                central.app,
                sock,
                stop=stop,
                on_started=lambda: log.info(
                    "central serves: host=%s port=%d data_dir=%s", host, port, settings.data_dir
                ),
                max_connections=settings.max_connections,
                certfile=settings.tls_certfile,
                keyfile=settings.tls_keyfile,
            )
            for work in works:
                work.cancel()


@contextmanager
def _until_told(central: Central) -> Iterator[asyncio.Event]:
    """Set by the first signal; those who wait for news are let go first, for they would hold up the end."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def told() -> None:
        log.info("central stops, as it was told to")
        central.stop_waiting()
        stop.set()

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, told)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
