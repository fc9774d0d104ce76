"""Many writers at once on PostgreSQL: nothing lost, nothing twice, nobody told of a deadlock."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.central import RunningCentral, SpeakingAgent, running_central
from tests.support.postgres import Postgres

# Seconds that a storm may take; it needs a fraction of it.
BOUND = 20
NODES, ROUNDS = 6, 12


@pytest.fixture(autouse=True)
def nothing_stumbled(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"] == []


class Follower:
    """Reads the feed as an agent does, and remembers the newest version it was told of each entity."""

    def __init__(self, agent: SpeakingAgent) -> None:
        self._agent = agent
        self._since = "0"
        self.told: dict[tuple[str, str], int] = {}
        self.positions: list[int] = []

    async def step(self) -> None:
        page = await self._agent.changes(self._since, limit=7)
        self._since = page.next
        for item in page.items:
            self.told[item.type, item.id] = item.version
            if item.type not in ("workflow", "content"):
                self.positions.append(item.pos)

    async def follow(self, done: asyncio.Event) -> None:
        while not done.is_set():
            await self.step()
            await asyncio.sleep(0)

    async def catch_up(self) -> None:
        for _ in range(200):
            await self.step()


def mac(site: int, node: int) -> str:
    return f"52:54:00:00:{site:02x}:{node:02x}"


async def drain(agent: SpeakingAgent, site: int, dice: random.Random) -> list[str]:
    """A site's work, with every push repeated as a lost answer would; the outcomes."""
    outcomes: list[str] = []
    names = [f"s{site}n{node}" for node in range(NODES)]
    registrations = [agent.registration(name, mac(site, node)) for node, name in enumerate(names)]
    # A machine that both sites saw: whoever comes second has a claim.
    registrations.append(agent.registration(f"shared{site}", "52:54:00:00:ff:ff"))
    for number in range(ROUNDS):
        events = [agent.event(name, "install_progress") for name in dice.sample(names, NODES)]
        items = events if number else registrations
        answer, again = await asyncio.gather(agent.push(*items), agent.push(*items))
        for one, two in zip(answer.results, again.results, strict=True):
            assert "duplicate" in (one.outcome, two.outcome)
            outcomes.append(one.effect.value)
    return outcomes


async def edit(central: RunningCentral, dice: random.Random, sites: list[str], done: asyncio.Event) -> None:
    """An administrator who moves, renames and approves what the sites are reporting about."""
    while not done.is_set():
        nodes = (await central.ask("GET", "/nodes"))["items"]
        if not nodes:
            await asyncio.sleep(0.01)
            continue
        node, what = dice.choice(nodes)["id"], dice.randrange(4)
        if what == 0:
            answer = await central.admin.patch(f"/api/v1/nodes/{node}", json={"home_site_id": dice.choice(sites)})
        elif what == 1:
            answer = await central.admin.patch(f"/api/v1/nodes/{node}", json={"hostname": f"h{dice.random()}"})
        elif what == 2:
            body = {"name": f"w{dice.random()}", "kernel": "images/k"}
            answer = await central.admin.post("/api/v1/workflows", json=body)
        else:
            move = {"state": dice.choice(["pending", "active"]), "force": True, "comment": "storm"}
            answer = await central.admin.patch(f"/api/v1/nodes/{node}/state", json=move)
        assert answer.status_code < 500, answer.text


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_two_sites_and_their_administrators_at_once(postgres: Postgres, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    with postgres.database() as address:
        async with running_central(tmp_path, database_url=address) as central, asyncio.timeout(BOUND):
            sites = [(await central.new_site(name))["id"] for name in ("attic", "cellar")]
            agents = [await central.speaking_agent(site) for site in sites]
            followers = [Follower(agent) for agent in agents]
            done = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                others = [group.create_task(follower.follow(done)) for follower in followers]
                others += [group.create_task(edit(central, random.Random(dice.random()), sites, done)) for _ in "ab"]
                drains = [group.create_task(drain(agent, i, dice)) for i, agent in enumerate(agents)]
                outcomes = [outcome for work in await asyncio.gather(*drains) for outcome in work]
                done.set()
            assert set(outcomes) <= {"applied", "conflict"}
            assert outcomes.count("conflict") == 1
            for site, follower in zip(sites, followers, strict=True):
                await follower.catch_up()
                everything = central.sql("SELECT type, id, version FROM feed WHERE site IN (:site, '*')", site=site)
                assert follower.told == {(row.type, row.id): row.version for row in everything}
                # Of what changed again before it was read the newest position alone is told; none is told twice.
                assert len(set(follower.positions)) == len(follower.positions)
            [items] = central.sql("SELECT count(*), count(DISTINCT item_id) FROM sync_receipt")
            assert tuple(items) == (len(outcomes), len(outcomes))
            # No edit was overwritten by what a site's push had read before it.
            moves = "SELECT count(*) FROM node_history WHERE node_id = node.id"
            assert central.sql(f"SELECT id, state_rev, ({moves}) FROM node WHERE state_rev <> 1 + ({moves})") == []
            [events] = central.sql("SELECT count(*) FROM node_event")
            assert events[0] == 2 * NODES * (ROUNDS - 1)


async def test_one_mac_that_two_sites_register_at_once_is_one_node(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as address:
        async with running_central(tmp_path, database_url=address) as central, asyncio.timeout(BOUND):
            agents = [await central.speaking_agent((await central.new_site(name))["id"]) for name in ("a", "b", "c")]
            for number in range(20):
                pushes = [a.push(a.registration(f"{a.site_id[-6:]}{number}", mac(9, number))) for a in agents]
                answers = await asyncio.gather(*pushes)
                outcomes = sorted(answer.results[0].outcome.value for answer in answers)
                assert outcomes == ["applied", "conflict", "conflict"]
            assert len((await central.ask("GET", "/nodes"))["items"]) == 20
