"""What a machine that asks for a boot script is told. The page to show a friend.

`decide` is a pure function of the node as it is known, the site, and the time. It decides; it changes nothing: the
edges that have to be committed *before* the script may be served stand in the decision.

Two rules hold it together. An install only starts, or starts over, through an edge that is committed first; so no
approval wipes a disk in a loop. And whenever something is unclear the machine boots its own disk and is told why.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pureboot.core.lifecycle import MAX_ATTEMPTS, Autonomy, By, Edge, NodeState, Stage, destination
from pureboot.core.node import DoneWhen, Workflow


class DefaultAction(StrEnum):
    """What an unknown machine gets while central is unreachable."""

    LOCAL = "local"
    DISCOVERY = "discovery"
    LAST_KNOWN = "last_known"


@dataclass(frozen=True, slots=True)
class Site:
    """The site as a boot decision sees it. `install_max_age` is in seconds. `stale`: central answers, but it has not
    been heard out of late, so that what is known here may be as old as in an outage."""

    autonomy: Autonomy
    online: bool
    default_action: DefaultAction = DefaultAction.LOCAL
    install_max_age: float = 24 * 3600.0
    stale: bool = False


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node as its site knows it.

    `begun`: the attempt in `stage` has taken hold of the machine: it has its kernel and initrd, or said so.
    `approved_at`: when central last showed the approval, on the same clock as `now`; None when the clock cannot tell.
    `missing`: content of the workflow that is not whole and verified on the site's disk. `absent`: content of it that
    central does not have either, so that it could not be fetched. `unfit`: why the workflow is none for this machine,
    as the end of a sentence; see `misfit`.
    """

    stage: Stage
    workflow: Workflow | None = None
    missing: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unfit: str = ""
    begun: bool = False
    disputed: bool = False
    approved_at: float | None = None


@dataclass(frozen=True, slots=True)
class UnknownNode:
    """A MAC that no node has; `last_state` where one had it before it was deleted or moved away."""

    last_state: NodeState | None = None


@dataclass(frozen=True, slots=True)
class LocalDisk:
    reason: str = ""
    edges: tuple[Edge, ...] = ()


@dataclass(frozen=True, slots=True)
class Install:
    workflow: Workflow
    attempt: int
    edges: tuple[Edge, ...] = ()


@dataclass(frozen=True, slots=True)
class Discover:
    """Register the machine with the facts it sent, then boot its disk."""

    reason: str


@dataclass(frozen=True, slots=True)
class Halt:
    """No action: the firmware goes on with its next boot device."""

    reason: str


Decision = LocalDisk | Install | Discover | Halt

_S = NodeState

_DISK_BECAUSE = {
    _S.DISCOVERED: "It waits to be approved.",
    _S.INSTALLED: "",
    _S.ACTIVE: "",
    _S.INSTALL_FAILED: f"Its install failed {MAX_ATTEMPTS} times or was reported as failed. Somebody has to look.",
    _S.MIGRATING: "It is migrating.",
    _S.SERVING_SOURCE: "It serves as a source for cloning.",
    _S.CLONING_TARGET: "It is a target for cloning.",
    _S.DEPROVISIONING: "It is being taken out of service.",
}


def misfit(workflow: Workflow, facts: Mapping[str, str]) -> str:
    """Why the machine that says this of itself is not one the workflow is for; empty where nothing speaks against it.

    iPXE's `platform` is the firmware; its `buildarch` is its own build, i386 on any PC that starts by BIOS.
    """
    firmware = {"efi": "uefi", "pcbios": "bios"}.get(facts.get("platform", ""))
    if firmware and workflow.boot_mode not in ("any", firmware):
        return f"its workflow is for {workflow.boot_mode.upper()}, and this machine starts by {firmware.upper()}"
    build = facts.get("architecture", "")
    if build and workflow.architecture and _is_arm(build) != _is_arm(workflow.architecture):
        return f"its workflow is for {workflow.architecture}, and this machine says {build}"
    return ""


def _is_arm(architecture: str) -> bool:
    return architecture.lower().startswith(("arm", "aarch"))


def decide(node: KnownNode | UnknownNode, site: Site, now: float) -> Decision:
    match node:
        case UnknownNode(last_state):
            return _unknown(last_state, site)
        case KnownNode(disputed=True):
            return LocalDisk("Site and central disagree about this node. It is not touched until that is settled.")
        case KnownNode(stage=Stage(state=_S.RETIRED)):
            return Halt("This node is retired.")
        case KnownNode(stage=Stage(state=_S.PENDING | _S.REPROVISION)):
            return _approved(node, site, now)
        case KnownNode(stage=Stage(state=_S.INSTALLING)):
            return _installing(node, site)
        case _:
            return LocalDisk(_DISK_BECAUSE[node.stage.state])


def _unknown(last_state: NodeState | None, site: Site) -> Decision:
    if site.online or site.default_action is DefaultAction.DISCOVERY:
        return Discover("It is new here and waits to be approved.")
    if site.default_action is DefaultAction.LAST_KNOWN and last_state is not None:
        if last_state is _S.RETIRED:
            return Halt("This node was retired when it was last known here.")
        return LocalDisk(f"It was {last_state} when it was last known here, which alone installs nothing.")
    return LocalDisk("It is not known here.")


def _approved(node: KnownNode, site: Site, now: float) -> Decision:
    if node.workflow is None:
        return LocalDisk("It is approved, but its workflow is not known here.")
    if node.unfit:
        return LocalDisk(f"Its install is approved, but {node.unfit}.")
    if node.absent:
        return LocalDisk(f"Its install is approved, but central has no content {_some(node.absent)}.")
    if refusal := _refusal(node, site, now):
        return LocalDisk(refusal)
    steps = (_S.PENDING, _S.INSTALLING) if node.stage.state is _S.REPROVISION else (_S.INSTALLING,)
    return Install(node.workflow, 1, _path(node.stage, *steps))


def _refusal(node: KnownNode, site: Site, now: float) -> str:
    """Why an approved install must wait for central, or ""."""
    if not site.online and site.autonomy is Autonomy.READONLY:
        return "Its install is approved, but this site may start none without central (readonly)."
    if not site.online and node.missing:
        return f"Its install is approved, but content is missing here: {_some(node.missing)}."
    # That central answers says nothing of whether the approval still stands: its feed does.
    is_current = site.online and not site.stale
    return "" if is_current or site.autonomy is not Autonomy.LIMITED else _too_old(node, site, now)


def _too_old(node: KnownNode, site: Site, now: float) -> str:
    if node.approved_at is None:
        why = "central is not heard out yet" if site.online else "clock unknown"
        return f"Its install is approved, but how old the approval is cannot be told ({why})."
    if (age := now - node.approved_at) > site.install_max_age:
        hours, limit = age / 3600, site.install_max_age / 3600
        return f"Its install was approved, but central last said so {hours:.1f} h ago, and the limit is {limit:g} h."
    return ""


def _installing(node: KnownNode, site: Site) -> Decision:
    workflow, attempt = node.workflow, node.stage.attempt
    if workflow is None:
        return LocalDisk("Its install is in progress, but its workflow is not known here.")
    if node.begun and workflow.done_when is DoneWhen.NEXT_BOOT:
        return _settled(node, site, _S.INSTALLED, "Its install is done: it came back.")
    if node.begun and attempt >= MAX_ATTEMPTS:
        return _settled(node, site, _S.INSTALL_FAILED, f"Its install failed {MAX_ATTEMPTS} times.")
    if node.unfit:
        return LocalDisk(f"Its install waits, since {node.unfit}.")
    if node.absent:
        return LocalDisk(f"Its install waits, since central has no content {_some(node.absent)}.")
    if not site.online and node.missing:
        return LocalDisk(f"Its install waits for content that is missing here: {_some(node.missing)}.")
    if not node.begun:
        return Install(workflow, attempt)
    if not site.online and site.autonomy is Autonomy.READONLY:
        return LocalDisk("Its install has to start over, which this site may not do without central (readonly).")
    return Install(workflow, attempt + 1, _path(node.stage, _S.INSTALLING))


def _settled(node: KnownNode, site: Site, state: NodeState, reason: str) -> LocalDisk:
    # A readonly site decides nothing alone: the edge waits for a boot that central can confirm.
    if not site.online and site.autonomy is Autonomy.READONLY:
        return LocalDisk(reason)
    return LocalDisk(reason, _path(node.stage, state))


def _path(origin: Stage, *states: NodeState) -> tuple[Edge, ...]:
    edges: list[Edge] = []
    for state in states:
        edges.append(Edge(origin, destination(origin, state), By.SYSTEM))
        origin = edges[-1].target
    return tuple(edges)


def _some(names: tuple[str, ...]) -> str:
    """As much as the machine's screen has room for."""
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
