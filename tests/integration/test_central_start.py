"""How central starts, stops and goes on."""

import asyncio
import os
import shutil
import signal
import sqlite3
import stat
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select
from typer.testing import CliRunner

from pureboot.central import tables as t
from pureboot.central.bell import Bell
from pureboot.central.db import Database
from pureboot.central.engines import sqlite_file
from pureboot.central.main import build, run
from pureboot.cli.main import app
from pureboot.config.central import CentralSettings
from pureboot.config.loading import load
from pureboot.core.errors import Busy, SettingsError
from pureboot.wire.http import bind
from tests.support.central import running_central
from tests.support.postgres import Postgres
from tests.support.tls import CERTIFICATE, KEY, LOCKED_KEY, OTHER_KEY


async def test_the_first_start_writes_the_admins_token_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "central"
    async with running_central(folder) as central:
        file = folder / "admin-token"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert len(central.token) >= 43
        await central.ask("GET", "/sites")


@pytest.mark.parametrize("before", [False, True], ids=["a new file", "one of before"])
def test_the_database_is_its_owners_only_in_an_open_folder(tmp_path: Path, before: bool) -> None:
    """Hashes of passwords and tokens lie in it."""
    tmp_path.chmod(0o755)
    names = ("central.db", "central.db-wal", "central.db-shm")
    if before:
        with build(CentralSettings(data_dir=tmp_path)):
            for name in names:
                (tmp_path / name).chmod(0o644)
                shutil.copy(tmp_path / name, tmp_path / f"{name}.kept")
        for name in names:
            (tmp_path / f"{name}.kept").rename(tmp_path / name)
    with build(CentralSettings(data_dir=tmp_path)):
        assert {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names} == dict.fromkeys(names, 0o600)


async def test_a_later_start_goes_on_and_writes_no_token_again(tmp_path: Path) -> None:
    async with running_central(tmp_path) as central:
        await central.new_site("attic")
        agent = await central.speaking_agent("attic")
        await agent.push(agent.registration("n1", "52:54:00:aa:bb:01"))
        since, token = (await agent.changes()).next, central.token
        credential = agent.client.headers["authorization"].removeprefix("Bearer ")
    (tmp_path / "admin-token").unlink()
    with build(CentralSettings(data_dir=tmp_path)):
        assert not (tmp_path / "admin-token").exists()
    (tmp_path / "admin-token").write_text(token)
    async with running_central(tmp_path) as central:
        page = await central.client(credential).get("/api/v1/sync/changes", params={"since": since})
        assert (page.status_code, page.json()["items"]) == (200, [])
        assert (await central.ask("GET", "/nodes/n1"))["state"] == "discovered"


def new_token(*flags: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["central", "admin-token", *flags])
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in its folder", "a database elsewhere"])
async def test_a_lost_admin_token_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """The old one opens nothing any more; those of other names do."""
    monkeypatch.chdir(tmp_path)
    folder, url = tmp_path / "central", f"sqlite:///{tmp_path / 'other.db'}" if elsewhere else ""
    flags = ["--data-dir", str(folder), *(["--database-url", url] if elsewhere else [])]
    async with running_central(folder, database_url=url) as central:
        lost = central.token
        other = (await central.ask("POST", "/tokens", 201, json={"name": "ci", "role": "viewer"}))["token"]
        assert "another central runs" in new_token(*flags, code=2)
    file = folder / "admin-token"
    file.unlink()
    said = new_token(*flags)
    assert str(file) in said
    assert file.read_text().strip() not in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    async with running_central(folder, database_url=url) as central:
        assert central.token != lost
        await central.ask("GET", "/sites")
        answers = [await central.client(token).get("/api/v1/sites") for token in (lost, other)]
        assert [answer.status_code for answer in answers] == [401, 200]
        names = [(each["name"], each["role"]) for each in (await central.ask("GET", "/tokens"))["items"]]
        assert names == [("admin", "admin"), ("ci", "viewer")]
    assert new_token(*flags, "--show").splitlines()[1:] == [file.read_text().strip()]


def test_no_token_is_made_where_there_is_no_central(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "There is no database" in new_token("--data-dir", "mistyped", code=2)
    assert list(tmp_path.iterdir()) == []


def test_the_migrations_make_the_tables_the_code_speaks_of(tmp_path: Path) -> None:
    def differences(conn: Connection) -> list[object]:
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, t.metadata))

    with Database(sqlite_file(tmp_path / "central.db"), Bell()) as db:
        assert db.write_now(differences) == []


async def test_uploads_that_the_last_run_did_not_finish_are_gone(tmp_path: Path) -> None:
    async with running_central(tmp_path):
        leftover = tmp_path / "content" / "arriving" / "x"
        leftover.write_bytes(b"half")
    async with running_central(tmp_path):
        assert not leftover.exists()


async def test_a_signal_ends_it_soon_whoever_waits_for_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pureboot.central.main")
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
    serving = asyncio.create_task(run(CentralSettings(data_dir=tmp_path, port=port)))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        await up(client)
        admin = {"Authorization": f"Bearer {admin_token(tmp_path)}"}
        await client.post("/api/v1/sites", json={"name": "attic"}, headers=admin)
        one_time = (await client.post("/api/v1/sites/attic/agent-token", headers=admin)).json()["token"]
        agent = (await client.post("/api/v1/agents/register", json={"token": one_time})).json()
        headers = {"Authorization": f"Bearer {agent['credential']}"}
        news = "/api/v1/sync/changes?since=1.0&wait=50"
        waiting = asyncio.create_task(client.get(news, headers=headers, timeout=60))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 10)
        assert (await waiting).json()["items"] == []
    assert [said for said in caplog.messages if "stops" in said] == ["central stops, as it was told to"]


def admin_token(folder: Path) -> str:
    return (folder / "admin-token").read_text().strip()


async def up(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(httpx2.TransportError):
                await client.get("/health")
                return
            await asyncio.sleep(0.05)


# What stops a start: one sentence that names the setting


def start(folder: Path, **settings: object) -> str:
    with pytest.raises(SettingsError) as caught, build(CentralSettings.model_validate({"data_dir": folder} | settings)):
        pass
    return str(caught.value)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert start(tmp_path / "file" / "central").startswith("data_dir: ")


def test_a_folder_where_central_runs_already(tmp_path: Path) -> None:
    with build(CentralSettings(data_dir=tmp_path)):
        assert start(tmp_path) == f"data_dir: another central runs on {tmp_path}."


@pytest.mark.parametrize("name", ["central/central.db", "link.db"])
def test_a_database_on_which_central_runs_already_with_another_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "central" / "central.db")
    with build(CentralSettings(data_dir=tmp_path / "central")):
        said = start(tmp_path / "other", database_url=f"sqlite:///{tmp_path / name}")
        assert said == f"database_url: another central runs on {tmp_path / 'central' / 'central.db'}."
    with build(CentralSettings(data_dir=tmp_path / "other", database_url=f"sqlite:///{tmp_path / name}")):
        pass


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_letter(tmp_path: Path, postgres: Postgres, encoding: str) -> None:
    with postgres.foreign(encoding) as address:
        assert f"is in {encoding}, and has to be in UTF8" in start(tmp_path, database_url=address)


def test_a_database_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "nowhere.db cannot be opened" in start(tmp_path, database_url=f"sqlite:///{tmp_path}/none/nowhere.db")
    assert not (tmp_path / "none").exists()


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "central.db").write_text("this is not a database, whatever its name says" * 100)
    assert "central.db cannot be opened" in start(tmp_path)


def test_a_database_that_is_damaged(tmp_path: Path) -> None:
    with build(CentralSettings(data_dir=tmp_path)):
        pass
    with (tmp_path / "central.db").open("r+b") as file:
        file.seek(-8 * 4096, os.SEEK_END)
        file.write(b"?" * 4096)
    assert f"The database {tmp_path / 'central.db'} is damaged" in start(tmp_path)


def test_a_database_of_a_newer_version(tmp_path: Path) -> None:
    with build(CentralSettings(data_dir=tmp_path)):
        pass
    with closing(sqlite3.connect(tmp_path / "central.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "newer PureBoot" in start(tmp_path)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("port = 'many'", "port"),
        ("port = 99999", "port"),
        ("prot = 8000", "prot"),
        ("database_url = 'mysql://x'", "database_url"),
        ("database_url = 'postgresql://u:p@h:port/n'", "database_url .* its port is no number"),
        ("database_url = 'postgresql://u:p@w@h/n'", "database_url .* %40"),
        ("tls_certfile = '/nowhere.pem'", "tls_certfile .* it cannot be read: No such file"),
        (
            f"tls_certfile = '{CERTIFICATE}'",
            "^The settings do not fit together: tls_certfile and tls_keyfile belong tog",
        ),
        (f"tls_certfile = '{KEY}'", "tls_certfile .* it holds no certificate in PEM"),
        (f"tls_certfile = '{CERTIFICATE}'\ntls_keyfile = '{CERTIFICATE}'", "tls_keyfile .* it holds no key in PEM"),
        (f"tls_certfile = '{CERTIFICATE}'\ntls_keyfile = '{LOCKED_KEY}'", "tls_keyfile .* without a passphrase"),
        (f"tls_certfile = '{CERTIFICATE}'\ntls_keyfile = '{OTHER_KEY}'", "tls_keyfile .* not the key of tls_certfile"),
        ("max_body_bytes = 0", "max_body_bytes"),
        ("host = ", "central.toml"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "central.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=named):
        load(CentralSettings, file=file)


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "central.toml"
    file.write_text(
        f"tls_certfile = '{CERTIFICATE}'\ntls_keyfile = '{KEY}'\n"
        "database_url = 'postgresql://u:p%40/#w@[::1]:5432/n?sslmode=require'"
    )
    assert load(CentralSettings, file=file).tls_keyfile == KEY


@pytest.mark.parametrize(
    "text",
    [
        "database_url = 'postgresql://u:SECRETPW@h/n'\ntls_certfile = 'central.toml'",
        "database_url = 'postgres://u:SECRETPW@h/n'",
        "database_url = 'u:SECRETPW@h/n'",
        "database_url = ['postgresql://u:SECRETPW@h/n']",
    ],
)
def test_no_complaint_shows_the_databases_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "central.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(CentralSettings, file=file)
    said = caught.value.message + caught.value.hint
    assert "SECRETPW" not in said
    assert "{" not in said
    assert "SECRETPW" not in repr(CentralSettings(database_url="postgresql://u:SECRETPW@h/n"))


def test_a_database_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    for url in ("postgresql://u:SECRETPW@127.0.0.1:9/n", "postgresql://u@127.0.0.1:9/n?password=SECRETPW"):
        said = start(tmp_path, database_url=url)
        assert "SECRETPW" not in said
        assert "127.0.0.1:9/n cannot be opened" in said


def test_a_damaged_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUREBOOT_CENTRAL__PORT", "many")
    with pytest.raises(SettingsError, match="PUREBOOT_CENTRAL__PORT"):
        load(CentralSettings)


def test_a_database_elsewhere(tmp_path: Path) -> None:
    settings = CentralSettings(data_dir=tmp_path / "data", database_url=f"sqlite:///{tmp_path / 'other.db'}")
    with build(settings):
        assert (tmp_path / "other.db").exists()
        assert not (tmp_path / "data" / "central.db").exists()


# The database's door


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(sqlite_file(tmp_path / "central.db"), Bell())


def admin(name: str) -> dict[str, object]:
    return {"token_hash": name, "name": name, "created_at": datetime(2026, 1, 1, tzinfo=UTC)}


async def test_what_raises_leaves_nothing(db: Database) -> None:
    def work(conn: Connection) -> None:
        conn.execute(insert(t.admin_credential), admin("a"))
        raise ZeroDivisionError

    with db:
        with pytest.raises(ZeroDivisionError):
            await db.write(work)
        assert await db.read(lambda conn: conn.execute(select(t.admin_credential)).all()) == []


async def test_a_reader_cannot_write(db: Database) -> None:
    with db, pytest.raises(Busy, match="readonly"):
        await db.read(lambda conn: conn.execute(insert(t.admin_credential), admin("a")))


async def test_commits_are_durable_and_keys_are_checked(db: Database) -> None:
    def pragmas(conn: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    with db:
        assert await db.write(pragmas) == ["wal", 2, 1]


async def test_a_write_begins_at_once(db: Database, tmp_path: Path) -> None:
    """BEGIN IMMEDIATE is really sent: another writer is locked out before the first statement."""

    def work(_: Connection) -> str:
        other = sqlite3.connect(tmp_path / "central.db", timeout=0, isolation_level=None)
        with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        return "tried"

    with db:
        assert await db.write(work) == "tried"


def test_the_migrations_travel_with_the_package() -> None:
    folder = Path(os.path.dirname(t.__file__)) / "migrations"
    assert (folder / "script.py.mako").is_file()
    assert list((folder / "versions").glob("v*.py"))
