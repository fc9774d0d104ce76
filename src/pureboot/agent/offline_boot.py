"""From what the site knows to a boot script: look, decide, commit what the decision needs, render.

The same path answers online and offline; what differs is what `core.boot.decide` is told about the link.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from pureboot.agent.boots import BootLog
from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.clock import Stamp
from pureboot.agent.connectivity import AlwaysOffline, ConnectivityMonitor
from pureboot.agent.journal import Journal, Moved
from pureboot.agent.observations import Observations
from pureboot.agent.proxy import CentralProxy
from pureboot.agent.queue import SyncQueue
from pureboot.agent.site import SiteState
from pureboot.agent.variables import Variables
from pureboot.core import boot, ipxe
from pureboot.core.boot import Decision, DefaultAction, Halt, Install, KnownNode, LocalDisk, UnknownNode
from pureboot.core.errors import Busy, Invalid, NotFound
from pureboot.core.lifecycle import Autonomy, NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.node import LocalBoot, Workflow, clean_facts
from pureboot.rendering.language import check_line, render_line

log = logging.getLogger(__name__)

# What iPXE calls the facts of the entry script's query, and what we call them.
FACTS = {
    "uuid": "system_uuid",
    "serial": "serial_number",
    "manufacturer": "vendor",
    "product": "model",
    "buildarch": "architecture",
}
# The states in which a boot may install the machine.
WAITS = frozenset({NodeState.PENDING, NodeState.REPROVISION, NodeState.INSTALLING})
# Between two looks another request of the same machine may have moved the node; more than a few times is no accident.
LOOKS = 4
# Seconds after which a boot image from elsewhere counts as fetched.
FETCHED_ELSEWHERE = 60.0


class NoScript(NotFound):
    """The machine's firmware goes on by itself where there is no script."""

    code = "no_script"


class OfflineBootGenerator:
    """`site_id` is the site's name as the machine's screen shows it.

    `confirm_budget`: seconds a boot may wait for central where the site cannot know (an unknown machine) or may not
    decide alone (readonly); it has to leave room inside the boot's own budget.
    """

    def __init__(
        self,
        state_cache: NodeStateCache,
        content_cache: ContentCache,
        site_id: str,
        default_action: str = "local",
        *,
        site: SiteState | None = None,
        journal: Journal | None = None,
        proxy: CentralProxy | None = None,
        connectivity: ConnectivityMonitor | None = None,
        observations: Observations | None = None,
        install_max_age: float = 24 * 3600.0,
        stale_after: float = 300.0,
        confirm_budget: float = 0.7,
        base_url: str = "",
    ) -> None:
        queue = SyncQueue(state_cache.database)
        self.state_cache = state_cache
        self.content_cache = content_cache
        self.site_id = site_id
        self.default_action = DefaultAction(default_action)
        self.boots = BootLog()
        self._site = site or SiteState(state_cache.database, queue.clock)
        self._journal = journal or Journal(state_cache, queue, self._site)
        self._link = connectivity or AlwaysOffline()
        self._proxy = proxy or CentralProxy("", None, queue, journal=self._journal, site=self._site)
        self._observations = observations or Observations(self._journal)
        self._install_max_age = install_max_age
        self._stale_after = stale_after
        self._confirm_budget = confirm_budget
        self._base_url = base_url
        self._variables = Variables(state_cache, self._site)
        # By node: since when it is where it is, and when that was on the boot-time clock.
        self._started: dict[str, tuple[datetime, float]] = {}

    async def generate_script(
        self, mac: str, hardware_info: dict[str, str] | None = None, *, base_url: str = ""
    ) -> str:
        """A whole script, with everything committed that it stands on. Raises Malformed for a bad MAC, NoScript.

        `hardware_info`: what the machine says of itself, under iPXE's names or ours.
        """
        address = MacAddress.parse(mac)
        facts = facts_of(hardware_info or {})
        base_url = base_url or self._base_url
        decision, node = await self._settled(address, facts)
        if node is not None:
            self._observations.saw(node.node_id)
            self._note_start(decision, node)
            decision = self._filled_in(decision, node, base_url)
        link = self.link()
        self.boots.add(str(address), node, decision, link)
        if self._leaves_it_to_firmware(decision, node):
            raise NoScript("This machine boots its own disk, and gets no script for it (local_boot: http-404).")
        return ipxe.render(decision, self._banner(str(address), node, link, base_url))

    def simple_script(self, node: CachedNode, mac: str, link: ipxe.Link) -> tuple[str, Decision] | None:
        """What `generate_script` gives a known machine with this MAC, and the decision, where nothing has to be
        looked up, committed or waited for, and nothing the machine says of itself counts; None where that is not so.
        Changes nothing."""
        if node.state in WAITS or self._local_boot_of(node) is LocalBoot.HTTP_404:
            return None
        decision = boot.decide(KnownNode(node.stage, disputed=node.disputed), self._view(), now=0.0)
        return ipxe.render(decision, self._banner(mac, node, link, "")), decision

    @property
    def local_boot(self) -> LocalBoot:
        """The site's, which a node may have another than."""
        return self._site.local_boot

    def has_no_script(self, mac: str) -> bool:
        """Whether `generate_script` would raise NoScript now; changes nothing."""
        return self._leaves_it_to_firmware(*self.decide(MacAddress.parse(mac)))

    def _leaves_it_to_firmware(self, decision: Decision, node: CachedNode | None) -> bool:
        return self._local_boot_of(node) is LocalBoot.HTTP_404 and not isinstance(decision, Install)

    def _local_boot_of(self, node: CachedNode | None) -> LocalBoot:
        return (node.local_boot if node else None) or self._site.local_boot

    def link(self) -> ipxe.Link:
        if not self._link.is_online:
            return ipxe.Link.OFFLINE
        age = self._site.knowledge_age()
        return ipxe.Link.STALE if age is None or age > self._stale_after else ipxe.Link.ONLINE

    def missing(self, workflow: Workflow | None) -> tuple[str, ...]:
        """Content of a workflow that is not whole and verified here, in central's current version."""
        return tuple(name for name in (workflow.content if workflow else ()) if not self._holds(name))

    def absent(self, workflow: Workflow | None) -> tuple[str, ...]:
        """Content of a workflow that central does not have either: a slip of the pen, or not uploaded yet."""
        return tuple(name for name in (workflow.content if workflow else ()) if self._site.content(name) is None)

    def may_install(self, node: CachedNode) -> bool:
        """Whether a boot of this node would install it now."""
        return isinstance(self.decide(MacAddress.parse(node.mac_address))[0], Install)

    def decide(
        self, address: MacAddress, facts: Mapping[str, str] | None = None, *, told: bool = False
    ) -> tuple[Decision, CachedNode | None]:
        """What the machine that says this of itself would be told now, and of which node; changes nothing. `told`:
        central has told of the node this moment."""
        node = self.state_cache.by_mac(address)
        if node is None:
            known: KnownNode | UnknownNode = UnknownNode(self.state_cache.last_state(address))
        else:
            known = self._known(node, facts or {}, age=0.0 if told else self._site.knowledge_age())
        return boot.decide(known, self._view(), now=0.0), node

    def refusal_without_central(self, node: CachedNode) -> str:
        """Why a boot would not install the node if central were gone and the node approved just now; "" if it would."""
        approved = node if node.state in WAITS else node.at(Stage(NodeState.PENDING), node.updated_at)
        known = self._known(approved, {}, self._site.knowledge_age())
        decision = boot.decide(known, replace(self._view(), online=False), now=0.0)
        if isinstance(decision, Install):
            return ""
        # Of a node that is not approved it must not be said that it is.
        reason = decision.reason.removeprefix("" if approved is node else "Its install is approved, but ")
        return reason[:1].upper() + reason[1:]

    async def _settled(self, address: MacAddress, facts: dict[str, str]) -> tuple[Decision, CachedNode | None]:
        asked = told = False
        for _ in range(LOOKS):
            decision, node = self.decide(address, facts, told=told)
            try:
                if node is None and not asked and self._registers(decision, address):
                    asked = True
                    if told := await self._register(address, facts):
                        continue
                    return decision, self.state_cache.by_mac(address)
                return await self._commit(decision, node)
            except Moved:
                continue
            except Busy as error:  # the disk is full, or too many new machines: boots go on, nothing new begins
                return LocalDisk(error.message), node
        return LocalDisk("Several requests of this machine got in each other's way."), self.state_cache.by_mac(address)

    def _registers(self, decision: Decision, address: MacAddress) -> bool:
        """Every machine nobody knows is recorded, but not one whose end is what `last_known` goes by."""
        remembered = self.state_cache.last_state(address) is not None
        by_memory = remembered and self._view().default_action is DefaultAction.LAST_KNOWN and not self._link.is_online
        return not by_memory and not isinstance(decision, Halt)

    async def _register(self, address: MacAddress, facts: dict[str, str]) -> bool:
        """True where central has said more about the machine than that it is new."""
        accepted = await self._journal.register(address, facts=facts)
        await self._proxy.confirmed(accepted, self._confirm_budget)
        node = self.state_cache.by_mac(address)
        return node is not None and node.base is not None and node.state is not NodeState.DISCOVERED

    async def _commit(self, decision: Decision, node: CachedNode | None) -> tuple[Decision, CachedNode | None]:
        if node is None or not isinstance(decision, (LocalDisk, Install)):
            return decision, node
        if decision.edges:
            accepted = await self._journal.begin(node.node_id, decision.edges, token=_carries_token(decision))
            node = accepted.node
            if node.stage != decision.edges[-1].target:
                await self._proxy.confirmed(accepted, self._confirm_budget)
                node = self.state_cache.by_id(node.node_id) or node
                if node.stage != decision.edges[-1].target:
                    return LocalDisk("This site is readonly, and central did not confirm the install in time."), node
        if _carries_token(decision) and not node.boot_token:
            node = await self._journal.issue_token(node)
        return decision, node

    def _note_start(self, decision: Decision, node: CachedNode) -> None:
        if isinstance(decision, Install) and decision.edges and decision.workflow.boot_url:
            self._started[node.node_id] = node.updated_at, self._site.clock.stamp().boottime

    def _begun_elsewhere(self, workflow: Workflow | None, node: CachedNode) -> bool:
        """Nobody tells the site when a machine has fetched what the site does not serve: it counts after a minute."""
        if workflow is None or not workflow.boot_url or node.state is not NodeState.INSTALLING:
            return False
        since, boottime = self._started.get(node.node_id, (None, 0.0))
        if since == node.updated_at:
            age = self._site.clock.stamp().boottime - boottime
        else:  # an earlier life of this agent served it
            age = (datetime.now(UTC) - node.updated_at).total_seconds()
        # Where the wall clock was set back, rather an attempt is lost than a disk wiped in a loop.
        return not 0 <= age <= FETCHED_ELSEWHERE

    def _filled_in(self, decision: Decision, node: CachedNode, base_url: str) -> Decision:
        """The lines of an install with the node's own values in them."""
        if not isinstance(decision, Install) or "{" not in decision.workflow.cmdline + decision.workflow.boot_url:
            return decision
        workflow = decision.workflow
        values = self._variables.of(node, workflow, base_url)
        cmdline, boot_url = render_line(workflow.cmdline, values), render_line(workflow.boot_url, values)
        return replace(decision, workflow=replace(workflow, cmdline=cmdline, boot_url=boot_url))

    def _known(self, node: CachedNode, facts: Mapping[str, str], age: float | None) -> KnownNode:
        """`age`: of what is known, in seconds; None where the clock cannot tell."""
        workflow = self._site.workflow(node.workflow_id)
        waits = node.state in WAITS
        return KnownNode(
            stage=node.stage,
            workflow=workflow,
            missing=self.missing(workflow) if waits else (),
            absent=self.absent(workflow) if waits else (),
            unfit=_unfit(workflow, facts) if waits and workflow else "",
            begun=self._journal.has_begun(node) or self._begun_elsewhere(workflow, node),
            disputed=node.disputed,
            approved_at=None if age is None else -age,
        )

    def _view(self) -> boot.Site:
        document = self._site.document
        action = document.offline_default_action if document else None
        max_age = document.offline_install_max_age if document else None
        link = self.link()
        return boot.Site(
            autonomy=self._site.autonomy if document else Autonomy.LIMITED,
            online=link is not ipxe.Link.OFFLINE,
            stale=link is ipxe.Link.STALE,
            default_action=DefaultAction(action) if action else self.default_action,
            install_max_age=max_age or self._install_max_age,
        )

    def _holds(self, name: str) -> bool:
        document = self._site.content(name)
        return document is not None and self.content_cache.contains(name, document.digest)

    def _banner(self, mac: str, node: CachedNode | None, link: ipxe.Link, base_url: str) -> ipxe.Banner:
        since = self._link.last_online_at
        return ipxe.Banner(
            mac=mac,
            site=self._site.document.name if self._site.document else self.site_id,
            link=link,
            state=str(node.stage) if node else "unknown",
            offline_since=_text(since) if since else "never online",
            last_sync=_moment(self._site.last_pass),
            base_url=base_url,
            token=node.boot_token if node else "",
            local_boot=self._local_boot_of(node),
        )


def _unfit(workflow: Workflow, facts: Mapping[str, str]) -> str:
    try:
        check_line(workflow.cmdline)
        check_line(workflow.boot_url)
    except Invalid as error:
        return f"its workflow cannot be used: {error.message.rstrip('.')}"
    return boot.misfit(workflow, facts)


def _carries_token(decision: Decision) -> bool:
    """An image or a script from elsewhere has no word of ours that could hand one to the installer."""
    return isinstance(decision, Install) and bool(decision.workflow.boots)


def facts_of(hardware_info: dict[str, str]) -> dict[str, str]:
    """`name.hex` is the same fact as `name`, as the hexadecimal digits of its bytes."""
    plain = {name.removesuffix(".hex"): _decoded(name, value) for name, value in hardware_info.items()}
    return clean_facts({FACTS.get(name, name): value for name, value in plain.items() if value})


def _decoded(name: str, value: str) -> str:
    if not name.endswith(".hex"):
        return value
    try:
        return bytes.fromhex(value).decode("utf-8", "replace")
    except ValueError:
        return ""


def _moment(stamp: Stamp | None) -> str:
    return _text(stamp.when) if stamp else "never"


def _text(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
