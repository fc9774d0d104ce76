"""Three-way: where a site's change meets what central did meanwhile.

Only `state` has two writers (the site owns facts, central owns intent), so only stages are compared. `expected` is the
revision the site's change was made on: the base it had from central, or what its own previous change produced.
A stale but clean cache is never a conflict; it is refreshed.
"""

from dataclasses import dataclass
from enum import StrEnum

from pureboot.core.lifecycle import Edge, NodeState, Stage, is_legal


class ConflictType(StrEnum):
    STATE_MISMATCH = "state_mismatch"
    MISSING_LOCAL = "missing_local"
    MISSING_CENTRAL = "missing_central"
    SITE_CLAIM = "site_claim"
    MAC_COLLISION = "mac_collision"


class Strategy(StrEnum):
    """How a site's conflicts are settled. `last_write` and `site_wins` are stored, and decided as `manual` so far."""

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


def automatic(strategy: Strategy) -> Resolution | None:
    """What the site's policy settles without a person; None leaves the conflict pending."""
    return Resolution.KEEP_CENTRAL if strategy is Strategy.CENTRAL_WINS else None


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


def may_keep_local(central: Stage) -> bool:
    return central.state is not NodeState.RETIRED
