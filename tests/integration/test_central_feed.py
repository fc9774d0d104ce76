"""What an agent is told, in which order, and when."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Connection

from pureboot.central import compaction
from pureboot.central import tables as t
from pureboot.central.positions import EVERYWHERE, publish
from pureboot.central.sql import upsert
from pureboot.wire.messages import FeedItem, WorkflowFields
from tests.support.central import RunningCentral, SetClock, SpeakingAgent

MAC = "52:54:00:aa:bb:01"


@pytest.fixture(autouse=True)
def nothing_stumbled(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A push that is rolled back and settled item by item would look the same from outside."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"] == []


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    return await central.speaking_agent((await central.new_site("attic"))["id"])


def told(items: list[FeedItem]) -> list[tuple[str, str, str]]:
    return [(item.type, item.op, item.id) for item in items]


async def test_from_the_start_everything_is_there_once(central: RunningCentral, agent: SpeakingAgent) -> None:
    workflow = await central.ask("POST", "/workflows", 201, json={"name": "w", "kernel": "images/vmlinuz"})
    await central.ask("PUT", "/content/images/vmlinuz", content=b"kernel")
    await agent.push(agent.registration("n1", MAC))
    for hostname in ("a", "b", "c"):
        await central.ask("PATCH", "/nodes/n1", json={"hostname": hostname})
    node = await central.ask("GET", "/nodes/n1")
    page = await agent.changes()
    assert told(page.items) == [
        ("workflow", "upsert", workflow["id"]),
        ("content", "upsert", "images/vmlinuz"),
        ("site", "upsert", agent.site_id),
        ("node", "upsert", "n1"),
    ]
    assert page.items[-1].doc == node
    assert page.items[-1].version == node["version"]
    assert page.items[0].doc["name"] == "w"
    assert page.items[1].doc["digest"].startswith("sha256:")
    assert not page.more


async def test_pages_follow_each_other_without_a_gap(central: RunningCentral, agent: SpeakingAgent) -> None:
    fields = WorkflowFields(name="w", kernel="images/k")
    for number in range(3):
        body = fields.model_dump() | {"name": f"w{number}"}
        await central.ask("POST", "/workflows", 201, json=body)
    await agent.push(*(agent.registration(f"n{i}", f"52:54:00:00:00:{i:02x}") for i in range(1, 6)))
    seen: list[tuple[str, str, str]] = []
    since, more = "0", True
    while more:
        page = await agent.changes(since, limit=2)
        assert len(page.items) <= 2
        seen += told(page.items)
        since, more = page.next, page.more
    assert len(seen) == len(set(seen)) == 9
    assert (await agent.changes(since)).items == []
    assert (await agent.changes(since)).next == since


async def test_a_page_of_a_thousand_files_is_one_answer(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    names = sorted(f"{category}/{n}" for category in ("images", "scripts") for n in range(500))
    file = {"digest": f"sha256:{'0' * 64}", "size": 1, "version": 1, "updated_at": clock.now(), "deleted_at": None}

    def store(conn: Connection) -> None:
        pairs = [name.split("/") for name in names]
        upsert(conn, t.content, [{"category": category, "path": path, **file} for category, path in pairs])
        for name in names:
            publish(conn, EVERYWHERE, "content", name, 1)

    await central.db.write(store)
    page = await agent.changes(limit=1000)
    assert [item.id for item in page.items] == names
    assert [f"{item.doc['category']}/{item.doc['path']}" for item in page.items] == names


async def test_an_entity_that_changes_moves_to_the_newest_position(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await agent.push(agent.registration("n1", MAC), agent.registration("n2", "52:54:00:aa:bb:02"))
    since = (await agent.changes()).next
    await central.ask("PATCH", "/nodes/n1", json={"hostname": "x"})
    page = await agent.changes(since)
    assert told(page.items) == [("node", "upsert", "n1")]
    assert told((await agent.changes()).items)[-1] == ("node", "upsert", "n1")


async def test_what_is_deleted_leaves_a_tombstone(central: RunningCentral, agent: SpeakingAgent) -> None:
    workflow = await central.ask("POST", "/workflows", 201, json={"name": "w", "kernel": "images/k"})
    await central.ask("PUT", "/content/images/k", content=b"kernel")
    await agent.push(agent.registration("n1", MAC))
    for path in (f"/workflows/{workflow['id']}", "/content/images/k", "/nodes/n1"):
        await central.ask("DELETE", path, 204)
    page = await agent.changes()
    assert told(page.items)[:2] == [("workflow", "delete", workflow["id"]), ("content", "delete", "images/k")]
    assert told(page.items)[-1] == ("node", "delete", "n1")
    assert [(item.doc, item.version) for item in page.items if item.op == "delete"] == [({}, 2)] * 3


async def test_content_put_again_after_its_deletion_is_newer_than_it(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await central.ask("PUT", "/content/images/k", content=b"one")
    await central.ask("DELETE", "/content/images/k", 204)
    await central.ask("PUT", "/content/images/k", content=b"two")
    [item] = [item for item in (await agent.changes()).items if item.type == "content"]
    assert (item.op, item.version) == ("upsert", 3)


async def test_a_node_that_moves_leaves_one_site_and_comes_to_the_other(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    other = await central.speaking_agent((await central.new_site("cellar"))["id"])
    await agent.push(agent.registration("n1", MAC))
    here, there = (await agent.changes()).next, (await other.changes()).next
    await central.ask("PATCH", "/nodes/n1", json={"home_site_id": "cellar"})
    assert told((await agent.changes(here)).items) == [("node", "moved_out", "n1")]
    assert told((await other.changes(there)).items) == [("node", "upsert", "n1")]
    await central.ask("PATCH", "/nodes/n1", json={"hostname": "x"})
    assert told((await agent.changes()).items)[-1] == ("node", "moved_out", "n1")


async def test_a_site_hears_of_its_aliases_and_conflicts(central: RunningCentral, agent: SpeakingAgent) -> None:
    await agent.push(agent.registration("n1", MAC))
    await agent.push(agent.registration("n9", MAC))
    await central.ask("DELETE", "/nodes/n1", 204)
    await agent.push(agent.step("n1", "discovered", "retired", body={"triggered_by": "node"}))
    items = {item.type: item for item in (await agent.changes()).items}
    assert (items["alias"].id, items["alias"].doc) == ("n9", {"node_id": "n1"})
    assert items["conflict"].doc["conflict_type"] == "missing_central"


async def test_a_site_hears_nothing_of_another_but_what_all_hear(central: RunningCentral, agent: SpeakingAgent) -> None:
    other = await central.speaking_agent((await central.new_site("cellar"))["id"])
    since = (await agent.changes()).next
    await other.push(other.registration("n1", MAC))
    await central.ask("PATCH", "/sites/cellar", json={"description": "damp"})
    assert (await agent.changes(since)).items == []
    await central.ask("POST", "/workflows", 201, json={"name": "w", "kernel": "images/k"})
    assert [item.type for item in (await agent.changes(since)).items] == ["workflow"]


@pytest.mark.parametrize("change", ["site", "everywhere"])
async def test_who_waits_is_woken_by_the_commit(central: RunningCentral, agent: SpeakingAgent, change: str) -> None:
    since = (await agent.changes()).next
    waiting = asyncio.create_task(agent.changes(since, wait=30))
    for _ in range(20):
        await asyncio.sleep(0)
    if change == "site":
        await central.ask("PATCH", "/sites/attic", json={"description": "dry"})
    else:
        await central.ask("POST", "/workflows", 201, json={"name": "w", "kernel": "images/k"})
    assert len((await asyncio.wait_for(waiting, 5)).items) == 1


async def test_who_waits_in_vain_gets_an_empty_page_with_the_same_cursor(agent: SpeakingAgent) -> None:
    since = (await agent.changes()).next
    page = await agent.changes(since, wait=0.01)
    assert (page.items, page.next, page.more) == ([], since, False)


async def test_who_waits_is_let_go_when_central_stops(central: RunningCentral, agent: SpeakingAgent) -> None:
    since = (await agent.changes()).next
    waiting = asyncio.create_task(agent.changes(since, wait=30))
    for _ in range(20):
        await asyncio.sleep(0)
    central.db.bell.close()
    assert (await asyncio.wait_for(waiting, 5)).items == []


@pytest.mark.parametrize(
    "since", ["x", "1", "1.", ".1", "1.2.3", "1.2.3.", "1.2.3.4.5", "-1.0", "1.٣", "9" * 30 + ".0"]
)
async def test_a_cursor_nobody_gave_out_is_400(agent: SpeakingAgent, since: str) -> None:
    answer = await agent.client.get("/api/v1/sync/changes", params={"since": since})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_cursor")


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"wait": 61}, {"wait": -1}, {"wait": "nan"}])
async def test_a_page_has_its_bounds(agent: SpeakingAgent, query: dict[str, str]) -> None:
    assert (await agent.client.get("/api/v1/sync/changes", params=query)).status_code == 422


# What was deleted long ago


KEEP = timedelta(days=30)


async def compact(central: RunningCentral, clock: SetClock) -> None:
    for scope in await central.db.read(compaction.scopes):
        await central.db.write(partial(compaction.compact, scope=scope, before=clock.now() - KEEP, now=clock.now()))


async def gone(agent: SpeakingAgent, since: str) -> None:
    answer = await agent.client.get("/api/v1/sync/changes", params={"since": since})
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "cursor_too_old")


async def test_a_deletion_is_told_for_a_while_and_then_the_feed_begins_after_it(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    await agent.push(agent.registration("n1", MAC), agent.registration("n2", "52:54:00:aa:bb:02"))
    old = (await agent.changes()).next
    await central.ask("DELETE", "/nodes/n1", 204)
    told_of_it = (await agent.changes()).next
    for days in (0, 29):
        clock.advance(days * 86400)
        await compact(central, clock)
        assert told((await agent.changes(old)).items) == [("node", "delete", "n1")]
    clock.advance(2 * 86400)
    await compact(central, clock)
    await gone(agent, old)
    assert (await agent.changes(told_of_it)).items == []
    assert told((await agent.changes()).items) == [("site", "upsert", agent.site_id), ("node", "upsert", "n2")]


async def test_a_deletion_for_everybody_is_forgotten_too(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    workflow = await central.ask("POST", "/workflows", 201, json={"name": "w", "kernel": "images/k"})
    old = (await agent.changes()).next
    await central.ask("DELETE", f"/workflows/{workflow['id']}", 204)
    await compact(central, clock)
    clock.advance(31 * 86400)
    await compact(central, clock)
    await gone(agent, old)


async def test_a_walk_from_the_start_is_never_cut_off_by_what_is_older_than_it(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    await agent.push(*(agent.registration(f"n{i}", f"52:54:00:00:00:{i:02x}") for i in range(1, 6)))
    await central.ask("DELETE", "/nodes/n5", 204)
    await compact(central, clock)
    since = (await agent.changes(limit=1)).next
    clock.advance(31 * 86400)
    await compact(central, clock)
    seen, more = [], True
    while more:
        page = await agent.changes(since, limit=1)
        seen += told(page.items)
        since, more = page.next, page.more
    assert [id for _, _, id in seen] == ["n1", "n2", "n3", "n4"]
    assert since.count(".") == 1


async def test_a_walk_meets_what_was_deleted_after_it_began_or_begins_again(
    central: RunningCentral, agent: SpeakingAgent, clock: SetClock
) -> None:
    await agent.push(*(agent.registration(f"n{i}", f"52:54:00:00:00:{i:02x}") for i in range(1, 4)))
    since = (await agent.changes(limit=2)).next
    await central.ask("DELETE", "/nodes/n1", 204)
    assert ("node", "delete", "n1") in told((await agent.changes(since)).items)
    await compact(central, clock)
    clock.advance(31 * 86400)
    await compact(central, clock)
    await gone(agent, since)


async def test_a_cursor_beyond_the_end_is_of_a_central_that_was_lost(agent: SpeakingAgent) -> None:
    await gone(agent, "1000000.0")
    await gone(agent, "0.1000000")
