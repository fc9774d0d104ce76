"""What central does not take on: too many pushes at once, and too large ones."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from tests.support.central import RunningCentral, SpeakingAgent, running_central


@pytest.fixture
async def central(tmp_path: Path) -> AsyncIterator[RunningCentral]:
    async with running_central(tmp_path / "central", max_pushes=1, max_body_bytes=10_000) as running:
        yield running


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    return await central.speaking_agent((await central.new_site("attic"))["id"])


async def test_of_pushes_at_once_some_are_told_when_to_come_again(agent: SpeakingAgent) -> None:
    items = [agent.registration(f"n{i}", f"52:54:00:00:00:{i:02x}") for i in range(8)]
    answers = await asyncio.gather(*(agent.post(item) for item in items))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 8
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    again = [(await agent.push(item)).results[0].outcome.value for item in items]
    assert again.count("duplicate") == 8 - len(refused)


async def test_a_person_who_writes_has_no_row_of_pushes_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_central(tmp_path / "roomy") as central:
        agent = await central.speaking_agent((await central.new_site("attic"))["id"])
        held, written = threading.Event(), []
        holding = asyncio.create_task(central.db.write(lambda _: held.wait(60)))
        write = central.db.write

        async def noted(work: Callable[[Connection], Any]) -> Any:
            written.append("a push" if "Ingest" in work.__qualname__ else "a person")
            return await write(work)

        monkeypatch.setattr(central.db, "write", noted)
        items = [agent.registration(f"n{i}", f"52:54:00:00:00:{i:02x}") for i in range(10)]
        answered: list[str] = []

        async def told(what: str, sent: Coroutine[Any, Any, object]) -> None:
            await sent
            answered.append(what)

        gate = central.app.state.services.gate
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(told("a push", agent.post(item)))
            while not gate.after_ms():  # more than half of what is let in: all of ours but one
                await asyncio.sleep(0.01)
            group.create_task(told("a person", central.new_site("cellar")))
            while "a person" not in written:
                await asyncio.sleep(0.01)
            held.set()
        await holding
        assert answered.index("a person") <= 2


async def test_a_push_that_is_too_large_is_413_and_applies_nothing(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    items = [agent.registration(f"n{i}", f"52:54:00:00:00:{i:02x}", facts={"model": "m" * 200}) for i in range(50)]
    answer = await agent.post(*items)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert (await central.ask("GET", "/nodes"))["items"] == []
    assert len((await agent.push(*items[:20])).results) == 20


async def test_a_push_without_a_credential_takes_nobodys_place(central: RunningCentral, agent: SpeakingAgent) -> None:
    nobody = central.client("nonsense")
    strangers = [nobody.post("/api/v1/sync/push", content=b"{") for _ in range(20)]
    own, *others = await asyncio.gather(agent.post(), *strangers)
    assert own.status_code == 200
    assert {answer.status_code for answer in others} == {401}


async def test_a_site_that_is_removed_while_its_agent_waits_for_news(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    since = (await agent.changes()).next
    waiting = asyncio.create_task(agent.client.get("/api/v1/sync/changes", params={"since": since, "wait": 1}))
    await asyncio.sleep(0)
    await central.ask("DELETE", "/sites/attic", 204)
    assert (await waiting).status_code == 401
