"""Central restored from a backup: a new generation, and what agents still hold brings back what was lost."""

import shutil
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

MAC, OTHER_MAC = "52:54:00:aa:bb:01", "52:54:00:aa:bb:02"


class Restorable:
    """Central's folder and database, its backup, and one agent that outlives them all."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.settings = CentralSettings(data_dir=folder, database_url=database)
        self._backup = folder.with_name("backup")

    def back_up(self) -> None:
        shutil.copytree(self.folder, self._backup)

    def restore(self) -> int:
        """The database as it was; the rest of the folder stays."""
        shutil.copy(self._backup / "central.db", self.folder / "central.db")
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


def test_the_command_says_what_it_did_and_what_comes_next(restorable: Restorable) -> None:
    with build(restorable.settings):
        pass
    result = CliRunner().invoke(app, ["central", "post-restore", "--data-dir", str(restorable.folder), "--known", "4"])
    assert (result.exit_code, result.output.split(".")[0]) == (0, "This is generation 5 now")


async def test_it_refuses_while_central_runs(restorable: Restorable) -> None:
    async with running_central(restorable.folder) as central:
        with pytest.raises(SettingsError, match="another central runs"):
            post_restore(restorable.settings)
        assert (await central.anybody.get("/health")).json()["generation"] == 1


async def test_every_number_moves_and_nothing_else(central: RunningCentral, tmp_path: Path, database: str) -> None:
    """On both databases; on PostgreSQL central may run elsewhere, which is seen in the database."""
    agent = await central.speaking_agent((await central.new_site("attic", conflict_resolution="manual"))["id"])
    await agent.push(agent.registration("n1", MAC))
    rev = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"}))["state_rev"]
    await central.ask("PATCH", "/nodes/n1/state", json={"state": "active", "force": True, "comment": "by hand"})
    await agent.push(agent.step("n1", "pending", "installing", 1, base=rev))
    before = central.everything_stored()
    central.db.close()
    for folder in ("elsewhere", "restored"):
        (tmp_path / folder).mkdir()
        shutil.copy(central.folder / "admin-token", tmp_path / folder)
    if database:
        async with running_central(tmp_path / "elsewhere", database_url=database):
            with pytest.raises(SettingsError, match="a central runs on this database"):
                post_restore(CentralSettings(data_dir=tmp_path / "central2", database_url=database))
    settings = CentralSettings(
        data_dir=tmp_path / "restored", database_url=database or f"sqlite:///{tmp_path}/central/central.db"
    )
    assert post_restore(settings) == 2
    async with running_central(tmp_path / "restored", database_url=settings.database_url) as again:
        after = again.everything_stored()
        assert len(after) == len(before)
        [node] = again.sql("SELECT version, state_rev FROM node")
        assert tuple(node) == (10**12 + 3, 10**12 + 3)
        [feed] = again.sql(
            "SELECT min(pos) AS low, max(pos) AS high, min(version) AS version FROM feed WHERE site <> '*'"
        )
        assert (feed.low > 10**12, feed.version > 10**12) == (True, True)
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
