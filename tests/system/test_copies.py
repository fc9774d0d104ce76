"""An agent's folder, copied: of two that live one writes, the other is told, and nothing is lost or doubled."""

import asyncio
import random
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pureboot.core.lifecycle import NodeState
from tests.support.fleet import Fleet, Site, machines_client, running_fleet
from tests.support.programs import Agent
from tests.support.reporter import Reporter
from tests.support.verdict import nothing_else_is_there, what_was_promised_is_there

pytestmark = pytest.mark.timeout(300)

# Seconds. Asked for again at half, so a busy machine may be late by as much.
LEASE = 10


@asynccontextmanager
async def running_copy(original: Site, folder: Path) -> AsyncIterator[Site]:
    """Of the same site, on the same line to central."""
    agent = Agent(folder)
    async with machines_client(agent) as machine:
        await agent.start()
        try:
            yield Site(original.name, agent, original.line, machine)
        finally:
            await agent.end()


def is_told(health: dict[str, Any]) -> bool:
    return any("Another copy of this agent is writing" in problem for problem in health["problems"])


def is_well(health: dict[str, Any]) -> bool:
    return bool(health["problems"] == [])


def is_offline(health: dict[str, Any]) -> bool:
    return not health["is_online"]


async def notices(fleet: Fleet) -> list[str]:
    """What central tells an operator of the site."""
    health = await fleet.ask("GET", "/sites/attic/health")
    return [notice["kind"] for notice in health["notices"]]


async def test_of_two_that_live_one_writes_and_what_either_was_told_is_there_in_the_end(tmp_path: Path) -> None:
    async with running_fleet(tmp_path, ["attic"], session_lease=LEASE) as fleet:
        [site] = fleet.sites
        here, there = fleet.reporter(site, 1), fleet.reporter(site, 2)
        node_id = await here.registers()
        moving = await fleet.import_node(site, there.mac, NodeState.CLONING_TARGET)
        await site.drained()
        site.line.turn("cut")
        await site.until("offline", is_offline)
        await here.chatters(node_id, 20)
        site.agent.signal(signal.SIGSTOP)
        shutil.copytree(site.agent.folder, tmp_path / "copy" / "agent")
        site.agent.signal(signal.SIGCONT)

        async with running_copy(site, tmp_path / "copy") as copy:
            site.line.turn("up")
            await copy.drained()
            await site.until("told", is_told)
            assert "fenced" in await notices(fleet)
            at_the_copy = Reporter(there.mac, copy.machine, fleet.ledger, random.Random(), 0)
            await at_the_copy.says("install_complete")
            await at_the_copy.chatters(moving, 5)
            await here.chatters(node_id, 5)
            await copy.drained()
            await site.until("keeping what it may not write", lambda health: health["pending_queue_items"] >= 5)
            await copy.until("well", is_well)
            await copy.agent.kill()

        await site.drained()
        await site.until("the only one", is_well)
        await what_was_promised_is_there(fleet)
        assert (await fleet.ask("GET", "/sites/attic/health"))["epoch_gaps"] == []


async def test_an_agent_with_nothing_to_say_keeps_its_right_to_write(tmp_path: Path) -> None:
    """A copy of an earlier life finds it taken, however long nothing was said."""
    async with running_fleet(tmp_path, ["attic"], session_lease=LEASE) as fleet:
        [site] = fleet.sites
        reporter = fleet.reporter(site, 1)
        node_id = await reporter.registers()
        await site.drained()
        await site.agent.kill()
        shutil.copytree(site.agent.folder, tmp_path / "copy" / "agent")
        await site.agent.start()
        await reporter.chatters(node_id, 1)
        await site.drained()
        await asyncio.sleep(1.5 * LEASE)

        async with running_copy(site, tmp_path / "copy") as copy:
            await copy.until("told", is_told)
            await reporter.chatters(node_id, 5)
            await site.drained()
            await site.until("well", is_well)
            assert "fenced" in await notices(fleet)
        await what_was_promised_is_there(fleet)
        await nothing_else_is_there(fleet)
