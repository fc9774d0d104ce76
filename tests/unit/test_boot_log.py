"""The last boots: bounded, in order, and in the words of the decision."""

import asyncio
from datetime import UTC, datetime

from pureboot.agent.boots import MOST, BootLog
from pureboot.agent.cache.state_cache import CachedNode
from pureboot.core.boot import Decision, Discover, Halt, Install, LocalDisk
from pureboot.core.ipxe import Link
from pureboot.core.lifecycle import NodeState
from pureboot.core.node import InstallMethod, Workflow

MAC = "52:54:00:aa:bb:01"
NODE = CachedNode("n1", MAC, NodeState.INSTALLED, hostname="web1")


def log() -> BootLog:
    return BootLog(now=lambda: 1_769_601_600.0)


def test_a_boot_says_who_was_told_what_when_and_why() -> None:
    boots = log()
    boots.add(MAC, NODE, LocalDisk(), Link.OFFLINE)
    [boot] = boots.after(0)
    assert (boot.mac_address, boot.node_id, boot.hostname, boot.state) == (MAC, "n1", "web1", "installed")
    assert (boot.decision, boot.link, boot.reason) == ("local_disk", "offline", "It boots its own disk.")
    assert boot.at == datetime(2026, 1, 28, 12, tzinfo=UTC)


def test_each_decision_has_its_own_words() -> None:
    workflow = Workflow(id="w1", name="debian", install_method=InstallMethod.KERNEL)
    decisions: list[Decision] = [Install(workflow, 2), LocalDisk("Why."), Discover("New."), Halt("Retired.")]
    boots = log()
    for decision in decisions:
        boots.add(MAC, None, decision, Link.ONLINE)
    assert [(boot.decision, boot.reason) for boot in boots.after(0)] == [
        ("install", "debian, attempt 2."),
        ("local_disk", "Why."),
        ("discover", "New."),
        ("next_device", "Retired."),
    ]
    assert boots.counts["LocalDisk", Link.ONLINE] == 1


def test_the_memory_is_bounded_and_the_oldest_go() -> None:
    boots = log()
    for _ in range(MOST + 50):
        boots.add(MAC, NODE, LocalDisk(), Link.ONLINE)
    last = boots.after(0)
    assert (len(last), last[-1].seq - last[0].seq, last[-1].seq) == (MOST, MOST - 1, boots.seq)
    assert [boot.seq for boot in boots.after(boots.seq - 2)] == [boots.seq - 1, boots.seq]
    assert [boot.seq for boot in boots.after(0, 1)] == [boots.seq]
    assert boots.counts.total() == MOST + 50


async def test_whoever_waits_hears_of_the_next_boot() -> None:
    boots = log()
    with boots.waiting() as news:
        boots.add(MAC, NODE, LocalDisk(), Link.ONLINE)
        async with asyncio.timeout(30):
            await news.wait()
