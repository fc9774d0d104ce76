"""Central as a program: the only place that reads its settings and builds its parts."""

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import Connection

from pureboot.central import accounts
from pureboot.central.app import create_app
from pureboot.central.bell import Bell
from pureboot.central.clock import Clock, SystemClock
from pureboot.central.content import Shelf
from pureboot.central.db import Database
from pureboot.central.edge import Services
from pureboot.central.ingest import Ingest
from pureboot.central.metrics import Metrics
from pureboot.config.central import CentralSettings
from pureboot.core.errors import SettingsError
from pureboot.wire.http import bind, serve_http

log = logging.getLogger(__name__)

TOKEN_FILE = "admin-token"


@dataclass(frozen=True, slots=True)
class Central:
    app: FastAPI
    db: Database

    def stop_waiting(self) -> None:
        """Long polls answer at once from now on."""
        self.db.bell.close()


@contextmanager
def build(settings: CentralSettings, clock: Clock | None = None) -> Iterator[Central]:
    """Everything central is, ready to answer, and closed at the end. Raises SettingsError."""
    clock = clock or SystemClock()
    folder = _usable(settings.data_dir)
    shelf = Shelf(folder / "content")
    with _alone(folder), Database(_database_file(settings), Bell()) as db:
        shelf.open()
        _let_admin_in(db, folder / TOKEN_FILE, clock)
        services = Services(
            db=db,
            clock=clock,
            shelf=shelf,
            ingest=Ingest(db, clock),
            metrics=Metrics(),
            max_body_bytes=settings.max_body_bytes,
        )
        yield Central(create_app(services), db)


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
def _alone(folder: Path) -> Iterator[None]:
    """Two centrals on one folder would throw away each other's uploads and wake nobody's long polls."""
    with (folder / "central.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"data_dir: another central runs on {folder}.", hint="Stop it first.") from None
        yield


def _database_file(settings: CentralSettings) -> Path:
    return (
        Path(settings.database_url.removeprefix("sqlite:///"))
        if settings.database_url
        else (settings.data_dir / "central.db")
    )


def _let_admin_in(db: Database, file: Path, clock: Clock) -> None:
    """The first start makes an administrator's token. The file is on disk before the database believes in it."""

    def first_start(conn: Connection) -> None:
        if accounts.admin_exists(conn):
            return
        token = accounts.new_token()
        _write_secret(file, token)
        accounts.add_admin(conn, "admin", token, clock.now())

    db.write_now(first_start)


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
        await serve_http(
            central.app,
            sock,
            stop=stop,
            on_started=lambda: log.info("central serves: host=%s port=%d data_dir=%s", host, port, settings.data_dir),
            max_connections=settings.max_connections,
            certfile=settings.tls_certfile,
            keyfile=settings.tls_keyfile,
        )


@contextmanager
def _until_told(central: Central) -> Iterator[asyncio.Event]:
    """Set by the first signal; those who wait for news are let go first, for they would hold up the end."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def told() -> None:
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
