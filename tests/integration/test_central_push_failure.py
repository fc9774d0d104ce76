"""A push that central stumbles over: nothing half applied, and the bad item alone waits."""

from typing import Any

import psycopg
import pytest

from pureboot.wire.messages import PushAnswer
from tests.support.central import RunningCentral, SpeakingAgent


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    return await central.speaking_agent((await central.new_site("attic"))["id"])


def poison(central: RunningCentral, item: dict[str, Any]) -> None:
    """An event of this id is there already, without its receipt: central's second guard throws."""
    central.sql(
        "INSERT INTO node_event (id, node_id, event, message, metadata, attempt, occurred_at, recorded_at, site_id)"
        " SELECT :id, id, '', '', '{}', 0, '2026-01-01 00:00:00', '2026-01-01 00:00:00', '' FROM node LIMIT 1",
        id=item["id"],
    )


def count(central: RunningCentral, table: str) -> int:
    return int(central.sql(f"SELECT count(*) FROM {table}")[0][0])


def outcomes(answer: PushAnswer) -> list[str]:
    return [result.outcome.value for result in answer.results]


async def two_nodes(agent: SpeakingAgent) -> None:
    await agent.push(agent.registration("n1", "52:54:00:aa:bb:01"), agent.registration("n2", "52:54:00:aa:bb:02"))


async def test_the_bad_item_waits_with_what_follows_it_in_its_lane(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await two_nodes(agent)
    before = agent.event("n1", "before")
    bad = agent.event("n1", "bad")
    after = agent.event("n1", "after")
    other = agent.event("n2", "other")
    poison(central, bad)
    answer = await agent.push(before, other, bad, after)
    assert outcomes(answer) == ["applied", "applied", "retry_later", "retry_later"]
    reasons = [(result.reason or "").partition(":")[0] for result in answer.results]
    assert reasons == ["", "", "error", "blocked"]
    assert [event["event"] for event in (await central.ask("GET", "/nodes/n2/events"))["items"]] == ["other"]


async def test_of_a_node_that_several_items_moved_the_answer_tells_the_last_state(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    """Also where it was put together from the answers to its parts."""
    await two_nodes(agent)
    rev = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"}))["state_rev"]
    begun = agent.step("n1", "pending", "installing", 1, base=rev)
    done = agent.step("n1", "installing", "installed", 1, after=begun["id"])
    bad = agent.event("n1", "bad")
    poison(central, bad)
    answer = await agent.push(begun, done, bad)
    assert outcomes(answer) == ["applied", "applied", "retry_later"]
    assert [(node.id, node.state) for node in answer.nodes] == [("n1", "installed")]


async def test_of_a_conflict_that_several_items_joined_the_answer_tells_the_whole_chain(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await two_nodes(agent)
    rev = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"}))["state_rev"]
    await central.ask("PATCH", "/nodes/n1/state", json={"state": "discovered"})
    begun = agent.step("n1", "pending", "installing", 1, base=rev)
    done = agent.step("n1", "installing", "installed", 1, after=begun["id"])
    bad = agent.event("n1", "bad")
    poison(central, bad)
    answer = await agent.push(begun, done, bad)
    assert outcomes(answer) == ["conflict", "conflict", "retry_later"]
    assert [conflict.local_chain for conflict in answer.conflicts] == [[begun["id"], done["id"]]]


async def test_a_push_that_fails_leaves_nothing_of_itself(central: RunningCentral, agent: SpeakingAgent) -> None:
    await two_nodes(agent)
    bad = agent.event("n1", "bad")
    poison(central, bad)
    tables = ("sync_receipt", "node_history", "node_event", "sync_conflict", "feed")
    before = {table: count(central, table) for table in tables}
    step = agent.step("n1", "discovered", "pending", base=1, autonomy="full", after=bad["id"])
    assert outcomes(await agent.push(bad, step)) == ["retry_later", "retry_later"]
    assert {table: count(central, table) for table in tables} == before


async def test_what_waits_takes_effect_once_the_trouble_is_gone(central: RunningCentral, agent: SpeakingAgent) -> None:
    await two_nodes(agent)
    bad = agent.event("n1", "bad")
    poison(central, bad)
    await agent.push(bad)
    central.sql("DELETE FROM node_event")
    assert outcomes(await agent.push(bad)) == ["applied"]
    assert outcomes(await agent.push(bad)) == ["duplicate"]


async def test_every_settled_item_has_a_receipt_and_nothing_else_has(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await two_nodes(agent)
    bad, unknown = agent.event("n1", "bad"), agent.event("nobody", "x")
    poison(central, bad)
    await agent.push(bad, unknown, agent.event("n2", "y"))
    found = central.sql("SELECT outcome, count(*) FROM sync_receipt GROUP BY outcome ORDER BY 1")
    assert [tuple(row) for row in found] == [("applied", 3), ("rejected", 1)]


def take_away(central: RunningCentral, database: str) -> None:
    """PostgreSQL becomes a standby, as after a failover; SQLite loses a table."""
    if not database:
        central.sql("ALTER TABLE sync_receipt RENAME TO gone")
        return
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET default_transaction_read_only = on".encode())
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_trouble_of_the_database_itself_counts_against_no_item(
    central: RunningCentral, agent: SpeakingAgent, database: str
) -> None:
    await two_nodes(agent)
    take_away(central, database)
    answer = await agent.post(agent.event("n1", "x"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
    assert int(answer.headers["retry-after"]) > 0


async def test_a_receipt_tells_what_later_stages_need(central: RunningCentral, agent: SpeakingAgent) -> None:
    await two_nodes(agent)
    rev = (await central.ask("PATCH", "/nodes/n1/state", json={"state": "pending"}))["state_rev"]
    item = agent.step("n1", "pending", "installing", 1, base=rev)
    await agent.push(item)
    [found] = central.sql("SELECT * FROM sync_receipt WHERE item_id = :id", id=item["id"])
    row = found._asdict()
    expected = {"epoch": "e1", "seq": item["seq"], "lane": "n1", "autonomy": "limited", "base_state_rev": rev}
    assert row | expected == row
    assert (row["outcome"], row["expected_rev"], row["result_version"]) == ("applied", rev + 1, 3)
