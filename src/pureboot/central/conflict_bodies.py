"""What is said of conflicts and their settlement, to people and by them."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from pureboot.central.bodies import HistoryRow
from pureboot.core.lifecycle import By, NodeState
from pureboot.core.reconcile import ConflictType, Resolution
from pureboot.wire.messages import ConflictDocument, Lenient, NodeDocument, Strict

# Conflicts that one request settles.
MOST_AT_ONCE = 1000


class ResolveBody(Strict):
    """`version` and `state_rev`: of the conflict and of its node, as they were looked at; moved on, it is refused."""

    resolution: Resolution
    comment: str = Field(default="", max_length=2000)
    version: int | None = None
    state_rev: int | None = None


class UndoBody(Strict):
    """As ResolveBody."""

    comment: str = Field(default="", max_length=2000)
    version: int | None = None
    state_rev: int | None = None


class ConflictFilter(Strict):
    """Each narrows. `site` is an id or a name; `q`: part of a MAC address, a hostname or a state."""

    site: str | None = None
    type: ConflictType | None = None
    q: str | None = Field(default=None, max_length=200)


class ResolveMany(ConflictFilter):
    """The conflicts of `ids`, or, without them, all pending ones that the other fields choose. `preview`: only say what
    it would do."""

    resolution: Resolution
    preview: bool = False
    comment: str = Field(default="", max_length=2000)
    ids: list[str] | None = Field(default=None, min_length=1, max_length=MOST_AT_ONCE)


class ResolveOutcome(Lenient):
    """`reason`: why it was not, where `outcome` is refused. `node_mac` is empty for a conflict that is none."""

    id: str
    node_mac: str = ""
    outcome: Literal["resolved", "refused"]
    reason: str | None = None


class ResolvedMany(Lenient):
    """`left`: how many more the filter would have chosen; ask again for those. A preview changed nothing."""

    preview: bool
    items: list[ResolveOutcome]
    resolved: int
    refused: int
    left: int


class ConflictSummary(ConflictDocument):
    """`central_state` and `central_attempt` are central's now while it is pending, and as they were once it is not.
    `version` and `state_rev` go back with a resolution."""

    site_id: str
    site_name: str
    hostname: str
    central_attempt: int | None
    version: int
    state_rev: int
    created_at: datetime


class StageView(Lenient):
    state: NodeState
    attempt: int


class ChainLink(Lenient):
    """One item of the site's side; `origin` and `target` are None for a registration."""

    item_id: str
    origin: StageView | None
    target: StageView | None
    triggered_by: By | None
    comment: str
    occurred_at: datetime


class PreviewStep(Lenient):
    from_state: NodeState
    to_state: NodeState
    attempt: int
    forced: bool


class Preview(Lenient):
    """What a resolution would do now. `refused`: why it cannot be; then there is no end. `left_out`: edges of the site
    that would not take effect."""

    resolution: Resolution
    end: StageView | None
    steps: list[PreviewStep]
    left_out: int
    refused: str | None


class DecisionView(Lenient):
    """`resolution` None: the decision before it was taken back."""

    at: datetime
    by: str
    comment: str
    resolution: Resolution | None
    before: StageView
    after: StageView


class ConflictView(ConflictSummary):
    """`central_history`: what central did since the site's base, where that is known, else its last steps. `final`: why
    the last decision cannot be taken back; empty where it can."""

    node: NodeDocument | None
    base: StageView | None
    chain: list[ChainLink]
    local_uncertainty_seconds: float
    central_history: list[HistoryRow]
    previews: list[Preview]
    decisions: list[DecisionView]
    final: str
