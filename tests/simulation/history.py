"""One history: sites, machines, people and faults, drawn from a seed; then everything heals and is held to account.

`History.run` is the whole. Each step is a public coroutine of its own, so that the model test can choose them too.
"""

import shutil
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from pureboot.agent import accounts
from pureboot.agent.cache.content_cache import ContentCache
from pureboot.central import epochs
from pureboot.central.accounts import Agent
from pureboot.central.db import Database
from pureboot.core.errors import PureBootError
from pureboot.core.lifecycle import By, Edge, NodeState, Stage, destination, is_legal
from pureboot.core.reconcile import Resolution
from tests.fakes import SiteClock
from tests.simulation.agent import Limits, Process
from tests.simulation.central import WORKFLOW, Central, copy_database
from tests.simulation.fuse import Killed, mortal_engines
from tests.simulation.invariants import Checker, Violation
from tests.simulation.network import Network

# What a machine in a state says, if all goes as it should.
SAYS = {
    NodeState.INSTALLING: (
        "install_started",
        "install_progress",
        "install_complete",
        "install_complete",
        "install_failed",
    ),
    NodeState.INSTALLED: ("first_boot",),
}
# And the state it then tells of itself, by PATCH.
BECOMES = {
    NodeState.DEPROVISIONING: NodeState.RETIRED,
    NodeState.MIGRATING: NodeState.ACTIVE,
    NodeState.SERVING_SOURCE: NodeState.ACTIVE,
    NodeState.CLONING_TARGET: NodeState.INSTALLED,
}
IMPORTED = ("discovered", "pending", "installed", "active", "active", "reprovision", "deprovisioning", "migrating")
# A machine that turns up at every site.
WANDERER = "52:54:00:00:00:ff"
# Seconds; more than a lease, a backoff and every delay of an item.
A_WHILE = 100.0
ROUNDS = 40
# Of the answers to a push, and of the pages of the feed.
OVERTAKEN = 0.3


@dataclass(frozen=True)
class Stock:
    """What every history begins with, made once a process: an empty agent's file, a furnished central's, and the sites'
    content. `db` is open on `central.db`, and is lent to one history after the other: to compile central's statements
    anew would take longer than a history."""

    folder: Path
    db: Database
    agents: Sequence[Agent]
    content: ContentCache

    def central(self) -> Central:
        copy_database(self.folder / "furnished.db", self.folder / "central.db")
        return Central(self.db, self.folder / "central.db")


@dataclass
class Host:
    """A site: its machines, and the processes on its file and on copies of it. `whole`: no file of it was ever put
    back or copied, so that the accounts of its epochs have to agree. `has_lost`: with a file of it went what only that
    one held."""

    name: str
    identity: Agent
    limits: Limits
    macs: list[str]
    processes: list[Process] = field(default_factory=list)
    whole: bool = True
    has_lost: bool = False

    @property
    def original(self) -> Process:
        return self.processes[0]


class History:
    """`dice` decides everything, so that the same dice tell the same history. `folder` is empty, and this one's own."""

    def __init__(self, dice: Random, stock: Stock, folder: Path) -> None:
        self.dice = dice
        self.trace: list[str] = []
        self._stock, self._folder = stock, folder
        self.central = stock.central()
        self.network = Network(self.central, self.dice, self.note)
        self.checker = Checker(self.central.path)
        # Every item that ever was on an agent's disk; those that a person gave up; those that a backup put back, or
        # a machine that burned down, took with it.
        self._durable: set[str] = set()
        self._accepted_at: dict[str, Host] = {}
        self._given_up = self.checker.given_up
        self._untold: set[str] = set()
        self._forgiven: set[str] = set()
        self._said: list[tuple[str, str, str, str]] = []
        self._cursors: dict[int, tuple[int, ...]] = {}
        self._files = 0
        # Whether an answer is being overtaken, and how many were.
        self._overtaking, self._overtaken = False, 0
        self._backups: dict[str, Path] = {}
        self.hosts = [self._host(number, agent) for number, agent in enumerate(self.dice.sample(list(stock.agents), 2))]

    def _host(self, number: int, agent: Agent) -> Host:
        limits = self.dice.choice([Limits(), Limits(), Limits(items=12), Limits(sent_bytes=1500)])
        macs = [f"52:54:00:00:{number:02x}:{machine:02x}" for machine in range(3)]
        host = Host(f"site{number}", agent, limits, macs)
        path = self._new_file("agent")
        shutil.copyfile(self._stock.folder / "agent.db", path)
        host.processes.append(self._process(host, path, SiteClock()))
        return host

    def _new_file(self, what: str) -> Path:
        self._files += 1
        return self._folder / f"{what}-{self._files}.db"

    def _process(self, host: Host, path: Path, clock: SiteClock, epoch: str = "") -> Process:
        name = f"{host.name}/{path.stem}"
        parts = (self.network, self._stock.content, self.dice, host.limits)
        process = Process(name, path, host.identity, clock, *parts, epoch)
        process.meanwhile = partial(self._meanwhile, host, process)
        return process

    def note(self, what: str) -> None:
        self.trace.append(what)

    # The whole

    async def run(self, steps: int) -> None:
        """Raises Violation."""
        with self.telling():
            await self.begin()
            for _ in range(steps):
                await self.dice.choices(_STEPS, _WEIGHTS)[0](self)
            await self.heal()

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Around all of it: who dies in here dies of this history's fuses, and everything is closed at the end."""
        with mortal_engines(self.central.fuse, self.central.poisoned):
            try:
                yield
            finally:
                for process in self.processes:
                    process.end()
                self.checker.close()

    async def begin(self) -> None:
        """Some machines are in service already."""
        for process in self.processes:
            await process.start()
        for host in self.hosts:
            for mac in host.macs[:2]:
                state = self.dice.choice(IMPORTED)
                self.note(f"an admin imports {mac} at {host.name} as {state}")
                self.central.create(mac, host.identity.site_id, state, WORKFLOW)

    @property
    def processes(self) -> list[Process]:
        return [process for host in self.hosts for process in host.processes]

    # Steps at a site

    async def machine(self) -> None:
        """A machine boots, or says something."""
        host, process = self._somebody()
        mac = self.dice.choice(host.macs * 3 + [WANDERER])
        act = self.dice.choice([self._boot, self._report, self._report])
        await self._at(host, process, lambda: act(process, mac))

    async def _boot(self, process: Process, mac: str) -> None:
        before = process.node(mac)
        script = await process.boot(mac)
        after = process.node(mac)
        installs = "\nkernel " in script
        self.note(f"{process.name}: {mac} boots: {'installs' if installs else 'its disk'}, {before and before.stage}")
        if installs and (after is None or after.conflict_id is not None or process.is_disputed(after.node_id)):
            raise Violation("I8", f"{process.name} installs {mac}, which is disputed or unknown")
        if installs and after is not None and after.boot_token and self.dice.random() < 0.7:
            await process.journal.mark_begun(after.boot_token)

    async def _report(self, process: Process, mac: str) -> None:
        node = process.node(mac)
        token = node.boot_token if node and self.dice.random() < 0.95 else None
        if node is not None and node.state in BECOMES and self.dice.random() < 0.6:
            accepted = await process.move(node.node_id, BECOMES[node.state], token=token)
            what = f"is {BECOMES[node.state]}"
        elif node is None or self.dice.random() < 0.1:
            accepted = await process.register(mac, {"model": str(self.dice.randrange(3))})
            what = "registers"
        else:
            what, report_id = self._words(process, mac, node.state)
            accepted = await process.report(mac, what, report_id=report_id, token=token)
        self.note(f"{process.name}: {mac} {what}: {accepted.edge}, {accepted.node.stage}")
        promised = {accepted.queue_id, accepted.event_queue_id} - {None}
        if not promised <= process.held() | self.checker.received:
            raise Violation("I2", f"{process.name} promised {promised}, and does not hold it")

    def _words(self, process: Process, mac: str, state: NodeState) -> tuple[str, str | None]:
        """What it says, and under which name; at times what it said before, for it heard no answer."""
        before = [words for name, whose, *words in self._said if (name, whose) == (process.name, mac)]
        if before and self.dice.random() < 0.2:
            event, report_id = self.dice.choice(before)
            return event, report_id
        usual = SAYS.get(state, ("heartbeat", "note"))
        event = self.dice.choice(usual) if self.dice.random() < 0.85 else self.dice.choice(["first_boot", "note"])
        if self.dice.random() < 0.5:
            return event, None
        self._said.append((process.name, mac, event, f"r{len(self._said)}"))
        return event, self._said[-1][3]

    async def push(self) -> None:
        host, process = self._somebody()
        await self._at(host, process, lambda: self._push(process))

    async def _push(self, process: Process) -> None:
        lanes = {str(id): str(lane) for id, lane in process.rows("SELECT id, lane FROM sync_queue WHERE refused = 0")}
        await process.connectivity.check_connectivity()
        before = self._overtaken
        result = await process.push()
        self.note(f"{process.name} pushes: {result.processed} settled, {result.failed} refused, {result.errors[:1]}")
        heard_out = result.processed + result.failed and not result.errors and not result.remaining
        if heard_out and self._overtaken == before:
            # Of a node that central did not know when it settled an item, the repeat says nothing: the feed does.
            heard = {lanes[id] for id in self.checker.about_a_node(lanes)}
            self.checker.told(process, {process.cache.canonical(lane) for lane in heard}, "I4")
        self.checker.sides(process)

    async def sync(self) -> None:
        host, process = self._somebody()
        await self._at(host, process, lambda: self._sync(process))

    async def _sync(self, process: Process) -> int:
        if not process.connectivity.is_online or self.dice.random() < 0.3:
            await process.connectivity.check_connectivity()
        before = self._overtaken
        try:
            pages, items = await process.sync.sync_once()
        finally:
            self._check_cursor(process)
        self.note(f"{process.name} reads {items} items on {pages} pages")
        if self._overtaken == before:
            self.checker.told(process, set(self.checker.nodes_of(process.identity.site_id)), "I9")
        self.checker.sides(process)
        return items

    def _check_cursor(self, process: Process) -> None:
        """I9. Only a pass from the start begins anew."""
        position = process.site.position
        at = tuple(int(part) for part in position.cursor.split("."))
        before = self._cursors.get(id(process), (0, 0, 0))
        walking = len(at) != 2
        if (position.generation, *at[:2]) < before and not walking:
            raise Violation("I9", f"{process.name}: the cursor was {before} and is {position}")
        self._cursors[id(process)] = (position.generation, 0, 0) if walking else (position.generation, *at)

    async def tidy(self) -> None:
        host, process = self._somebody()
        await self._at(host, process, process.tidy)

    async def person(self) -> None:
        """Somebody at the agent gives an item up, or sends a failed one again."""
        host, process = self._somebody()
        rows = process.rows("SELECT id, status, lane FROM sync_queue ORDER BY seq")
        if not rows or self.dice.random() < 0.6:
            return
        id, status, lane = map(str, self.dice.choice(rows))

        async def decide() -> None:
            if status == "failed" and self.dice.random() < 0.5:
                await process.queue.requeue(id)
                self.note(f"{process.name}: {id} is sent again")
            else:
                self._given_up.add(id)  # before: it may be killed right after its commit
                self._untold.add(lane)
                await process.queue.discard(id, "no longer true", "somebody")
                self.note(f"{process.name}: {id} is given up")

        await self._at(host, process, decide)

    async def site_settles(self) -> None:
        """Somebody at the site decides a conflict; it counts when central hears of it."""
        host, process = self._somebody()
        ids = [str(id) for (id,) in process.rows("SELECT id FROM conflict WHERE resolved = 0 AND preview = 0")]
        if not ids:
            return
        id, how = self.dice.choice(ids), self.dice.choice(list(Resolution))

        async def decide() -> None:
            await process.settle(id, how)
            self.note(f"{process.name}: somebody settles {id}: {how}")

        await self._at(host, process, decide)

    async def site_decrees(self) -> None:
        """Somebody at a site of the level full does with a node what administrators do."""
        host, process = self._somebody()
        node = process.node(self.dice.choice(host.macs))
        if node is None:
            return
        ways = [state for state in NodeState if is_legal(Edge(node.stage, destination(node.stage, state), By.ADMIN))]
        state = self.dice.choice(ways or [NodeState.PENDING])

        async def decide() -> None:
            accepted = await process.decree(node.node_id, state)
            self.note(f"{process.name}: somebody makes {node.mac_address} {state}, {accepted.edge}")

        await self._at(host, process, decide)

    async def restart(self) -> None:
        host, process = self._somebody()
        self.note(f"{process.name} is killed")
        await self._again(host, process)

    async def reboot(self) -> None:
        """The agent's own machine, too; its clock may be wrong afterwards."""
        host, process = self._somebody()
        process.clock.reboot(self.dice.choice([30.0, -4000.0, 900.0]))
        self.note(f"{process.name}: its host reboots, the clock says {process.clock.when()}")
        await self._again(host, process)

    async def back_up_agent(self) -> None:
        host, process = self._somebody()
        copy_database(process.path, self._backups.setdefault(host.name, self._new_file("backup")))
        self.note(f"{process.name} is backed up")

    async def restore_agent(self) -> None:
        host = self.dice.choice(self.hosts)
        if host.name not in self._backups:
            return
        process = host.original
        process.end()
        copy_database(self._backups[host.name], process.path)
        host.whole, host.has_lost = False, True
        await self._again(host, process)
        self.note(f"{process.name} is restored from its backup")
        self._forgive([host])

    async def clone(self) -> None:
        """A second process on a copy of the file; a fork (a snapshot of the running machine) has its epoch, too."""
        host = self.dice.choice(self.hosts)
        if len(host.processes) > 1:
            return
        forked = self.dice.random() < 0.4
        path = self._new_file("agent")
        copy_database(host.original.path, path)
        clock = SiteClock()
        clock.now = host.original.clock.now
        epoch = host.original.queue.epoch if forked else ""
        if forked:
            self.checker.forked.add(epoch)
        host.whole = False
        host.processes.append(self._process(host, path, clock, epoch))
        await host.processes[-1].start()
        self.note(f"{host.processes[-1].name} is a {'fork' if forked else 'clone'} of {host.original.name}")

    async def end_clone(self) -> None:
        """For good, with what only it held."""
        host = self.dice.choice(self.hosts)
        if len(host.processes) > 1:
            gone = host.processes.pop()
            gone.end()
            host.has_lost = True
            self.note(f"{gone.name} is gone for good")
            self._forgive([host])

    # Steps at central

    async def admin(self) -> None:
        """An administrator moves a node."""
        nodes = self.checker.rows("SELECT * FROM node WHERE deleted_at IS NULL ORDER BY mac_address, created_at")
        if not nodes:
            return await self.admin_creates()
        node = self.dice.choice(nodes)
        here = Stage(NodeState(node["state"]), node["attempt"])
        ways = [state for state in NodeState if is_legal(Edge(here, destination(here, state), By.ADMIN))]
        ways += [NodeState.PENDING, NodeState.REPROVISION] * sum(
            w in (NodeState.PENDING, NodeState.REPROVISION) for w in ways
        )
        force = not ways or self.dice.random() < 0.1
        state = self.dice.choice(list(NodeState) if force else ways)
        if state is NodeState.RETIRED and self.dice.random() < 0.8:
            return None
        self.note(f"an admin makes {node['mac_address']} {state}{' by force' if force else ''}, from {here}")
        with self._allowed():
            if node["workflow_id"] is None:
                self.central.edit(node["id"], workflow_id=WORKFLOW)
            self.central.set_state(node["id"], state, force)
        return self.look()

    async def admin_edits(self) -> None:
        """Names a node, moves it to another site, or deletes it."""
        nodes = self.checker.rows("SELECT * FROM node WHERE deleted_at IS NULL ORDER BY mac_address, created_at")
        if not nodes:
            return
        node, what = self.dice.choice(nodes), self.dice.randrange(10)
        with self._allowed():
            if what < 6:
                self.note(f"an admin names {node['mac_address']}")
                self.central.edit(node["id"], hostname=f"h{self.dice.randrange(100)}")
            elif what < 8:
                site = self.dice.choice(self.hosts).identity.site_id
                self.note(f"an admin moves {node['mac_address']} to {site}")
                self.central.edit(node["id"], home_site_id=site)
            else:
                self.note(f"an admin deletes {node['mac_address']}")
                self.central.delete(node["id"])
        self.look()

    async def admin_creates(self) -> None:
        host = self.dice.choice(self.hosts)
        mac, state = self.dice.choice([*host.macs, WANDERER]), self.dice.choice(["discovered", "installed", "active"])
        self.note(f"an admin imports {mac} at {host.name} as {state}")
        with self._allowed():
            self.central.create(mac, host.identity.site_id, state, None)
        self.look()

    async def admin_settles(self) -> None:
        pending = self.checker.rows("SELECT * FROM sync_conflict WHERE status = 'pending' ORDER BY rowid")
        if not pending:
            return
        conflict = self.dice.choice(pending)
        how = self.dice.choice(list(Resolution))
        self.note(f"an admin settles {conflict['type']} of {conflict['node_mac']}: {how}")
        with self._allowed():
            self.central.resolve(conflict["site_id"], conflict["id"], how)
        self.look()

    async def admin_takes_back(self) -> None:
        """A decision, of a person's or of a policy."""
        settled = self.checker.rows("SELECT * FROM sync_conflict WHERE status = 'resolved' ORDER BY rowid")
        if not settled:
            return
        conflict = self.dice.choice(settled)
        self.note(
            f"an admin takes back {conflict['resolution']} of {conflict['node_mac']} by {conflict['resolved_by']}"
        )
        with self._allowed():
            self.central.undo(conflict["site_id"], conflict["id"])
        self.look()

    async def back_up_central(self) -> None:
        self.central.back_up(self._backups.setdefault("central", self._new_file("backup")))
        self.note("central is backed up")

    async def restore_central(self) -> None:
        if "central" not in self._backups:
            return
        self.network.late.clear()  # nobody keeps a request for so long
        self.central.restore(self._backups["central"])
        self.note(f"central is restored, and is of generation {self.central.newest_generation}")
        for host in self.hosts:
            host.whole = False
        self.checker.restored()
        self.checker.look()
        # Who lost nothing and forgets nothing says all of it again.
        self._forgive([host for host in self.hosts if host.has_lost or host.limits.sent_bytes < Limits.sent_bytes])

    async def forget_tombstones(self) -> None:
        self.central.forget_tombstones()
        self.look()

    async def poison(self) -> None:
        """Central stumbles over one item, whatever it is offered with."""
        waiting = [row for process in self.processes for row in process.rows(_WAITING)]
        if waiting and not self.central.poisoned:
            [id, lane] = self.dice.choice(waiting)
            self.central.poisoned.add(str(id))
            self.note(f"{id} of lane {lane} is poison")

    # Steps in between

    async def time(self) -> None:
        seconds = self.dice.choice([1.0, 10.0, 60.0, 200.0])
        self.central.clock.advance(seconds)
        for process in self.processes:
            process.clock.advance(seconds)

    async def line(self) -> None:
        site = self.dice.choice(self.hosts).identity.site_id
        self.network.cut ^= {site}

    async def late(self) -> None:
        if self.network.late:
            await self.network.deliver(self.dice.randrange(len(self.network.late)))
            self.look()

    # How a step is done

    def _somebody(self) -> tuple[Host, Process]:
        host = self.dice.choice(self.hosts)
        return host, self.dice.choice(host.processes)

    async def _at(self, host: Host, process: Process, work: Callable[[], Awaitable[object]]) -> None:
        """`work` in that process. At times it, or central, dies over it; and looks at what is left either way."""
        if self.dice.random() < 0.1:
            process.fuse.light(self.dice.randrange(12))
        if self.dice.random() < 0.1:
            self.central.fuse.light(self.dice.randrange(60))
        try:
            await work()
        except PureBootError as error:
            self.note(f"{process.name}: {type(error).__name__}: {error.message}")
        except Killed as death:
            self.note(f"{process.name} dies: {death}")
            await self._again(host, process)
        finally:
            process.fuse.put_out()
            self.central.fuse.put_out()
        self.look()

    async def _again(self, host: Host, process: Process) -> None:
        process.end()
        # A snapshot that is killed is a process of its own from then on.
        fresh = self._process(host, process.path, process.clock)
        host.processes[host.processes.index(process)] = fresh
        await fresh.start()

    async def _meanwhile(self, host: Host, process: Process, what: str) -> None:
        """At times the answer to a push, or a page of the feed, is overtaken by what the agent's other loop hears."""
        if what not in ("push", "changes") or self.network.calm or self._overtaking:
            return
        if self.dice.random() >= OVERTAKEN:
            return
        self._overtaking = True
        self._overtaken += 1
        self.note(f"{process.name}: while an answer is on its way ({what})")
        try:
            match what:
                case "push":
                    await self._beside_a_push(process)
                case "changes":
                    await self._beside_a_page(host, process)
        except PureBootError as error:
            self.note(f"  {type(error).__name__}: {error.message}")
        finally:
            self._overtaking = False

    async def _beside_a_push(self, process: Process) -> None:
        """Of what people do now the answer knows nothing, and the feed tells of it first."""
        self.central.fuse.put_out()
        for act in (History.admin_settles, History.admin_edits, History.admin):
            await act(self)
        await process.listen()

    async def _beside_a_page(self, host: Host, process: Process) -> None:
        """Machines speak, and their items go out. At times central has begun a new life by then, and has forgotten what
        this page tells."""
        self.central.fuse.put_out()
        if self.dice.random() < 0.1:
            await self.restore_central()
        for mac in self.dice.sample(host.macs, 2):
            await self._report(process, mac)
        await process.push()

    def _allowed(self) -> "_Allowed":
        return _Allowed(self.note)

    def look(self) -> None:
        """What has to hold after each step."""
        for host in self.hosts:
            for process in host.processes:
                self._remember(host, process)
        self.checker.look()
        for host in self.hosts:
            for process in host.processes:
                self._look_at(host, process)
        held = {id for process in self.processes for id in process.held()}
        if lost := self._durable - held - self.checker.received - self._given_up - self._forgiven:
            raise Violation("I2", f"{sorted(lost)} are nowhere")

    def _remember(self, host: Host, process: Process) -> None:
        new = process.held() - self._accepted_at.keys()
        self._accepted_at |= dict.fromkeys(new, host)
        self._durable |= new
        self.checker.targets |= process.targets(new)

    def _look_at(self, host: Host, process: Process) -> None:
        items, size = process.usage("queue")
        if items > host.limits.items:
            raise Violation("I12", f"{process.name} holds {items} items")
        if [(items, size)] != process.rows(_COUNTED):
            raise Violation("I12", f"{process.name} counts {items} items of {size} bytes, and is wrong")
        for account in process.accounts():
            if accounts.gap(account):
                raise Violation("I10", f"{process.name}: {account}")

    def _forgive(self, hosts: Collection[Host]) -> None:
        """What nobody holds any more of that which these accepted, since a backup was put back."""
        held = {id for process in self.processes for id in process.held()}
        lost = self._durable - held - self.checker.received
        self._forgiven |= {id for id in lost if any(self._accepted_at[id] is host for host in hosts)}

    # Everything heals

    async def heal(self) -> None:
        """The network is well, nobody dies any more, people settle what is theirs. Raises Violation."""
        self.note("everything heals")
        self.network.calm = True
        self.network.cut.clear()
        while self.network.late:
            await self.network.deliver(0)
        if self.central.poisoned:
            await self._rest()
            self._check_poison()
            self.central.poisoned.clear()
        await self._send_failed_again()
        await self._rest()
        self._check(disputed_too=False)
        pending = self.checker.rows("SELECT * FROM sync_conflict WHERE status = 'pending' ORDER BY rowid")
        for conflict in pending:
            with self._allowed():
                self.central.resolve(conflict["site_id"], conflict["id"], Resolution.KEEP_CENTRAL)
        if pending:
            await self._rest()
            self._check(disputed_too=True)

    async def _rest(self) -> None:
        for _ in range(ROUNDS):
            quiet = [await self._round(process) for host in self.hosts for process in host.processes]
            self.look()
            if all(quiet):
                return
        raise Violation("I2", f"never comes to rest: {[process.queue.pending_count for process in self.processes]}")

    async def _round(self, process: Process) -> bool:
        """Whether nothing was left to say or to hear."""
        self.central.clock.advance(A_WHILE)
        for each in self.processes:
            each.clock.advance(A_WHILE)
        waited = self._waits(process)
        try:
            heard = await self._sync(process)
        except PureBootError as error:
            self.note(f"{process.name}: {error.message}")
            return False
        return not waited and not heard and not self._waits(process)

    def _waits(self, process: Process) -> bool:
        return bool(process.rows(_FREE))

    def _check_poison(self) -> None:
        """I11."""
        for process in self.processes:
            for lane, id in process.rows(_STOPPED):
                self.checker.counts["stopped by poison"] += 1
                first = process.rows(f"SELECT id FROM sync_queue WHERE lane = '{lane}' AND refused = 0 ORDER BY seq")
                if first[0][0] not in self.central.poisoned:
                    raise Violation("I11", f"{process.name}: {id} waits, and nothing before it is poison")

    async def _send_failed_again(self) -> None:
        for process in self.processes:
            for [id] in process.rows("SELECT id FROM sync_queue WHERE status = 'failed' AND refused = 0 ORDER BY seq"):
                await process.queue.requeue(str(id))

    def _check(self, *, disputed_too: bool) -> None:
        self.checker.settled(self._durable - self._given_up - self._forgiven)
        self.checker.effects()
        for host in self.hosts:
            for process in host.processes:
                self.checker.marks(process)
                self.checker.agrees(process, self._untold, disputed_too=disputed_too)
            gaps = self.central.do(lambda conn, site=host.identity.site_id: epochs.gaps(conn, site))  # type: ignore[misc]
            if gaps and host.whole:
                raise Violation("I10", f"{gaps}")


class _Allowed:
    """What the rules forbid an administrator changes nothing."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        if isinstance(error, PureBootError):
            self._note(f"  refused: {error.message}")
            return True
        return False


_WAITING = "SELECT id, lane FROM sync_queue WHERE status != 'failed' ORDER BY seq"
# What no failed item before it keeps from going.
_FREE = """
SELECT id FROM sync_queue WHERE status != 'failed'
AND lane NOT IN (SELECT lane FROM sync_queue WHERE status = 'failed' AND refused = 0)
"""
_STOPPED = "SELECT lane, id FROM sync_queue WHERE refused = 0 ORDER BY seq"
_COUNTED = "SELECT count(*), coalesce(sum(length(CAST(payload AS BLOB))), 0) FROM sync_queue WHERE replayed = 0"

Step = Callable[[History], Awaitable[None]]

WEIGHTS: dict[Step, float] = {
    History.machine: 40,
    History.push: 11,
    History.sync: 13,
    History.admin: 12,
    History.admin_edits: 3,
    History.admin_creates: 3,
    History.admin_settles: 2,
    History.admin_takes_back: 1,
    History.site_settles: 1.5,
    History.site_decrees: 2,
    History.tidy: 2,
    History.person: 2,
    History.time: 4,
    History.line: 2,
    History.late: 3,
    History.restart: 1.5,
    History.reboot: 0.7,
    History.back_up_agent: 2,
    History.restore_agent: 1.5,
    History.clone: 1.2,
    History.end_clone: 0.8,
    History.back_up_central: 1.5,
    History.restore_central: 1.2,
    History.forget_tombstones: 0.7,
    History.poison: 0.7,
}
_STEPS, _WEIGHTS = list(WEIGHTS), list(WEIGHTS.values())
