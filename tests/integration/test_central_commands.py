"""What a person asks of a site's agent: it is not lost with an answer, and said once what became of it."""

import asyncio
from typing import Any

import pytest

from tests.support.central import RunningCentral, SetClock, SpeakingAgent

OBEYS = ["discard", "invalidate", "requeue", "sync"]
FAILED = {
    "id": "i1",
    "lane": "n1",
    "item_type": "event",
    "attempts": 3,
    "last_error": "poison",
    "created_at": "2026-01-28T12:00:00Z",
}


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    return await central.speaking_agent((await central.new_site("attic"))["id"])


async def beat(agent: SpeakingAgent, done: dict[str, str] | None = None, **report: Any) -> list[dict[str, Any]]:
    """What central asks for in its answer. `done`: outcome by the id of a command."""
    told = [{"id": id, "outcome": outcome, "message": "so it was"} for id, outcome in (done or {}).items()]
    metrics = {"version": "9", "report": {"obeys": OBEYS, "commands_done": told, **report}}
    return await _beat(agent, metrics)


async def _beat(agent: SpeakingAgent, metrics: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await agent.client.post("/api/v1/agents/heartbeat", json={"agent_id": agent.id, "metrics": metrics})
    assert answer.status_code == 200, answer.text
    commands: list[dict[str, Any]] = answer.json()["commands"]
    return commands


async def ask(central: RunningCentral, path: str, **body: Any) -> str:
    return str((await central.ask("POST", f"/sites/attic/{path}", 202, json=body or None))["id"])


async def asked(central: RunningCentral) -> list[tuple[str, str | None, str]]:
    queue = await central.ask("GET", "/sites/attic/queue")
    return [(command["command"], command["outcome"], command["message"]) for command in queue["commands"]]


async def test_the_queue_is_seen_from_afar(central: RunningCentral, agent: SpeakingAgent) -> None:
    assert (await central.ask("GET", "/sites/attic/queue"))["told_at"] is None
    metrics = {"pending_queue_items": 7, "failed_queue_items": 1, "report": {"epoch": "e7", "failed_items": [FAILED]}}
    await _beat(agent, metrics)
    queue = await central.ask("GET", "/sites/attic/queue")
    assert (queue["pending"], queue["failed"], queue["epoch"]) == (7, 1, "e7")
    assert queue["items"] == [FAILED]
    assert queue["told_at"] == "2026-01-28T12:00:00Z"


async def test_more_than_a_page_and_longer_than_a_line_is_cut(central: RunningCentral, agent: SpeakingAgent) -> None:
    many = [FAILED | {"id": f"i{n}", "last_error": "x\n" * 5000} for n in range(60)]
    await beat(agent, failed_items=many)
    items = (await central.ask("GET", "/sites/attic/queue"))["items"]
    assert (len(items), len(items[0]["last_error"]) <= 500) == (50, True)
    assert "\n" not in items[0]["last_error"]


async def test_a_command_is_handed_out_until_the_agent_says_what_became_of_it(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    id = await ask(central, "queue/i1/discard", reason="swapped")
    # Asked for again while it waits, it is the same one.
    assert await ask(central, "queue/i1/discard", reason="again") == id
    for _ in range(2):  # the first answer was lost on its way
        [command] = await beat(agent)
        assert command == {
            "id": id,
            "command": "discard",
            "item_id": "i1",
            "name": "",
            "reason": "swapped",
            "person": "admin",
        }
    assert await asked(central) == [("discard", None, "")]
    assert await beat(agent, {id: "done"}) == []
    assert await beat(agent, {id: "refused"}) == []  # told late, by a request that was long on its way
    assert await asked(central) == [("discard", "done", "so it was")]
    assert await ask(central, "queue/i1/discard") != id


async def test_an_agent_of_before_syncs_once_and_is_asked_for_nothing_it_does_not_know(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    await ask(central, "sync")
    await ask(central, "queue/i1/requeue")
    [command] = await _beat(agent, {"version": "8"})
    assert command["command"] == "sync"
    assert await _beat(agent, {"version": "8"}) == []
    assert [(name, outcome) for name, outcome, _ in await asked(central)] == [("requeue", "unknown"), ("sync", "done")]
    assert "too old" in (await asked(central))[0][2]


async def test_a_command_waits_for_the_agent_that_replaces_this_one(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    id = await ask(central, "queue/i1/requeue")
    await beat(agent)
    newer = await central.speaking_agent("attic")
    assert [command["id"] for command in await beat(newer)] == [id]
    await beat(newer, {id: "refused"})
    assert await asked(central) == [("requeue", "refused", "so it was")]


async def test_what_another_sites_agent_says_counts_for_nothing(central: RunningCentral, agent: SpeakingAgent) -> None:
    stranger = await central.speaking_agent((await central.new_site("cellar"))["id"])
    id = await ask(central, "queue/i1/requeue")
    assert await beat(stranger, {id: "done"}) == []
    assert await asked(central) == [("requeue", None, "")]


async def test_without_an_agent_there_is_nobody_to_ask(central: RunningCentral) -> None:
    await central.new_site("attic")
    answer = await central.ask("POST", "/sites/attic/queue/i1/requeue", 409)
    assert answer["error"]["code"] == "no_agent"


async def test_a_crowd_of_commands_is_refused(central: RunningCentral, agent: SpeakingAgent) -> None:
    for n in range(500):
        central.sql(
            "INSERT INTO site_command (id, site_id, command, item_id, name, reason, person, asked_at, message)"
            " VALUES (:id, :site, 'requeue', :id, '', '', '', '2026-01-28 12:00:00+00:00', '')",
            id=f"c{n}",
            site=agent.site_id,
        )
    answer = await central.ask("POST", "/sites/attic/queue/i1/requeue", 409)
    assert answer["error"]["code"] == "too_many_commands"
    assert len(await beat(agent)) == 100


async def test_a_waiting_command_ends_the_long_poll_of_an_agent_that_beats_for_it(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    end = (await agent.changes()).next
    poll = asyncio.create_task(agent.changes(end, wait=60, beats=True))
    old = asyncio.create_task(agent.changes(end, wait=1))
    await asyncio.sleep(0.2)
    await ask(central, "queue/i1/requeue")
    async with asyncio.timeout(30):
        page = await poll
    assert (page.beat, page.items, page.next) == (True, [], end)
    assert (await agent.changes(end, wait=60, beats=True)).beat  # whoever asks later, too
    await beat(agent)
    assert not (await agent.changes(end, wait=0, beats=True)).beat
    # An agent of before waits as long as it always did: it would ask again and again.
    assert not (await old).beat


async def test_what_is_done_is_forgotten_in_time(
    central: RunningCentral, clock: SetClock, agent: SpeakingAgent
) -> None:
    from pureboot.central import commands

    done, waiting = await ask(central, "queue/i1/requeue"), await ask(central, "queue/i2/requeue")
    await beat(agent, {done: "done"})
    clock.advance(31 * 86_400)
    await central.db.write(lambda conn: commands.forget(conn, clock.now()))
    queue = await central.ask("GET", "/sites/attic/queue")
    assert [command["id"] for command in queue["commands"]] == [waiting]
