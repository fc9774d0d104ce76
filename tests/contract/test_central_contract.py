"""What an agent relies on in a central, asked of the fake in tests/fakes.py and of the real one alike."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import httpx2
import pytest

from pureboot.agent.central_client import CentralClient, http_client
from pureboot.core.errors import Clash, Unauthenticated
from pureboot.core.lifecycle import NodeState
from pureboot.core.reconcile import Strategy
from pureboot.wire.messages import (
    Base,
    EpochAccount,
    NodeDocument,
    Outcome,
    PushAnswer,
    PushItem,
    PushRequest,
    PushResult,
    SessionGrant,
    SessionRequest,
)
from tests.fakes import FakeCentral
from tests.support.central import BASE_URL, RunningCentral, running_central
from tests.support.parts import MAC, OTHER_MAC

S = NodeState


class Central(Protocol):
    """Central from behind: what an administrator sees and does, and how an agent reaches it."""

    agent_id: str
    credential: str

    def transport(self) -> httpx2.AsyncBaseTransport: ...

    async def add(self, mac: str, state: NodeState) -> str: ...

    async def move(self, node_id: str, state: NodeState) -> None: ...

    async def node(self, node_id: str) -> NodeDocument: ...


class Fake:
    def __init__(self, strategy: Strategy) -> None:
        self.agent_id = "a1"
        self.credential = "secret"
        self._central = FakeCentral(credential=self.credential, strategy=strategy)
        self._ids = count(1)

    def transport(self) -> httpx2.AsyncBaseTransport:
        return self._central

    async def add(self, mac: str, state: NodeState) -> str:
        return self._central.add(f"central-{next(self._ids)}", mac, state).id

    async def move(self, node_id: str, state: NodeState) -> None:
        self._central.move(node_id, state)

    async def node(self, node_id: str) -> NodeDocument:
        return self._central.nodes[node_id]


class Real:
    def __init__(self, central: RunningCentral, agent_id: str, credential: str) -> None:
        self.agent_id = agent_id
        self.credential = credential
        self._central = central

    def transport(self) -> httpx2.AsyncBaseTransport:
        return self._central.transport()

    async def add(self, mac: str, state: NodeState) -> str:
        body = {"mac_address": mac, "home_site_id": "attic", "state": state}
        return str((await self._central.ask("POST", "/nodes", 201, json=body))["id"])

    async def move(self, node_id: str, state: NodeState) -> None:
        body = {"state": state, "force": True, "comment": "by the contract test"}
        await self._central.ask("PATCH", f"/nodes/{node_id}/state", json=body)

    async def node(self, node_id: str) -> NodeDocument:
        return NodeDocument.model_validate(await self._central.ask("GET", f"/nodes/{node_id}"))


@asynccontextmanager
async def started(which: str, folder: Path, strategy: Strategy) -> AsyncIterator[Central]:
    if which == "fake":
        yield Fake(strategy)
        return
    async with running_central(folder) as running:
        await running.new_site("attic", conflict_resolution=strategy)
        agent = await running.new_agent("attic")
        yield Real(running, agent.agent_id, agent.credential)


@pytest.fixture(params=["fake", "real"])
async def central(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Central]:
    strategy = getattr(request.function, "strategy", Strategy.CENTRAL_WINS)
    async with started(request.param, tmp_path / "central", strategy) as central:
        yield central


class Agent:
    """Speaks as an agent does, through the client an agent uses."""

    def __init__(self, central: Central, client: CentralClient) -> None:
        self._central = central
        self._client = client
        self._numbers = count(1)

    async def healthy(self) -> bool:
        return await self._client.healthy()

    async def session(self, epoch: str, *previous: str) -> SessionGrant:
        request = SessionRequest(agent_id=self._central.agent_id, epoch=epoch, previous_epochs=list(previous))
        return await self._client.open_session(request)

    async def push(self, *items: PushItem, generation: int = 1, **fields: Any) -> PushAnswer:
        values = {"agent_id": self._central.agent_id, "epoch": "e1", "generation": generation, "items": list(items)}
        request = PushRequest(**values | fields)
        return await self._client.push(request)

    def item(self, item_type: str, lane: str, body: dict[str, Any], **fields: Any) -> PushItem:
        seq = next(self._numbers)
        id = fields.pop("id", f"item-{seq}")
        return PushItem(id=id, epoch="e1", seq=seq, lane=lane, item_type=item_type, body=body, age_ms=1000, **fields)

    def registration(self, node_id: str, mac: str = MAC, **facts: str) -> PushItem:
        return self.item("registration", node_id, {"node_id": node_id, "mac_addresses": [mac], "facts": facts})

    def step(
        self, node_id: str, origin: NodeState, target: NodeState, *, rev: int | None = None, **fields: Any
    ) -> PushItem:
        if rev is not None:
            fields["base"] = Base(generation=1, state_rev=rev)
        return self.item("state_update", node_id, {"from_state": origin, "to_state": target}, **fields)

    def event(self, node_id: str, name: str = "heartbeat") -> PushItem:
        return self.item("event", node_id, {"event": name})


@asynccontextmanager
async def speaking(central: Central, credential: str | None = None) -> AsyncIterator[Agent]:
    async with http_client(BASE_URL, timeout=5, transport=central.transport()) as http:
        yield Agent(central, CentralClient(http, credential=credential or central.credential))


@pytest.fixture
async def agent(central: Central) -> AsyncIterator[Agent]:
    async with speaking(central) as agent:
        yield agent


def outcomes(answer: PushAnswer) -> list[Outcome]:
    return [result.outcome for result in answer.results]


def only(answer: PushAnswer) -> PushResult:
    (result,) = answer.results
    return result


def document(answer: PushAnswer, node_id: str) -> NodeDocument:
    (found,) = [node.doc for node in answer.nodes if node.id == node_id]
    assert found is not None
    return found


async def test_it_says_that_it_is_well(agent: Agent) -> None:
    assert await agent.healthy()


async def test_a_credential_nobody_has_opens_nothing(central: Central) -> None:
    async with speaking(central, "wrong") as stranger:
        assert await stranger.healthy()
        with pytest.raises(Unauthenticated):
            await stranger.push()


async def test_an_empty_push_is_an_answer(agent: Agent) -> None:
    answer = await agent.push()
    assert (answer.generation, answer.results) == (1, [])


async def test_another_generation_is_a_clash(agent: Agent, central: Central) -> None:
    node_id = await central.add(MAC, S.INSTALLED)
    with pytest.raises(Clash):
        await agent.push(agent.step(node_id, S.INSTALLED, S.ACTIVE, rev=1), generation=7)
    assert (await central.node(node_id)).state is S.INSTALLED


async def test_a_session_is_one_fence_until_the_next(agent: Agent, central: Central) -> None:
    first = await agent.session("e1")
    assert (await agent.session("e1")).fence == first.fence
    assert outcomes(await agent.push(agent.registration("n1"), fence=first.fence)) == [Outcome.APPLIED]
    second = await agent.session("e2", "e1")
    assert second.fence > first.fence
    node_id = await central.add(OTHER_MAC, S.INSTALLED)
    with pytest.raises(Clash) as refused:
        await agent.push(agent.step(node_id, S.INSTALLED, S.ACTIVE, rev=1), fence=first.fence)
    assert refused.value.code == "fenced"
    assert (await central.node(node_id)).state is S.INSTALLED


async def test_a_push_may_say_what_became_of_earlier_items(agent: Agent) -> None:
    account = EpochAccount(epoch="e0", made=3, settled=1, discarded=1, queued=1)
    answer = await agent.push(agent.registration("n1"), epoch_accounts=[account])
    assert outcomes(answer) == [Outcome.APPLIED]


@pytest.mark.parametrize("lane", ["n1", "a node nobody knows"])
async def test_what_a_person_gave_up_is_noted(agent: Agent, lane: str) -> None:
    await agent.push(agent.registration("n1"))
    body = {"item_id": "i9", "item_type": "event", "lane": lane, "reason": "swapped", "person": "ada"}
    assert outcomes(await agent.push(agent.item("discard", lane, body))) == [Outcome.APPLIED]


async def test_a_new_machine_keeps_the_id_its_site_gave_it(agent: Agent, central: Central) -> None:
    answer = await agent.push(agent.registration("n1", vendor="QEMU"))
    assert (only(answer).outcome, only(answer).canonical_id) == (Outcome.APPLIED, "n1")
    told = document(answer, "n1")
    assert (told.state, told.attempt, told.version, told.state_rev) == (S.DISCOVERED, 0, 1, 1)
    assert told == await central.node("n1")
    assert (told.mac_addresses, told.facts) == ([MAC], {"vendor": "QEMU"})


async def test_a_machine_central_knows_keeps_centrals_id(agent: Agent, central: Central) -> None:
    theirs = await central.add(MAC, S.ACTIVE)
    answer = await agent.push(agent.registration("n1"))
    assert only(answer).canonical_id == theirs
    assert document(answer, theirs).state is S.ACTIVE
    answer = await agent.push(agent.event("n1"))
    assert outcomes(answer) == [Outcome.APPLIED]
    assert [node.id for node in answer.nodes] == [theirs]


async def test_an_edge_on_the_revision_it_was_made_on_is_applied(agent: Agent, central: Central) -> None:
    node_id = await central.add(MAC, S.INSTALLED)
    rev = (await central.node(node_id)).state_rev
    answer = await agent.push(agent.step(node_id, S.INSTALLED, S.ACTIVE, rev=rev))
    assert outcomes(answer) == [Outcome.APPLIED]
    told = document(answer, node_id)
    assert (told.state, told.state_rev) == (S.ACTIVE, rev + 1)
    assert told == await central.node(node_id)


async def test_a_chain_in_one_push_is_made_link_by_link(agent: Agent, central: Central) -> None:
    node_id = await central.add(MAC, S.PENDING)
    rev = (await central.node(node_id)).state_rev
    begun = agent.item(
        "state_update",
        node_id,
        {"from_state": "pending", "to_state": "installing", "attempt": 1},
        base=Base(generation=1, state_rev=rev),
    )
    done = agent.item(
        "state_update", node_id, {"from_state": "installing", "to_state": "installed", "attempt": 1}, after=begun.id
    )
    answer = await agent.push(begun, agent.event(node_id), done)
    assert outcomes(answer) == [Outcome.APPLIED] * 3
    told = document(answer, node_id)
    assert (told.state, told.attempt, told.state_rev) == (S.INSTALLED, 1, rev + 2)


async def test_a_push_that_is_repeated_has_no_second_effect(agent: Agent, central: Central) -> None:
    items = [agent.registration("n1", vendor="QEMU"), agent.event("n1")]
    first = await agent.push(*items)
    for again in (await agent.push(*items), await agent.push(items[1]), await agent.push(items[0])):
        assert {result.outcome for result in again.results} == {Outcome.DUPLICATE}
        assert {result.first for result in again.results} == {Outcome.APPLIED}
        assert document(again, "n1") == document(first, "n1")


async def test_an_edge_applied_once_stays_applied_whatever_came_later(agent: Agent, central: Central) -> None:
    node_id = await central.add(MAC, S.INSTALLED)
    step = agent.step(node_id, S.INSTALLED, S.ACTIVE, rev=(await central.node(node_id)).state_rev)
    await agent.push(step)
    await central.move(node_id, S.REPROVISION)
    again = await agent.push(step)
    assert (only(again).outcome, only(again).first) == (Outcome.DUPLICATE, Outcome.APPLIED)
    assert document(again, node_id).state is S.REPROVISION


async def test_an_id_used_for_something_else_is_rejected(agent: Agent, central: Central) -> None:
    await agent.push(agent.registration("n1"))
    event = agent.event("n1", "one")
    await agent.push(event)
    answer = await agent.push(event.model_copy(update={"body": {"event": "another"}}))
    assert only(answer).outcome is Outcome.REJECTED
    assert str(only(answer).reason).startswith("id_reuse")


async def test_central_is_there_already(agent: Agent, central: Central) -> None:
    node_id = await central.add(MAC, S.INSTALLED)
    rev = (await central.node(node_id)).state_rev
    await central.move(node_id, S.ACTIVE)
    answer = await agent.push(agent.step(node_id, S.INSTALLED, S.ACTIVE, rev=rev))
    assert outcomes(answer) == [Outcome.APPLIED]
    assert document(answer, node_id).state_rev == rev + 1


async def test_what_both_sides_changed_is_a_conflict_and_central_wins(agent: Agent, central: Central) -> None:
    node_id = await central.add(MAC, S.INSTALLED)
    rev = (await central.node(node_id)).state_rev
    await central.move(node_id, S.REPROVISION)
    answer = await agent.push(agent.step(node_id, S.INSTALLED, S.ACTIVE, rev=rev))
    assert (only(answer).outcome, only(answer).resolution) == (Outcome.CONFLICT, "keep_central")
    (conflict,) = answer.conflicts
    assert (conflict.id, conflict.node_id, conflict.node_mac) == (only(answer).conflict_id, node_id, MAC)
    assert (conflict.local_state, conflict.central_state, conflict.resolved) == ("active", "reprovision", True)
    assert document(answer, node_id).state is S.REPROVISION


async def test_what_both_sides_changed_waits_for_a_person(agent: Agent, central: Central) -> None:
    node_id = await central.add(MAC, S.INSTALLED)
    rev = (await central.node(node_id)).state_rev
    await central.move(node_id, S.REPROVISION)
    answer = await agent.push(agent.step(node_id, S.INSTALLED, S.ACTIVE, rev=rev))
    assert (only(answer).outcome, only(answer).resolution) == (Outcome.CONFLICT, None)
    (conflict,) = answer.conflicts
    assert (conflict.status, conflict.resolved, conflict.resolution) == ("pending", False, None)
    assert document(answer, node_id).state is S.REPROVISION


test_what_both_sides_changed_waits_for_a_person.strategy = Strategy.MANUAL  # type: ignore[attr-defined]


async def test_another_attempt_is_another_place(agent: Agent, central: Central) -> None:
    node_id = await central.add(MAC, S.PENDING)
    rev = (await central.node(node_id)).state_rev
    body = {"from_state": "installing", "from_attempt": 2, "to_state": "installed", "attempt": 2}
    answer = await agent.push(agent.item("state_update", node_id, body, base=Base(generation=1, state_rev=rev)))
    assert outcomes(answer) == [Outcome.REJECTED]
    assert (await central.node(node_id)).state is S.PENDING


@pytest.mark.parametrize(
    ("item_type", "body"),
    [
        ("state_update", {"from_state": "active", "to_state": "discovered"}),
        ("state_update", {"from_state": "installed", "to_state": "sleeping"}),
        ("state_update", {"node_id": "n1", "to_state": "active"}),
        ("registration", {"node_id": "n1", "mac_addresses": ["nonsense"]}),
        ("event", {}),
        ("a type nobody knows", {}),
    ],
)
async def test_one_bad_item_is_rejected_with_its_reason_and_the_others_go_on(
    agent: Agent, central: Central, item_type: str, body: dict[str, Any]
) -> None:
    node_id = await central.add(MAC, S.INSTALLED)
    rev = (await central.node(node_id)).state_rev
    bad = agent.item(item_type, node_id, body, base=Base(generation=1, state_rev=rev))
    good = agent.registration("n2", OTHER_MAC)
    answer = await agent.push(bad, good)
    assert [result.id for result in answer.results] == [bad.id, good.id]
    assert outcomes(answer) == [Outcome.REJECTED, Outcome.APPLIED]
    assert answer.results[0].reason
    assert (await central.node(node_id)).state is S.INSTALLED


async def test_a_node_nobody_knows_has_no_history(agent: Agent) -> None:
    answer = await agent.push(agent.event("n9"), agent.step("n9", S.INSTALLED, S.ACTIVE, rev=1))
    assert outcomes(answer) == [Outcome.REJECTED] * 2
    assert all(str(result.reason).startswith("unknown_node") for result in answer.results)
    assert answer.nodes == []


async def test_the_chain_goes_on_after_a_rejected_link(agent: Agent, central: Central) -> None:
    node_id = await central.add(MAC, S.INSTALLED)
    rev = (await central.node(node_id)).state_rev
    bad = agent.step(node_id, S.INSTALLED, S.DISCOVERED, rev=rev)
    good = agent.step(node_id, S.INSTALLED, S.ACTIVE, after=bad.id)
    assert outcomes(await agent.push(bad, good)) == [Outcome.REJECTED, Outcome.APPLIED]


async def test_an_events_node_does_not_move(agent: Agent, central: Central) -> None:
    node_id = await central.add(MAC, S.RETIRED)
    answer = await agent.push(agent.event(node_id, "install_complete"))
    assert outcomes(answer) == [Outcome.APPLIED]
    assert document(answer, node_id).state is S.RETIRED
