"""Three-way: where a site's change meets what central did meanwhile.

Only `state` has two writers (the site owns facts, central owns intent), so only stages are compared. `expected` is the
revision the site's change was made on: the base it had from central, or what its own previous change produced.
A stale but clean cache is never a conflict; it is refreshed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pureboot.core.lifecycle import Edge, NodeState, Stage, is_legal


class ConflictType(StrEnum):
    STATE_MISMATCH = "state_mismatch"
    MISSING_LOCAL = "missing_local"
    MISSING_CENTRAL = "missing_central"
    SITE_CLAIM = "site_claim"
    MAC_COLLISION = "mac_collision"


# Which machine it is, or whose: never a policy's to say, and edges alone cannot settle it.
CLAIMS = frozenset({ConflictType.SITE_CLAIM, ConflictType.MAC_COLLISION})


class Strategy(StrEnum):
    """How a site's conflicts are settled without a person."""

    CENTRAL_WINS = "central_wins"
    LAST_WRITE = "last_write"
    SITE_WINS = "site_wins"
    MANUAL = "manual"


class Resolution(StrEnum):
    KEEP_LOCAL = "keep_local"
    KEEP_CENTRAL = "keep_central"
    MERGE = "merge"


ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class InSync:
    """Nothing disagrees: the same stage, or only one side moved since the base."""


@dataclass(frozen=True, slots=True)
class Diverged:
    kind: ConflictType


def compare(base: Stage | None, local: Stage | None, central: Stage | None) -> InSync | Diverged:
    """`base` is None where central never confirmed the node; a side is None where it does not have the node.

    Without a base the two sides are compared as they are.
    """
    if local == central:
        return InSync()
    if local is None:
        return Diverged(ConflictType.MISSING_LOCAL)
    if local == base:
        return InSync()
    if central is None:
        return Diverged(ConflictType.MISSING_CENTRAL)
    return InSync() if central == base else Diverged(ConflictType.STATE_MISMATCH)


@dataclass(frozen=True, slots=True)
class Apply:
    """The change is made on what the site saw: it takes effect."""


@dataclass(frozen=True, slots=True)
class Converged:
    """Central is there already."""


@dataclass(frozen=True, slots=True)
class Illegal:
    """Nobody else moved the node, and the lifecycle has no such edge."""


Verdict = Apply | Converged | Illegal | Diverged


def judge(edge: Edge, central: Stage, state_rev: int, expected: int | None) -> Verdict:
    """What becomes of a site's edge at central, under the node's row lock (PROTOCOL 5).

    An unmoved node decides by legality alone: `expected` may be the revision before a change that was rejected, and
    then `edge.origin` is a stage central never had.
    """
    if state_rev == expected and central != edge.target:
        return Apply() if central == edge.origin and is_legal(edge) else Illegal()
    return Converged() if central == edge.target else Diverged(ConflictType.STATE_MISMATCH)


@dataclass(frozen=True, slots=True)
class Interval:
    """When something happened, as well as the clocks can tell."""

    earliest: datetime
    latest: datetime

    @classmethod
    def around(cls, moment: datetime, uncertainty: timedelta) -> "Interval":
        return cls(moment - uncertainty, moment + uncertainty)

    def is_after(self, other: "Interval") -> bool:
        """Certainly: where they overlap, neither is."""
        return self.earliest > other.latest


def automatic(strategy: Strategy, kind: ConflictType, *, is_later: bool, may_keep: bool) -> Resolution | None:
    """What the site's policy settles without a person; None leaves the conflict pending.

    `is_later`: the site's change is certainly later than central's; `may_keep`: `policy_may_keep` allows it.
    """
    if kind in CLAIMS or strategy is Strategy.MANUAL:
        return None
    if strategy is Strategy.CENTRAL_WINS or (strategy is Strategy.LAST_WRITE and not is_later):
        return Resolution.KEEP_CENTRAL
    if kind is ConflictType.MISSING_CENTRAL:
        return Resolution.KEEP_CENTRAL if strategy is Strategy.LAST_WRITE else None
    return Resolution.KEEP_LOCAL if may_keep else None


# What a site's word overwrites, and where it leads, only if a person at central says so.
_PROTECTED = frozenset({NodeState.DEPROVISIONING, NodeState.RETIRED, NodeState.MIGRATING})
_PERSONS_ONLY = frozenset({NodeState.PENDING, NodeState.REPROVISION, NodeState.DEPROVISIONING, NodeState.RETIRED})


def policy_may_keep(central: Stage, edge: Edge) -> bool:
    """The safety rules that no strategy breaks, whatever the site's policy says (PROTOCOL 5).

    A late report of one attempt closes no other.
    """
    if central.state in _PROTECTED or edge.target.state in _PERSONS_ONLY:
        return False
    both_installing = central.state is edge.origin.state is NodeState.INSTALLING
    return not both_installing or central.attempt == edge.origin.attempt


def replay(central: Stage, chain: list[Edge]) -> list[tuple[Edge, bool]]:
    """`keep_local`: the site's edges on central's stage, each with whether it has to be forced.

    Edges that lead where the node already stands fall away. From retired nothing leads back: the caller refuses that
    (`lifecycle.check_forced`).
    """
    steps: list[tuple[Edge, bool]] = []
    here = central
    for link in chain:
        if link.target == here:
            continue
        edge = Edge(here, link.target, link.by)
        steps.append((edge, not is_legal(edge)))
        here = edge.target
    return steps


def legal_prefix(central: Stage, chain: list[Edge]) -> int:
    """`merge`: how many of the site's edges, from the first on, take effect on central's stage without force."""
    here = central
    for count, link in enumerate(chain):
        if link.target != here and not is_legal(Edge(here, link.target, link.by)):
            return count
        here = link.target
    return len(chain)


def may_keep_local(central: Stage) -> bool:
    return central.state is not NodeState.RETIRED
