"""Many writers at once on PostgreSQL: nothing lost, nothing twice, nobody told of a deadlock."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection

from pureboot.central import accounts, commands, content, nodes, people, sites, tokens
from pureboot.central.bodies import NodePatch, SitePatch, TokenCreate
from pureboot.central.clock import SystemClock
from pureboot.central.content import Shelf, Upload
from pureboot.central.positions import begin, settle
from pureboot.core.errors import PureBootError
from pureboot.core.roles import Role
from pureboot.wire.messages import AgentRegistration, ContentCategory, ContentDocument
from tests.support.browser import PASSWORD, add_person, browser
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


# What two transactions see of each other

NOW = SystemClock().now()
WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
Work = Callable[[Connection], object]
T = TypeVar("T")


@pytest.fixture
async def central(postgres: Postgres, tmp_path: Path) -> AsyncIterator[RunningCentral]:
    with postgres.database() as address:
        async with running_central(tmp_path, database_url=address) as running, asyncio.timeout(BOUND):
            yield running


async def beside(central: RunningCentral, first: Work, second: Callable[[], Awaitable[T]]) -> T:
    """What `second` says, which begins when `first` has all but committed, and has ended or waits when it does."""
    done, over = threading.Event(), threading.Event()

    def slowly(conn: Connection) -> None:
        try:
            first(conn)
        finally:
            done.set()
        while not over.is_set() and not central.sql(WAITING):
            time.sleep(0.01)

    async def meanwhile() -> T:
        await asyncio.to_thread(done.wait)
        try:
            return await second()
        finally:
            over.set()

    _, said = await asyncio.gather(central.db.write(slowly), meanwhile())
    return said


async def refusal(central: RunningCentral, first: Work, second: Work) -> str:
    """Of `second`, beside `first`."""

    async def refused() -> str:
        try:
            await central.db.write(second)
        except PureBootError as error:
            return error.code
        return ""

    return await beside(central, first, refused)


def put_into(site: str, parent: str) -> Work:
    return lambda conn: sites.change(conn, site, SitePatch(parent_id=parent), NOW)


@pytest.mark.parametrize("turned", [False, True])
async def test_two_sites_put_into_each_other_at_once_make_no_circle(central: RunningCentral, turned: bool) -> None:
    for name, parent in (("house", None), ("attic", None), ("chest", "attic")):
        await central.new_site(name, parent_id=parent)
    moves = [put_into("house", "chest"), put_into("attic", "house")]
    assert await refusal(central, *(moves[::-1] if turned else moves)) == "circle"


def added(name: str) -> Work:
    return lambda conn: people.add(conn, name, Role.ADMIN, "a hash", NOW)


def demoted(name: str) -> Work:
    return lambda conn: people.change(conn, name, NOW, role=Role.VIEWER)


def disabled(name: str) -> Work:
    return lambda conn: people.change(conn, name, NOW, disabled=True)


def removed(name: str) -> Work:
    return lambda conn: people.remove(conn, name)


@pytest.mark.parametrize("second", [demoted, disabled, removed])
@pytest.mark.parametrize("first", [demoted, disabled, removed])
async def test_of_two_administrators_who_go_at_once_one_stays(
    central: RunningCentral, first: Callable[[str], Work], second: Callable[[str], Work]
) -> None:
    for name in ("kim", "lee"):
        await central.db.write(added(name))
    assert await refusal(central, first("kim"), second("lee")) == "last_admin"


async def test_of_two_administrators_tokens_revoked_at_once_one_stays(central: RunningCentral) -> None:
    await central.ask("POST", "/tokens", 201, json={"name": "second", "role": "admin"})
    revoked = [lambda conn, name=name: tokens.revoke(conn, name) for name in ("admin", "second")]
    assert await refusal(central, *revoked) == "last_admin"


async def test_of_two_tokens_made_at_once_under_one_name_one_is(central: RunningCentral) -> None:
    def made(conn: Connection) -> None:
        tokens.create(conn, TokenCreate(name="ci", role=Role.VIEWER), NOW)

    assert await refusal(central, made, made) == "name_taken"


async def test_the_forgetting_of_tombstones_holds_up_one_site_at_a_time(central: RunningCentral) -> None:
    first, second = sorted([(await central.new_site(name))["id"] for name in ("attic", "cellar")])
    held, over = threading.Event(), threading.Event()

    def has_news(conn: Connection) -> None:
        sites.change(conn, second, SitePatch(description="x"), NOW)
        settle(conn)
        begin(conn)
        held.set()
        over.wait()

    try:
        writing = asyncio.create_task(central.db.write(has_news))
        await asyncio.to_thread(held.wait)
        round = asyncio.create_task(central.housekeeping.round())
        while not central.sql(WAITING):
            await asyncio.sleep(0.01)
        await central.ask("PATCH", f"/sites/{first}", json={"description": "x"})
        assert not round.done()
    finally:
        over.set()
    await asyncio.gather(writing, round)


async def test_a_bulk_change_that_waits_for_a_node_asks_its_filter_again(central: RunningCentral) -> None:
    for name in ("attic", "cellar"):
        await central.new_site(name)
    body = {"mac_address": mac(1, 1), "home_site_id": "attic", "state": "active"}
    node = await central.ask("POST", "/nodes", 201, json=body)

    def moved_away(conn: Connection) -> None:
        nodes.edit(conn, node["id"], NodePatch(home_site_id="cellar"), NOW)

    async def reinstalled() -> Any:
        return await central.ask("POST", "/nodes/move", json={"filter": {"site": "attic"}, "state": "reprovision"})

    outcome = await beside(central, moved_away, reinstalled)
    assert (outcome["changed"], [each["code"] for each in outcome["refused"]]) == (0, ["moved_on"])
    assert (await central.node(mac(1, 1)))["state"] == "active"


def new_password(name: str) -> Work:
    return lambda conn: people.change(conn, name, NOW, password_hash="another hash")


@pytest.mark.parametrize("out", [new_password, disabled, removed])
async def test_who_is_put_out_while_signing_in_is_out(central: RunningCentral, out: Callable[[str], Work]) -> None:
    await add_person(central, "kim", "viewer")

    async def sign_in() -> int:
        return (await browser(central).post("/sign-in", data={"name": "kim", "password": PASSWORD})).status_code

    assert await beside(central, out("kim"), sign_in) == 401
    assert central.sql("SELECT name FROM person_session") == []


async def test_a_command_asked_for_while_a_new_agent_registers_waits_for_that(central: RunningCentral) -> None:
    site = (await central.new_site("attic"))["id"]
    await central.new_agent(site)
    token = (await central.ask("POST", f"/sites/{site}/agent-token", 201))["token"]

    def registers(conn: Connection) -> None:
        accounts.register_agent(conn, AgentRegistration(token=token), NOW)

    def asks(conn: Connection) -> None:
        commands.ask(conn, site, "sync", NOW)

    assert await refusal(central, registers, asks) == ""


@pytest.mark.parametrize(("second", "version"), [(b"other", 2), (b"one", 1)])
async def test_of_two_files_put_at_once_under_a_new_name_each_has_its_version(
    central: RunningCentral, second: bytes, version: int
) -> None:
    shelf = Shelf(central.folder / "content")
    uploads = [await shelf.receive(pieces(words), None) for words in (b"one", second)]
    stored: list[ContentDocument] = []

    def stores(upload: Upload) -> Work:
        return lambda conn: stored.append(content.put(conn, shelf, ContentCategory.IMAGES, "k", upload, NOW))

    assert await refusal(central, *map(stores, uploads)) == ""
    assert [(each.version, each.digest) for each in stored] == [(1, uploads[0].digest), (version, uploads[1].digest)]
    assert (await central.ask("GET", "/content"))["items"] == [stored[1].model_dump(mode="json")]
    assert [tuple(row) for row in central.sql("SELECT id, version FROM feed")] == [("images/k", version)]


async def pieces(words: bytes) -> AsyncIterator[bytes]:
    yield words
