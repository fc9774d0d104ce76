"""The story, a phase a method. Each does one thing to the site, waits for what must follow, and says what happened."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

from pureboot.cli.demo.stage import Stage
from pureboot.core.boot import DefaultAction
from pureboot.core.lifecycle import Autonomy, NodeState
from pureboot.core.reconcile import Resolution, Strategy
from pureboot.simulator.firmware import Kernel
from pureboot.simulator.ledger import Comparison, compare
from pureboot.simulator.machine import Booted, BootKind, Machine
from pureboot.wire.messages import SiteFields, WorkflowFields

# Seconds that anything which must follow by itself may take.
PATIENCE = 20.0
# Seconds for a boot script or a report's answer, whatever hangs: the agent's budget is 1 s, the rest is for a busy
# host (1.66 s were seen beside sixteen virtual machines). Without a budget it would be the line's timeout, 5 s.
LONGEST_BOOT = LONGEST_REPORT = 2.5
KERNEL, INITRD = "images/demo/vmlinuz", "images/demo/initrd.img"
SOME = 256 * 1024
# Who signs in at central's pages where the stage is kept.
PERSON = "demo"
# Reports of one machine while the agent is killed, and the seconds between two of them.
BURN_IN, STEP = 8, 0.08


class Broken(Exception):
    """The site did not do what it has to; the message says what was seen instead."""


class Story:
    def __init__(self, stage: Stage, machines: int) -> None:
        self.stage = stage
        self.boots: list[Booted] = []
        self.comparison: Comparison | None = None
        self.files = {KERNEL: secrets.token_bytes(SOME), INITRD: secrets.token_bytes(SOME)}
        self.machines = [stage.machine(number) for number in range(1, machines + 1)]
        self.newcomer = stage.machine(machines + 1)
        # Two with a part of their own: one is approved for a reinstall, one comes up while central says otherwise.
        self.reinstalled, self.disputed = self.machines[0], self.machines[-1]
        self._ids: dict[str, str] = {}
        self._site_id = self._workflow_id = ""

    def phases(self) -> Sequence[tuple[str, Callable[[], Awaitable[str]]]]:
        return (
            ("Central and the site's agent start", self.start),
            ("New machines appear", self.appear),
            ("They are approved and install", self.install),
            ("The WAN goes silent, an admin goes on, central is killed (kill -9)", self.cut),
            ("Machines keep booting", self.keep_booting),
            ("The agent knows that it is offline", self.notice),
            ("An approved machine reinstalls", self.reinstall),
            ("A machine nobody knows appears", self.appear_offline),
            ("The agent is killed (kill -9) amid reports, and starts alone", self.kill_agent),
            ("Central and the WAN return, the outbox drains", self.drain),
            ("One conflict shows and is resolved", self.resolve),
            ("All that was acknowledged is at central, once and in order", self.check),
        )

    def epilogue(self) -> tuple[str, Callable[[], Awaitable[str]]]:
        """What is left for whoever looks around, where the stage stays."""
        return (
            "For a look around: somebody to sign in as, a conflict that waits, a decision that came too late",
            self.leave,
        )

    async def start(self) -> str:
        central = await self.stage.start_central()
        await self.stage.start_wan()
        admin = self.stage.admin()
        self._site_id = await admin.create_site(
            SiteFields(
                name="demo",
                description="The site of the demo, on this host",
                autonomy_level=Autonomy.LIMITED,
                conflict_resolution=Strategy.MANUAL,
                offline_default_action=DefaultAction.DISCOVERY.value,
            )
        )
        for name, data in self.files.items():
            await admin.put_content(name, data)
        self._workflow_id = await admin.create_workflow(
            WorkflowFields(name="demo-linux", kernel=KERNEL, initrd=[INITRD], cmdline="console=ttyS0")
        )
        await self.stage.let_agent_in(self._site_id, await admin.agent_token(self._site_id))
        agent = await self.stage.start_agent()
        await self._until("the agent is online", self._online)
        return f"central in {central:.1f} s, the agent in {agent:.1f} s"

    async def appear(self) -> str:
        await self._boot_all(self.machines, BootKind.LOCAL)
        await self._until("central knows them all", self._all_registered)
        return f"{len(self.machines)} booted their disk and wait at central to be approved"

    async def install(self) -> str:
        admin = self.stage.admin()
        for machine in self.machines:
            await admin.assign(self._id(machine), self._workflow_id)
            await admin.move(self._id(machine), NodeState.PENDING)
        await self._until_at_site(self.machines, NodeState.PENDING)
        installs = await asyncio.gather(*map(self._install, self.machines))
        await self._until("central knows", self._all_settled)
        return f"{len(installs)} installed, slowest boot {_slowest(installs):.2f} s"

    async def cut(self) -> str:
        admin = self.stage.admin()
        await admin.move(self._id(self.reinstalled), NodeState.REPROVISION, "a reinstall, approved before the outage")
        await self._until_at_site([self.reinstalled], NodeState.REPROVISION)
        self.stage.wan.freeze()
        await admin.move(self._id(self.disputed), NodeState.REPROVISION, "the site cannot have seen this")
        self.stage.central.kill()
        return f"{self.reinstalled.mac} was approved for a reinstall, {self.disputed.mac} after the line was dead"

    async def keep_booting(self) -> str:
        boots = await self._boot_all(self._undisturbed(), BootKind.LOCAL)
        began = time.monotonic()
        taken = await asyncio.gather(*(machine.report("still_here") for machine in self._undisturbed()))
        waited = time.monotonic() - began
        statuses = {promise.status for promises in taken for promise in promises}
        if waited > LONGEST_REPORT or statuses != {"queued"}:
            raise Broken(f"Reports were answered {sorted(statuses)}, after {waited:.2f} s.")
        return (
            f"{len(boots)} of {len(boots)} booted their disk at once, slowest {_slowest(boots):.2f} s; "
            f"{len(taken)} reports were queued within {waited:.2f} s"
        )

    async def notice(self) -> str:
        await self._until("the agent says offline", self._offline)
        boots = await self._boot_all(self._undisturbed(), BootKind.LOCAL)
        if silent := [boot for boot in boots if not boot.offline]:
            raise Broken(f"{len(silent)} screens did not say OFFLINE, such as: {silent[0].reason}")
        return f"{len(boots)} screens said OFFLINE, slowest boot {_slowest(boots):.2f} s"

    async def reinstall(self) -> str:
        booted = await self._install(self.reinstalled)
        # The disputed one's new system comes up, too, and its site cannot know what central wants of it.
        await self.disputed.report("first_boot")
        return f"kernel and initrd came from the agent, whole, in {booted.seconds:.2f} s"

    async def appear_offline(self) -> str:
        await self._boot_all([self.newcomer], BootKind.LOCAL)
        if (state := await self.stage.state_at_site(self.newcomer)) != NodeState.DISCOVERED:
            raise Broken(f"It is {state} at its site.")
        return f"{self.newcomer.mac} is recorded at its site and booted its disk"

    async def kill_agent(self) -> str:
        everyone = [*self.machines, self.newcomer]
        before = len(self.stage.ledger.acknowledged)
        reporting = [asyncio.create_task(self._burn_in(machine)) for machine in everyone]
        try:
            await self._until("half of the reports are taken", self._taken(before + len(everyone) * BURN_IN // 2))
            self.stage.agent.kill()
            amid = sum(not task.done() for task in reporting)
            seconds = await self.stage.start_agent()
            await asyncio.gather(*reporting)
        finally:
            for task in reporting:
                task.cancel()
        boots = await self._boot_all(self._undisturbed(), BootKind.LOCAL)
        return (
            f"{amid} machines had more to say and did; it was back in {seconds:.1f} s without central, "
            f"{len(boots)} booted, slowest {_slowest(boots):.2f} s"
        )

    async def drain(self) -> str:
        health = await self.stage.agent_health()
        waiting = health.pending_queue_items if health else 0
        if not waiting:
            raise Broken("Nothing waited in the outbox.")
        central = await self.stage.start_central()
        began = time.monotonic()
        self.stage.wan.thaw()
        await self._until("the outbox is empty", self._drained)
        return f"central in {central:.1f} s, {waiting} items in {time.monotonic() - began:.1f} s"

    async def resolve(self) -> str:
        admin = self.stage.admin()
        conflicts = await admin.conflicts(self._site_id)
        if [conflict.node_mac for conflict in conflicts] != [str(self.disputed.mac)]:
            raise Broken(f"These are in conflict: {[conflict.node_mac for conflict in conflicts]}.")
        [conflict] = conflicts
        await admin.resolve(self._site_id, conflict.id, Resolution.KEEP_LOCAL)
        await self._until("the site knows", self._settled)
        await self._until_at_site([self.disputed], NodeState.ACTIVE)
        return (
            f"{conflict.node_mac} was {conflict.base_state}, {conflict.local_state} at the site and "
            f"{conflict.central_state} at central; the site was right, and both say so"
        )

    async def check(self) -> str:
        admin = self.stage.admin()
        nodes = await admin.nodes(self._site_id)
        accounts = [await admin.account(mac, node.id) for mac, node in nodes.items()]
        self.comparison = compare(self.stage.ledger, accounts)
        if not self.comparison.holds:
            raise Broken(sentence(self.comparison))
        for machine in (*self.machines, self.newcomer):
            here, there = await self.stage.state_at_site(machine), nodes[machine.mac].state
            if here != there:
                raise Broken(f"{machine.mac} is {here} at its site and {there} at central.")
        return f"{sentence(self.comparison)}; {len(nodes)} nodes are the same at both"

    async def leave(self) -> str:
        admin = self.stage.admin()
        await admin.add_person(PERSON, "admin", self.stage.password)
        waiting, too_late = self.machines[1], self.machines[2]
        await self._disagree(waiting, too_late)
        of = {conflict.node_mac: conflict.id for conflict in await admin.conflicts(self._site_id)}
        self.stage.wan.freeze()
        await self._until("the agent says offline", self._offline)
        await self.stage.decide_at_site(of[str(too_late.mac)], Resolution.KEEP_LOCAL)
        await admin.resolve(self._site_id, of[str(too_late.mac)], Resolution.KEEP_CENTRAL)
        self.stage.wan.thaw()
        await self._until("central has refused what the site decided", self._refused)
        return f"{waiting.mac} waits for a decision; what the site decided of {too_late.mac} came too late"

    async def _disagree(self, *machines: Machine) -> None:
        """Each comes up at its site while central approves a reinstall of it."""
        admin = self.stage.admin()
        for machine in machines:
            await admin.move(self._id(machine), NodeState.INSTALLED, "installed by hand", force=True)
        await self._until_at_site(machines, NodeState.INSTALLED)
        self.stage.wan.freeze()
        await self._until("the agent says offline", self._offline)
        for machine in machines:
            await machine.report("first_boot")
            await admin.move(self._id(machine), NodeState.REPROVISION, "the site cannot have seen this")
        self.stage.wan.thaw()
        await self._until("the outbox is empty", self._drained)

    async def _refused(self) -> bool:
        health = await self.stage.agent_health()
        return health is not None and health.failed_queue_items > 0

    # What the phases share.

    async def _boot_all(self, machines: Sequence[Machine], expected: BootKind) -> list[Booted]:
        boots = await asyncio.gather(*(self._boot(machine, expected) for machine in machines))
        return list(boots)

    async def _boot(self, machine: Machine, expected: BootKind) -> Booted:
        return self._seen(machine, await machine.boot(), expected)

    def _seen(self, machine: Machine, booted: Booted, expected: BootKind) -> Booted:
        self.boots.append(booted)
        if booted.kind is not expected:
            raise Broken(f"{machine.mac} did not get {expected} but {booted.kind}: {booted.reason or booted.outcome}")
        if booted.seconds > LONGEST_BOOT and expected is BootKind.LOCAL:
            raise Broken(f"{machine.mac} waited {booted.seconds:.2f} s to boot.")
        return booted

    async def _install(self, machine: Machine) -> Booted:
        """The new system of the disputed one comes up later, when its site is cut off."""
        installing, *after = await machine.boot_and_follow(comes_up=machine is not self.disputed)
        self._seen(machine, installing, BootKind.INSTALL)
        if not isinstance(installing.outcome, Kernel) or not after:
            raise Broken(f"{machine.mac} got {installing.outcome} to install.")
        self._seen(machine, after[0], BootKind.LOCAL)
        if sorted(installing.outcome.images.values()) != sorted(self.files.values()):
            raise Broken(f"{machine.mac} got a kernel or an initrd that is not the one at central.")
        return installing

    async def _burn_in(self, machine: Machine) -> None:
        for step in range(1, BURN_IN + 1):
            await machine.report("burn_in", message=f"step {step} of {BURN_IN}")
            await asyncio.sleep(STEP)

    def _undisturbed(self) -> list[Machine]:
        return [machine for machine in self.machines if machine is not self.reinstalled]

    def _id(self, machine: Machine) -> str:
        return self._ids[str(machine.mac)]

    async def _until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not await holds():
            if time.monotonic() > deadline:
                raise Broken(f"Waited {PATIENCE:g} s until {what}, and it is not so.")
            await asyncio.sleep(0.05)

    async def _until_at_site(self, machines: Sequence[Machine], state: NodeState) -> None:
        async def reached() -> bool:
            states = await asyncio.gather(*map(self.stage.state_at_site, machines))
            return all(each == state for each in states)

        await self._until(f"the site says {state}", reached)

    async def _online(self) -> bool:
        health = await self.stage.agent_health()
        return health is not None and health.is_online

    async def _offline(self) -> bool:
        health = await self.stage.agent_health()
        return health is not None and not health.is_online

    async def _drained(self) -> bool:
        health = await self.stage.agent_health()
        if health and health.failed_queue_items:
            raise Broken(f"{health.failed_queue_items} items failed; `pureboot agent queue` names them.")
        return health is not None and health.is_online and not health.pending_queue_items

    async def _settled(self) -> bool:
        health = await self.stage.agent_health()
        return health is not None and not health.conflicts_pending and not health.pending_queue_items

    async def _all_registered(self) -> bool:
        nodes = await self.stage.admin().nodes(self._site_id)
        self._ids = {str(mac): node.id for mac, node in nodes.items()}
        return len(nodes) == len(self.machines)

    async def _all_settled(self) -> bool:
        nodes = await self.stage.admin().nodes(self._site_id)
        expected = {m.mac: NodeState.INSTALLED if m is self.disputed else NodeState.ACTIVE for m in self.machines}
        return {mac: node.state for mac, node in nodes.items()} == expected

    def _taken(self, count: int) -> Callable[[], Awaitable[bool]]:
        async def taken() -> bool:
            return len(self.stage.ledger.acknowledged) >= count

        return taken


def sentence(comparison: Comparison) -> str:
    said = (
        f"{comparison.acknowledged} acknowledged, {comparison.found} found, "
        f"{len(comparison.twice)} twice, {len(comparison.out_of_order)} out of order"
    )
    wrong = [*comparison.missing, *comparison.twice, *comparison.out_of_order]
    return f"{said}: {'; '.join(wrong[:5])}" if wrong else said


def _slowest(boots: Sequence[Booted]) -> float:
    return max(boot.seconds for boot in boots)
