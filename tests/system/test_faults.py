"""Whatever is done to the processes and the lines: what a machine was promised is at central once, and in order."""

import asyncio
import contextlib
import os
import random
import time
import uuid
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import chain
from pathlib import Path

import httpx2
import pytest

from pureboot.core.lifecycle import NodeState
from pureboot.wire.messages import NodeDocument, WorkflowFields
from tests.support.faults import Havoc, Plan
from tests.support.fleet import Fleet, Site, running_fleet, until
from tests.support.programs import Program
from tests.support.reporter import Reporter
from tests.support.verdict import nothing_else_is_there, nothing_is_wrong, what_was_promised_is_there

pytestmark = pytest.mark.timeout(900)

SITES = ("attic", "barn", "cellar", "den", "entry")
# Seconds in which something is always broken.
RAGE = 18.0
# The longest a machine has nothing to say, and what it says beside its edges.
PACE = 0.6
CHATTER = 16


async def test_processes_die_and_lines_break_and_nothing_is_lost_doubled_or_turned_round(
    tmp_path: Path, database: str
) -> None:
    """FAULTS_SEED names the faults to be done again."""
    seed = os.environ.get("FAULTS_SEED") or str(random.randrange(10**6))
    print(f"FAULTS_SEED={seed}")  # noqa: T201
    async with running_fleet(tmp_path, SITES, database) as fleet:
        havoc = Havoc(fleet, Plan(seed, RAGE))
        try:
            workflow = await install(fleet)
            lives = await asyncio.gather(*(lives_of(fleet, site, workflow, seed) for site in fleet.sites))
            nodes = [node for site in fleet.sites for node in (await fleet.admin.nodes(site.name)).values()]
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for life in chain.from_iterable(lives):
                    group.create_task(life())
                tinkering = group.create_task(tinker(fleet, nodes, random.Random(seed)))
                await havoc.rages()
                tinkering.cancel()
            healed = time.monotonic()
            await fleet.drained()
            acknowledged, drained = len(fleet.ledger.acknowledged), time.monotonic()
            print(f"{acknowledged} acknowledged in {healed - began:.1f} s, drained after {drained - healed:.1f} s")  # noqa: T201
            await what_was_promised_is_there(fleet)
            await everyone_starts_anew_and_has_a_last_word(fleet)
            await what_was_promised_is_there(fleet)
            await nothing_else_is_there(fleet)
            await nothing_is_wrong(fleet)
        except BaseException as error:
            error.add_note("\n".join([f"FAULTS_SEED={seed}", *havoc.told]))
            raise


Life = Callable[[], Coroutine[None, None, None]]


async def lives_of(fleet: Fleet, site: Site, workflow: str, seed: str) -> list[Life]:
    """Of ten machines: three are installed, four are moved in, three are new."""
    reporters = [fleet.reporter(site, number, seed, pace=PACE) for number in range(10)]
    lives: list[Life] = []
    for reporter in reporters[:3]:
        node_id = await fleet.import_node(site, reporter.mac, NodeState.PENDING, workflow_id=workflow)
        lives.append(partial(is_installed, reporter, node_id))
    for reporter in reporters[3:7]:
        node_id = await fleet.import_node(site, reporter.mac, NodeState.CLONING_TARGET)
        lives.append(partial(moves_in, reporter, node_id))
    await holds_content(site)
    return [*lives, *(partial(appears, reporter) for reporter in reporters[7:])]


async def is_installed(reporter: Reporter, node_id: str) -> None:
    """The power fails once in the middle."""
    token = ""
    for attempt in (1, 2):
        await reporter.chatters(node_id, CHATTER // 4, token)
        token = await reporter.boots_into_its_install(attempt)
        await reporter.says("install_started", token)
        await reporter.says("install_progress", token)
    await reporter.says("install_complete", token)
    await reporter.chatters(node_id, CHATTER // 4)
    await reporter.says("first_boot")
    await reporter.chatters(node_id, CHATTER // 4)


async def moves_in(reporter: Reporter, node_id: str) -> None:
    await reporter.chatters(node_id, CHATTER // 3)
    await reporter.says("install_complete")
    await reporter.chatters(node_id, CHATTER // 3)
    await reporter.becomes(node_id, NodeState.ACTIVE)
    await reporter.chatters(node_id, CHATTER // 3)


async def appears(reporter: Reporter) -> None:
    node_id = await reporter.registers()
    await reporter.chatters(node_id, CHATTER)


async def install(fleet: Fleet) -> str:
    """A workflow of two small files; its id."""
    files = ["images/linux", "images/initrd"]
    for name in files:
        await fleet.admin.put_content(name, name.encode())
    fields = WorkflowFields(name=str(uuid.uuid4()), kernel=files[0], initrd=[files[1]], cmdline="quiet")
    return await fleet.admin.create_workflow(fields)


async def holds_content(site: Site) -> None:
    async def held() -> bool:
        return len((await site.machine.get("/api/v1/agent/cache")).json()["items"]) == 2

    await until(f"{site.name} holds the content", held)


async def tinker(fleet: Fleet, nodes: list[NodeDocument], chance: random.Random) -> None:
    """An administrator at central edits what is the administrator's, and has no luck while central is down."""
    async with fleet.central.admin() as admin:
        while True:
            node = chance.choice(nodes)
            with contextlib.suppress(httpx2.TransportError):
                answer = await admin.patch(f"/api/v1/nodes/{node.id}", json={"tags": [str(uuid.uuid4())]}, timeout=2)
                assert answer.is_success or answer.status_code >= 500, answer.text
            await asyncio.sleep(0.2)


async def everyone_starts_anew_and_has_a_last_word(fleet: Fleet) -> None:
    """With it goes to central what became of all that was said before."""
    async with asyncio.TaskGroup() as group:
        for program in fleet.programs:
            group.create_task(killed_and_started(program))
    await asyncio.gather(*(fleet.reporter(site, 0).says("last word") for site in fleet.sites))
    await fleet.drained()


async def killed_and_started(program: Program) -> None:
    await program.kill()
    await program.start()
