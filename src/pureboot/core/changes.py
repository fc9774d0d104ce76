"""What a site tells central: exactly these kinds of change."""

from dataclasses import dataclass, field

from pureboot.core.lifecycle import MAX_ATTEMPTS, By, Edge, NodeState, Stage, destination
from pureboot.core.mac import MacAddress
from pureboot.core.reconcile import Resolution


@dataclass(frozen=True, slots=True)
class Registration:
    """A machine was seen. `node_id` may be the site's own; central answers with the one that counts."""

    node_id: str
    mac_addresses: tuple[MacAddress, ...]
    hostname: str = ""
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StateUpdate:
    node_id: str
    edge: Edge
    comment: str = ""
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """Something happened to the node; it never moves it. Names may be the site's own."""

    node_id: str
    event: str
    message: str = ""
    metadata: dict[str, object] = field(default_factory=dict)
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """A person at the site decides a conflict of the node; it counts once central confirms it."""

    node_id: str
    conflict_id: str
    resolution: Resolution
    comment: str = ""
    person: str = ""


Change = Registration | StateUpdate | NodeEvent | Settlement


_IMPLIED = {
    "install_started": NodeState.INSTALLING,
    "install_complete": NodeState.INSTALLED,
    "install_failed": NodeState.INSTALL_FAILED,
    "first_boot": NodeState.ACTIVE,
}


def implied_edge(event: str, here: Stage) -> Edge | None:
    """The edge a node's event stands for; it may be illegal, which the caller checks. None: the event says nothing new.

    `install_started` only confirms an install that a boot request began. `install_failed` is one failed attempt: the
    node stays installing, and only the last attempt's failure moves it.
    """
    state = _IMPLIED.get(event)
    if state is None or state is here.state:
        return None
    if state is NodeState.INSTALL_FAILED and here.state is NodeState.INSTALLING and here.attempt < MAX_ATTEMPTS:
        return None
    return Edge(here, destination(here, state), By.NODE)
