"""What one of the databases cannot hold is said or made harmless at the edge, never a stumble."""

from typing import Any

import pytest

from tests.support.central import RunningCentral, SpeakingAgent

MAC = "52:54:00:aa:bb:01"


@pytest.fixture
async def agent(central: RunningCentral) -> SpeakingAgent:
    return await central.speaking_agent((await central.new_site("attic"))["id"])


async def test_the_character_0_becomes_a_sign_that_something_was_there(
    central: RunningCentral, agent: SpeakingAgent
) -> None:
    item = agent.registration("n1", MAC, facts={"serial_number": "S\0001"}, epoch="e\0001")
    body = {"event": "odd", "message": "a\0b", "metadata": {"k\0": ["\0"]}}
    event = agent.item("event", "n1", body)
    answer = await agent.push(item, event)
    assert [result.outcome.value for result in answer.results] == ["applied", "applied"]
    again = await agent.push(item, event)
    assert [result.outcome.value for result in again.results] == ["duplicate", "duplicate"]
    [kept] = (await central.ask("GET", "/nodes/n1/events"))["items"]
    assert kept["metadata"] == {"k\N{REPLACEMENT CHARACTER}": ["\N{REPLACEMENT CHARACTER}"]}


@pytest.mark.parametrize(
    "path", ["/nodes/n%00", "/nodes?site=%00", "/sites/%00", "/sites/%00/health", "/workflows/%00"]
)
async def test_an_address_with_the_character_0_leads_nowhere(central: RunningCentral, path: str) -> None:
    await central.ask("GET", path, 404)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sites", {"name": "x", "cache_retention_days": 2**40}),
        ("/sites", {"name": "x" * 201}),
        ("/workflows", {"name": "w", "kernel": "images/k", "architecture": "x" * 5000}),
        ("/nodes", {"mac_address": MAC, "home_site_id": "attic", "hostname": "h" * 256}),
        ("/nodes", {"mac_address": MAC, "home_site_id": "attic", "group_id": "g" * 201}),
    ],
)
async def test_what_is_too_large_is_422(
    central: RunningCentral, agent: SpeakingAgent, path: str, body: dict[str, Any]
) -> None:
    assert (await central.ask("POST", path, 422, json=body))["error"]["code"] == "invalid"


async def test_numbers_as_large_as_the_wire_allows_are_held(central: RunningCentral, agent: SpeakingAgent) -> None:
    biggest = 2**63 - 1
    item = agent.registration("n1", MAC, age_ms=biggest, u_ms=biggest) | {"seq": biggest}
    item["base"] = {"generation": biggest, "state_rev": biggest}
    assert [result.outcome.value for result in (await agent.push(item)).results] == ["applied"]
