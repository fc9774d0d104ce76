"""The states of a node, the edges between them, and who may make which edge.

A position is a state *and* an attempt: a second try at an install is an edge of its own
(`installing/1 -> installing/2`), so what is expected, legal or already reached always compares both.
"""

from dataclasses import dataclass
from enum import StrEnum

from pureboot.core.errors import Clash, IllegalEdge, Invalid

MAX_ATTEMPTS = 3


class NodeState(StrEnum):
    DISCOVERED = "discovered"
    PENDING = "pending"
    INSTALLING = "installing"
    INSTALL_FAILED = "install_failed"
    INSTALLED = "installed"
    ACTIVE = "active"
    REPROVISION = "reprovision"
    DEPROVISIONING = "deprovisioning"
    MIGRATING = "migrating"
    SERVING_SOURCE = "serving_source"
    CLONING_TARGET = "cloning_target"
    RETIRED = "retired"

    @classmethod
    def parse(cls, text: str) -> "NodeState":
        try:
            return cls(text)
        except ValueError:
            known = ", ".join(cls)
            raise Invalid(
                f"{text[:40]!r} is not a state.", code="unknown_state", hint=f"Use one of: {known}."
            ) from None


class By(StrEnum):
    """Who makes an edge."""

    ADMIN = "admin"
    SYSTEM = "system"
    NODE = "node"


class Autonomy(StrEnum):
    """What a site may do that central has not confirmed."""

    READONLY = "readonly"
    LIMITED = "limited"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a node stands in its lifecycle. `attempt` counts from 1 while installing and is kept afterwards."""

    state: NodeState
    attempt: int = 0

    def __str__(self) -> str:
        return f"{self.state}, attempt {self.attempt}" if self.state is NodeState.INSTALLING else str(self.state)


@dataclass(frozen=True, slots=True)
class Edge:
    """One step of a node, and who makes it."""

    origin: Stage
    target: Stage
    by: By


_S = NodeState
_ADMIN, _SYSTEM, _NODE = frozenset({By.ADMIN}), frozenset({By.SYSTEM}), frozenset({By.NODE})

TRANSITIONS: dict[tuple[NodeState, NodeState], frozenset[By]] = {
    (_S.DISCOVERED, _S.PENDING): _ADMIN,
    (_S.DISCOVERED, _S.CLONING_TARGET): _ADMIN,
    (_S.PENDING, _S.INSTALLING): _SYSTEM | _NODE,
    (_S.PENDING, _S.DISCOVERED): _ADMIN,
    (_S.PENDING, _S.ACTIVE): _ADMIN,
    (_S.INSTALLING, _S.INSTALLING): _SYSTEM,
    # By system: `done_when: next_boot` installs never report; that the machine came back says that it is installed.
    (_S.INSTALLING, _S.INSTALLED): _NODE | _SYSTEM,
    (_S.INSTALLING, _S.INSTALL_FAILED): _NODE | _SYSTEM,
    (_S.INSTALL_FAILED, _S.PENDING): _ADMIN,
    (_S.INSTALLED, _S.ACTIVE): _NODE | _ADMIN,
    (_S.INSTALLED, _S.REPROVISION): _ADMIN,
    (_S.ACTIVE, _S.REPROVISION): _ADMIN,
    (_S.ACTIVE, _S.DEPROVISIONING): _ADMIN,
    (_S.ACTIVE, _S.MIGRATING): _ADMIN,
    (_S.ACTIVE, _S.SERVING_SOURCE): _ADMIN,
    (_S.ACTIVE, _S.CLONING_TARGET): _ADMIN,
    (_S.REPROVISION, _S.PENDING): _SYSTEM,
    (_S.REPROVISION, _S.ACTIVE): _ADMIN,
    (_S.DEPROVISIONING, _S.RETIRED): _NODE,
    (_S.MIGRATING, _S.ACTIVE): _NODE,
    (_S.SERVING_SOURCE, _S.ACTIVE): _NODE,
    (_S.CLONING_TARGET, _S.INSTALLED): _NODE,
} | {(state, _S.RETIRED): _ADMIN for state in _S if state not in (_S.RETIRED, _S.DEPROVISIONING)}
TRANSITIONS[_S.DEPROVISIONING, _S.RETIRED] = _NODE | _ADMIN


def destination(origin: Stage, state: NodeState) -> Stage:
    """Where an edge from `origin` into `state` leads: installing begins at attempt 1 or goes on with the next one,
    a new approval resets the count, every other edge keeps it."""
    if state is _S.INSTALLING:
        return Stage(state, origin.attempt + 1 if origin.state is _S.INSTALLING else 1)
    if state in (_S.PENDING, _S.REPROVISION, _S.DISCOVERED):
        return Stage(state, 0)
    return Stage(state, origin.attempt)


def is_legal(edge: Edge) -> bool:
    if edge.by is By.SYSTEM and edge.target.state is _S.INSTALL_FAILED and edge.origin.attempt < MAX_ATTEMPTS:
        return False
    return (
        edge.by in TRANSITIONS.get((edge.origin.state, edge.target.state), frozenset())
        and edge.target == destination(edge.origin, edge.target.state)
        and edge.target.attempt <= MAX_ATTEMPTS
    )


def check(edge: Edge) -> None:
    """Raises IllegalEdge and says which edges there are."""
    if is_legal(edge):
        return
    ways = [state for state in _S if is_legal(Edge(edge.origin, destination(edge.origin, state), edge.by))]
    raise IllegalEdge(
        f"A node that is {edge.origin} cannot become {edge.target.state} by {edge.by}.",
        hint=f"From {edge.origin.state}, {edge.by} can make it: {', '.join(ways) or 'nothing else'}.",
    )


def check_forced(origin: Stage, comment: str) -> None:
    """A person may force any edge but one out of retired, and has to say why."""
    if origin.state is _S.RETIRED:
        raise IllegalEdge("A retired node stays retired.", hint="Delete it; it registers anew when it boots.")
    if not comment.strip():
        raise Clash("A forced edge needs a comment.", code="comment_required", hint="Say why in 'comment'.")


def site_may_settle(autonomy: Autonomy) -> bool:
    """Whether people at a site of this level may decide conflicts. What no policy may overwrite, they may not either
    (`reconcile.policy_may_keep`)."""
    return autonomy is not Autonomy.READONLY


def site_may(autonomy: Autonomy, edge: Edge) -> bool:
    """Whether a site of this level may send this edge to central at all (PROTOCOL 5, autonomy).

    `readonly` differs from `limited` in *when* an edge moves the site's own state, not in which edges it may report.
    """
    if edge.by is not By.ADMIN:
        return True
    return autonomy is Autonomy.FULL and edge.target.state not in (_S.RETIRED, _S.DEPROVISIONING)
