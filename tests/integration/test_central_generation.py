"""Central restored from a backup: a new generation, and what agents still hold brings back what was lost."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pureboot.central.main import build, post_restore
from pureboot.cli.main import app
from pureboot.config.central import CentralSettings
from pureboot.core.errors import SettingsError
from pureboot.wire.messages import AgentCredential
from tests.support.agent import init, running_agent
from tests.support.central import RunningCentral, SpeakingAgent, running_central
from tests.support.machines import kernel_workflow

MAC, OTHER_MAC = "52:54:00:aa:bb:01", "52:54:00:aa:bb:02"


class Restorable:
    """Central's folder and database, its backup, and one agent that outlives them all."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.settings = CentralSettings(data_dir=folder, database_url=database)
        self._backup = folder.with_name("backup")

    def back_up(self) -> None:
        shutil.copytree(self.folder, self._backup)

    def back_up_alive(self) -> None:
        """As `.backup` of sqlite3 does it."""
        self._backup.mkdir()
        with (
            closing(sqlite3.connect(self.folder / "central.db")) as live,
            closing(sqlite3.connect(self._backup / "central.db")) as kept,
        ):
            live.backup(kept)

    def put_back(self, *, wal: Path | None = None) -> None:
        """The database of the backup, with what lies beside it."""
        shutil.copy(self._backup / "central.db", self.folder / "central.db")
        if wal:
            shutil.copy(wal, self.folder / "central.db-wal")

    def restore(self) -> int:
        """The database as it was; the rest of the folder stays."""
        self.put_back()
        for left in ("central.db-wal", "central.db-shm"):
            (self.folder / left).unlink(missing_ok=True)
        return post_restore(self.settings)


@pytest.fixture
def restorable(tmp_path: Path) -> Restorable:
    return Restorable(tmp_path / "central", "")


def outlive(agent: SpeakingAgent, central: RunningCentral, generation: int) -> SpeakingAgent:
    credential = agent.client.headers["authorization"].removeprefix("Bearer ")
    later = SpeakingAgent(central, AgentCredential(agent_id=agent.id, site_id=agent.site_id, credential=credential))
    later.generation = generation
    return later


async def test_what_was_lost_with_the_backup_comes_back_from_the_agents(restorable: Restorable) -> None:
    async with running_central(restorable.folder) as central:
        agent = await central.speaking_agent((await central.new_site("attic"))["id"])
        kept = agent.registration("n1", MAC)
        await agent.push(kept)
        pending = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"}))["state_rev"]
    restorable.back_up()
    async with running_central(restorable.folder) as central:
        agent = outlive(agent, central, 1)
        lost = [
            agent.registration("n2", OTHER_MAC),
            begun := agent.step("n1", "pending", "installing", 1, base=pending),
            agent.step("n1", "installing", "installed", 1, after=begun["id"]),
            agent.event("n1", "install_complete"),
        ]
        await agent.push(*lost)
        before = await agent.changes()
        assert {node.state for node in (await agent.push(*lost)).nodes} == {"discovered", "installed"}

    assert restorable.restore() == 2
    async with running_central(restorable.folder) as central:
        agent = outlive(agent, central, 1)
        refused = await agent.post(kept)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "generation_changed")
        gone = await agent.client.get("/api/v1/sync/changes", params={"since": before.next})
        assert (gone.status_code, gone.json()["error"]["code"]) == (410, "cursor_too_old")

        agent.generation = 2
        stale = await agent.post(kept, fence=1)
        assert (stale.status_code, stale.json()["error"]["code"]) == (409, "fenced")
        assert (await central.ask("GET", "/sites/attic/health"))["notices"] == []
        answer = await agent.push(kept, *lost)
        assert [result.outcome.value for result in answer.results] == ["duplicate"] + ["applied"] * 4
        assert {node.id: node.state for node in answer.nodes} == {"n1": "installed", "n2": "discovered"}
        # Newer than everything that was told before the loss, also where it was made anew.
        versions = {item.id: item.version for item in before.items if item.type == "node"}
        assert all(node.version > versions[node.id] for node in answer.nodes)
        page = await agent.changes()
        assert page.generation == 2
        assert {item.id for item in page.items if item.type == "node"} == {"n1", "n2"}
        assert (await agent.changes(page.next)).items == []


async def test_nobody_holds_the_right_to_write_of_before_the_restore(restorable: Restorable) -> None:
    """Whoever asks first has it, and what pushes by the old one is no copy."""
    session = {"epoch": "e1", "previous_epochs": []}
    async with running_central(restorable.folder) as central:
        agent = await central.speaking_agent((await central.new_site("attic"))["id"])
        session["agent_id"] = agent.id
        assert (await agent.client.post("/api/v1/sync/session", json=session)).status_code == 200
    restorable.back_up()
    generation = restorable.restore()
    async with running_central(restorable.folder) as central:
        agent = outlive(agent, central, generation)
        assert (await agent.post(fence=1)).json()["error"]["code"] == "fenced"
        answer = await agent.client.post("/api/v1/sync/session", json=session | {"epoch": "e2"})
        assert answer.status_code == 200, answer.text
        assert (await central.ask("GET", "/sites/attic/health"))["notices"] == []
        assert (await agent.post(fence=answer.json()["fence"])).status_code == 200


async def test_a_chain_goes_on_across_the_restore(restorable: Restorable) -> None:
    async with running_central(restorable.folder) as central:
        agent = await central.speaking_agent((await central.new_site("attic"))["id"])
        await agent.push(agent.registration("n1", MAC))
        rev = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"}))["state_rev"]
        begun = agent.step("n1", "pending", "installing", 1, base=rev)
        await agent.push(begun)
    restorable.back_up()
    generation = restorable.restore()
    async with running_central(restorable.folder) as central:
        agent = outlive(agent, central, generation)
        answer = await agent.push(begun, agent.step("n1", "installing", "installed", 1, after=begun["id"]))
        assert [result.outcome.value for result in answer.results] == ["duplicate", "applied"]


async def test_an_install_that_began_after_new_facts_is_applied_again(restorable: Restorable) -> None:
    """The step has no base of its own; the registration before it, whose base is of the lost life, moved nothing."""
    async with running_central(restorable.folder) as central:
        agent = await central.speaking_agent((await central.new_site("attic"))["id"])
        await agent.push(agent.registration("n1", MAC))
        rev = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"}))["state_rev"]
    restorable.back_up()
    base = {"generation": 1, "state_rev": rev}
    told = agent.registration("n1", MAC, facts={"ip_address": "10.0.0.9"}, base=base)
    note = agent.event("n1", "install_started", after=told["id"])
    begun = agent.step("n1", "pending", "installing", 1, after=note["id"])
    generation = restorable.restore()
    async with running_central(restorable.folder) as central:
        answer = await outlive(agent, central, generation).push(told, note, begun)
        assert [result.outcome.value for result in answer.results] == ["applied"] * 3


async def test_all_that_waits_in_a_renamed_lane_finds_the_node_that_is_made_anew(tmp_path: Path) -> None:
    """Central's node and the alias the site's registration was given are both younger than the backup."""
    restorable = Restorable(tmp_path / "central", "")
    told = [{"mac": MAC, "event": f"told{number}"} for number in range(4)]
    async with running_central(restorable.folder) as central:
        await central.new_site("attic")
        await init(central, "attic", tmp_path / "agent")
    restorable.back_up()
    async with (
        running_central(restorable.folder) as central,
        running_agent(tmp_path / "agent", central.transport()) as site,
    ):
        await site.synced()
        await site.cut()
        here = (await site.machine.post("/api/v1/nodes/register", json={"mac": MAC})).json()["id"]
        there = (await central.ask("POST", "/nodes", 201, json={"mac_address": MAC, "home_site_id": "attic"}))["id"]
        assert here != there
        for report in told:
            assert (await site.machine.post("/api/v1/report", json=report)).is_success
        await site.restore()
        await site.synced()
        assert [event["event"] for event in await central.events(MAC)] == [report["event"] for report in told]
    restorable.restore()
    async with (
        running_central(restorable.folder) as central,
        running_agent(tmp_path / "agent", central.transport()) as site,
    ):
        await site.synced()
        assert [event["event"] for event in await central.events(MAC)] == [report["event"] for report in told]
        assert (await site.health())["failed_queue_items"] == 0


async def test_a_decision_is_taken_back_across_the_restore(restorable: Restorable) -> None:
    async with running_central(restorable.folder) as central:
        agent = await central.speaking_agent((await central.new_site("attic"))["id"])
        await agent.push(agent.registration("n1", MAC))
        rev = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"}))["state_rev"]
        body = {"state": "discovered", "force": True, "comment": "meanwhile"}
        await central.ask("PATCH", "/nodes/n1/state", json=body)
        conflict = (await agent.push(agent.step("n1", "pending", "installing", 1, base=rev))).results[0].conflict_id
    restorable.back_up()
    restorable.restore()
    async with running_central(restorable.folder) as central:
        undone = await central.ask("POST", f"/sites/attic/conflicts/{conflict}/undo", 200, json={})
        assert undone["status"] == "pending"


async def test_one_backup_restored_twice_makes_two_generations(restorable: Restorable) -> None:
    async with running_central(restorable.folder):
        pass
    restorable.back_up()
    assert [restorable.restore(), restorable.restore()] == [2, 3]
    assert post_restore(restorable.settings, known=7) == 8


def test_where_no_central_ever_served_nothing_is_restored(tmp_path: Path) -> None:
    settings = CentralSettings(data_dir=tmp_path)
    with pytest.raises(SettingsError, match="There is no database"):
        post_restore(settings)
    assert not list(tmp_path.iterdir())
    (tmp_path / "central.db").touch()  # as a copy of it is while its rows are in the -wal that was left behind
    with pytest.raises(SettingsError, match="is empty"):
        post_restore(settings)


async def test_a_backup_of_an_older_generation_is_not_served_uncounted(restorable: Restorable) -> None:
    async with running_central(restorable.folder):
        pass
    restorable.back_up()
    restorable.restore()
    restorable.put_back()
    older = pytest.raises(SettingsError, match="came from a backup: its generation is 1")
    with older as refused, build(restorable.settings):
        pass
    assert "post-restore" in refused.value.hint
    assert post_restore(restorable.settings) == 3
    async with running_central(restorable.folder) as central:
        assert (await central.anybody.get("/health")).json()["generation"] == 3


def test_the_command_says_what_it_did_and_what_comes_next(restorable: Restorable) -> None:
    with build(restorable.settings):
        pass
    result = CliRunner().invoke(app, ["central", "post-restore", "--data-dir", str(restorable.folder), "--known", "4"])
    assert (result.exit_code, result.output.split(".")[0]) == (0, "This is generation 5 now")


# On SQLite a -wal may lie beside the file that came back


async def test_what_a_killed_central_left_beside_its_file_does_not_undo_the_restore(restorable: Restorable) -> None:
    async with running_central(restorable.folder) as central:
        await central.new_site("before")
        restorable.back_up_alive()
        await central.new_site("after")
        shutil.copy(central.folder / "central.db-wal", left := restorable.folder.with_name("left"))
    restorable.put_back(wal=left)
    with pytest.raises(SettingsError, match=r"central.db-wal lies beside the database") as refused:
        post_restore(restorable.settings)
    assert "Remove central.db-wal and central.db-shm" in refused.value.hint
    (restorable.folder / "central.db-wal").unlink()
    assert post_restore(restorable.settings) == 2
    async with running_central(restorable.folder) as central:
        assert await names_of_sites(central) == ["before"]


async def test_a_backup_may_have_a_wal_of_its_own(restorable: Restorable) -> None:
    """A snapshot of the disk has."""
    async with running_central(restorable.folder) as central:
        await central.new_site("before")
        restorable.back_up()
        await central.new_site("after")
    restorable.put_back(wal=restorable.folder.with_name("backup") / "central.db-wal")
    arguments = ["central", "post-restore", "--data-dir", str(restorable.folder)]
    assert CliRunner().invoke(app, arguments).exit_code != 0
    assert CliRunner().invoke(app, [*arguments, "--with-wal"]).exit_code == 0
    async with running_central(restorable.folder) as central:
        assert await names_of_sites(central) == ["before"]


async def test_a_wal_that_damages_what_was_restored_stops_a_start_and_changes_nothing(restorable: Restorable) -> None:
    async with running_central(restorable.folder) as central:
        for number in range(40):
            await central.new_site(f"before{number:02}")
        restorable.back_up_alive()
        for number in range(60):
            await central.new_site(f"after{number}", description="x" * 900)
        with closing(sqlite3.connect(central.folder / "central.db")) as beside:
            beside.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        for number in range(3):
            await central.ask("PATCH", f"/sites/before{number:02}", json={"description": "changed"})
        shutil.copy(central.folder / "central.db-wal", left := restorable.folder.with_name("left"))
    restorable.put_back(wal=left)
    with pytest.raises(SettingsError, match="is damaged"), build(restorable.settings):
        pass
    with pytest.raises(SettingsError, match="is damaged"):
        post_restore(restorable.settings, with_wal=True)
    (restorable.folder / "central.db-wal").unlink()
    assert post_restore(restorable.settings) == 2
    async with running_central(restorable.folder) as central:
        assert await names_of_sites(central) == [f"before{number:02}" for number in range(40)]


async def names_of_sites(central: RunningCentral) -> list[str]:
    return sorted(site["name"] for site in (await central.ask("GET", "/sites", params={"limit": 1000}))["items"])


async def test_a_damaged_file_is_not_counted_anew(restorable: Restorable) -> None:
    """Where an index does not have what its table has, each of them looks whole."""
    file = restorable.folder / "central.db"
    async with running_central(restorable.folder) as central:
        await central.new_site("attic")
    with closing(sqlite3.connect(file, isolation_level=None)) as beside:
        beside.execute("PRAGMA writable_schema = 1")
        for statement in (
            "CREATE TABLE kept AS SELECT rowid AS place, * FROM sqlite_schema WHERE name = 'ix_site_parent_id'",
            "DELETE FROM sqlite_schema WHERE name = 'ix_site_parent_id'",
            "PRAGMA writable_schema = RESET",
            "UPDATE site SET parent_id = id",
            "PRAGMA writable_schema = 1",
            "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql)"
            " SELECT type, name, tbl_name, rootpage, sql FROM kept",
            "DROP TABLE kept",
        ):
            beside.execute(statement)
    before = file.read_bytes()
    with pytest.raises(SettingsError, match="is damaged") as refused:
        post_restore(restorable.settings)
    assert "Put a backup in its place" in refused.value.hint
    assert file.read_bytes() == before


async def test_it_refuses_while_central_runs(restorable: Restorable) -> None:
    async with running_central(restorable.folder) as central:
        with pytest.raises(SettingsError, match="another central runs"):
            post_restore(restorable.settings)
        assert (await central.anybody.get("/health")).json()["generation"] == 1


async def test_it_refuses_while_central_runs_with_another_folder(restorable: Restorable, tmp_path: Path) -> None:
    async with running_central(restorable.folder) as central:
        url = f"sqlite:///{restorable.folder}/central.db"
        with pytest.raises(SettingsError, match="database_url: another central runs"):
            post_restore(CentralSettings(data_dir=tmp_path / "other", database_url=url))
        assert (await central.anybody.get("/health")).json()["generation"] == 1


NUMBERS = [
    "site.version",
    "workflow.version",
    "content.version",
    "node.version",
    "node.state_rev",
    "sync_conflict.version",
    "sync_conflict.expected_rev",
    "sync_receipt.expected_rev",
    "sync_receipt.result_version",
    "site_pos.pos",
    "feed.pos",
    "feed.version",
    "agent.fence",
]


def numbers(central: RunningCentral) -> dict[str, list[int]]:
    """Of each column of versions, revisions, positions and fences what it holds, which is something."""
    found = {}
    for name in NUMBERS:
        table, column = name.split(".")
        rows = central.sql(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY 1")
        found[name] = [row[0] for row in rows]
        assert found[name], name
    return found


async def test_every_number_moves_and_nothing_else(central: RunningCentral, tmp_path: Path, database: str) -> None:
    """On both databases; on PostgreSQL central may run elsewhere, which is seen in the database."""
    agent = await central.speaking_agent((await central.new_site("attic", conflict_resolution="manual"))["id"])
    await agent.push(agent.registration("n1", MAC))
    rev = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"}))["state_rev"]
    await central.ask("PATCH", "/nodes/n1/state", json={"state": "active", "force": True, "comment": "by hand"})
    disputed = (await agent.push(agent.step("n1", "pending", "installing", 1, base=rev))).results[0].conflict_id
    await central.ask("POST", f"/sites/attic/conflicts/{disputed}/resolve", json={"resolution": "keep_local"})
    session = {"agent_id": agent.id, "epoch": "e1", "previous_epochs": []}
    assert (await agent.client.post("/api/v1/sync/session", json=session)).status_code == 200
    await kernel_workflow(central)
    before, were = central.everything_stored(), numbers(central)
    central.db.close()
    for folder in ("elsewhere", "restored"):
        (tmp_path / folder).mkdir()
        shutil.copy(central.folder / "admin-token", tmp_path / folder)
    if database:
        async with running_central(tmp_path / "elsewhere", database_url=database):
            with pytest.raises(SettingsError, match="a central runs on this database"):
                post_restore(CentralSettings(data_dir=tmp_path / "central2", database_url=database))
    else:
        shutil.copy(central.folder / "central.db", tmp_path / "restored")
    settings = CentralSettings(data_dir=tmp_path / "restored", database_url=database)
    assert post_restore(settings) == 2
    async with running_central(tmp_path / "restored", database_url=settings.database_url) as again:
        after = again.everything_stored()
        assert len(after) == len(before)
        assert numbers(again) == {name: [10**12 + number for number in there] for name, there in were.items()}
        for row in again.sql("SELECT pos, floor FROM site_pos"):
            assert row.pos >= row.floor == 10**12


async def test_what_agents_bring_back_is_no_gap_in_their_accounts(restorable: Restorable) -> None:
    """They count as queued again what the backup knows as settled."""
    account = {"epoch": "e1", "discarded": 0}
    async with running_central(restorable.folder) as central:
        agent = await central.speaking_agent((await central.new_site("attic"))["id"])
        await agent.post(epoch_accounts=[account | {"made": 9, "settled": 9, "queued": 0}])
    restorable.back_up()
    assert restorable.restore() == 2
    async with running_central(restorable.folder) as central:
        agent = outlive(agent, central, 2)
        await agent.post(epoch_accounts=[account | {"made": 12, "settled": 0, "queued": 12}])
        assert (await central.ask("GET", "/sites/attic/health"))["epoch_gaps"] == []
