"""What administrators send to central and are shown; what agents speak is in `wire.messages`."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pureboot.core.lifecycle import Autonomy, By, NodeState
from pureboot.core.node import DoneWhen, InstallMethod, LocalBoot
from pureboot.core.reconcile import Strategy
from pureboot.core.roles import Role
from pureboot.wire.beats import FailedItem
from pureboot.wire.messages import (
    AgentMetrics,
    AgentStatus,
    CachePolicy,
    Lenient,
    ListPage,
    MigrationPolicy,
    NodeDocument,
    ReadinessSummary,
    RegisterBody,
    SiteDocument,
    SiteSettings,
    StateBody,
    Strict,
)


class SitePatch(SiteSettings):
    """Only what is sent changes."""

    version: int | None = None
    name: str = Field(default="", min_length=1, max_length=200)
    description: str = ""
    parent_id: str | None = None
    agent_url: str = ""
    autonomy_level: Autonomy = Autonomy.LIMITED
    conflict_resolution: Strategy = Strategy.CENTRAL_WINS
    cache_policy: CachePolicy = CachePolicy.ASSIGNED
    cache_patterns: list[str] = Field(default_factory=list)
    cache_max_size_gb: float = Field(default=50, gt=0)
    cache_retention_days: int = Field(default=30, gt=0)
    migration_policy: MigrationPolicy = MigrationPolicy.MANUAL
    local_boot: LocalBoot = LocalBoot.SANBOOT


class SiteView(SiteDocument):
    """Past the settings, how the site is; what its agent counts is as old as `agent_last_seen`, which
    may be the word of an agent before this one."""

    agent_status: AgentStatus = AgentStatus.UNKNOWN
    agent_last_seen: datetime | None = None
    nodes_total: int = 0
    conflicts_pending: int = 0
    pending_queue_items: int = 0
    failed_queue_items: int = 0
    cache_hit_rate: float | None = None
    readiness: ReadinessSummary | None = None


class Fleet(Lenient):
    """All sites in numbers: how many are in each status."""

    sites: dict[AgentStatus, int]
    sites_total: int


AlertKind = Literal[
    "site_silent", "site_returned", "conflicts", "items_failed", "file_damaged", "fenced", "sync_discarded"
]
Severity = Literal["info", "warning", "critical"]


class Alert(Lenient):
    """`subject`: what of the site it is about: the agent of which a copy was fenced off, the item that was given
    up. `times`: how often it happened, or how many there are. `ended_at` is null while it stands."""

    id: str
    site_id: str
    site_name: str
    kind: AlertKind
    severity: Severity
    subject: str
    message: str
    detail: dict[str, Any]
    times: int
    first_at: datetime
    last_at: datetime
    ended_at: datetime | None
    acknowledged_by: str | None
    acknowledged_at: datetime | None


class Outage(Lenient):
    """`began_at`: the last sign of life before. `offline_at`: when it was more than a hiccup. `agent_…`: what the agent
    told when it was back; `central_back_at`: when central was, if it was away itself. `account` says it in words."""

    id: str
    site_id: str
    agent_id: str
    began_at: datetime
    noticed_at: datetime
    offline_at: datetime | None
    ended_at: datetime | None
    agent_offline_seconds: int | None
    agent_back_at: datetime | None
    agent_uptime_seconds: int | None
    central_back_at: datetime | None
    account: str = ""


class CommandView(Lenient):
    """What somebody asked of a site's agent. `handed_at`: when it was last told; `outcome` is null while it waits."""

    id: str
    site_id: str
    command: str
    item_id: str
    name: str
    reason: str
    person: str
    asked_at: datetime
    handed_at: datetime | None
    done_at: datetime | None
    outcome: Literal["done", "refused", "unknown"] | None
    message: str


class SiteQueue(ListPage[FailedItem]):
    """The site's outbox as the last heartbeat told it: `items` are those that failed, at most 50 of `failed`."""

    site_id: str
    told_at: datetime | None
    epoch: str
    pending: int
    failed: int
    commands: list[CommandView]


class GiveUpBody(Strict):
    reason: str = Field(default="", max_length=2000)


class EpochGap(Lenient):
    """`gap` items of this epoch are neither settled, discarded nor queued; central has `received` of its items."""

    agent_id: str
    epoch: str
    made: int
    settled: int
    discarded: int
    queued: int
    received: int
    gap: int
    reported_at: datetime


class SiteHealth(Lenient):
    """`metrics` are those of the last heartbeat; `nodes` counts the site's nodes by state."""

    site_id: str
    agent_status: AgentStatus
    agent_last_seen: datetime | None
    agent_id: str | None
    metrics: AgentMetrics | None
    nodes: dict[str, int]
    nodes_total: int
    conflicts_pending: int
    notices: list[Alert]
    epoch_gaps: list[EpochGap]


class TokenAnswer(Lenient):
    token: str
    expires_at: datetime


class Revoked(Lenient):
    """How many credentials were good until now."""

    revoked: int


class NodeCreate(Strict):
    """Machines already in service are imported with their state."""

    mac_address: str
    home_site_id: str
    hostname: str = Field(default="", max_length=255)
    workflow_id: str | None = None
    group_id: str | None = Field(default=None, max_length=200)
    tags: list[str] = Field(default_factory=list)
    state: NodeState = NodeState.DISCOVERED
    local_boot: LocalBoot | None = None


class NodePatch(Strict):
    """Only what is sent changes; `workflow_id` and `home_site_id` also take a name. `local_boot` null: as its site."""

    version: int | None = None
    hostname: str = Field(default="", max_length=255)
    workflow_id: str | None = None
    group_id: str | None = Field(default=None, max_length=200)
    tags: list[str] = Field(default_factory=list)
    home_site_id: str = ""
    local_boot: LocalBoot | None = None


class AdminRegisterBody(RegisterBody):
    home_site_id: str


class AdminStateBody(StateBody):
    version: int | None = None


class RegisteredNode(NodeDocument):
    status: Literal["applied"] = "applied"


class EventAnswer(Lenient):
    """`edge` says what became of the step the event stands for; None where it stands for none."""

    status: Literal["applied"] = "applied"
    id: str
    node_id: str
    state: NodeState
    attempt: int
    edge: Literal["applied", "refused"] | None


class HistoryRow(Lenient):
    seq: int
    from_state: NodeState
    to_state: NodeState
    attempt: int
    triggered_by: By
    actor: str
    comment: str
    occurred_at: datetime
    recorded_at: datetime
    site_id: str
    item_id: str | None
    forced: bool


class EventRow(Lenient):
    seq: int
    event: str
    message: str
    metadata: dict[str, Any]
    occurred_at: datetime
    recorded_at: datetime
    site_id: str
    item_id: str | None


class TimelineEntry(Lenient):
    """One thing on a node's time line: a `step` of its lifecycle, or an `event`. `message` is what was said with it.

    Central learned of it `learned_after_seconds` after it happened; that is long where the site was cut off.
    """

    kind: Literal["step", "event"]
    seq: int
    attempt: int
    message: str
    occurred_at: datetime
    recorded_at: datetime
    learned_after_seconds: float
    site_id: str
    item_id: str | None
    from_state: NodeState | None = None
    to_state: NodeState | None = None
    triggered_by: By | None = None
    actor: str = ""
    forced: bool = False
    event: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


class NodeFilter(Strict):
    """Each narrows. `site` and `workflow` are an id or a name; `q` is in the hostname, or a part of a MAC."""

    mac: str | None = None
    state: str | None = None
    site: str | None = None
    workflow: str | None = None
    q: str = Field(default="", max_length=200)


class BulkSelection(Strict):
    """Either `ids` or a `filter`, which may be empty and then means all. `preview`: nothing is changed."""

    ids: list[str] | None = Field(default=None, max_length=10_000)
    filter: NodeFilter | None = None
    preview: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either ids or a filter")
        return self


class BulkAssign(BulkSelection):
    """`workflow_id`: an id or a name; null takes it away."""

    workflow_id: str | None


class BulkMove(BulkSelection):
    state: str
    comment: str = Field(default="", max_length=2000)


class RefusedNode(Lenient):
    node_id: str
    mac_address: str = ""
    code: str
    message: str


class BulkOutcome(Lenient):
    """`unchanged` were like that already. A preview says what would be.

    What stops it half-way, as `busy` does, is the code of the nodes that it kept from their turn: they are `refused`.
    """

    preview: bool
    matched: int
    changed: int
    unchanged: int
    refused: list[RefusedNode]


class WorkflowPatch(Strict):
    """Only what is sent changes."""

    version: int | None = None
    name: str = Field(default="", min_length=1, max_length=200)
    install_method: InstallMethod = InstallMethod.KERNEL
    architecture: str = ""
    boot_mode: Literal["bios", "uefi", "any"] = "any"
    kernel: str = ""
    initrd: list[str] = Field(default_factory=list)
    cmdline: str = ""
    boot_url: str = ""
    templates: dict[str, str] = Field(default_factory=dict)
    done_when: DoneWhen = DoneWhen.REPORT


class PersonCreate(Strict):
    name: str = Field(max_length=200)
    role: Role = Role.VIEWER
    password: str = Field(max_length=2000, repr=False)


class PersonPatch(Strict):
    """Only what is sent changes. A new password, and `disabled`, sign the person out everywhere."""

    role: Role | None = None
    password: str | None = Field(default=None, max_length=2000, repr=False)
    disabled: bool | None = None


class PersonView(Lenient):
    name: str
    role: Role
    disabled: bool
    created_at: datetime
    updated_at: datetime


class TokenCreate(Strict):
    """The token is revoked by this name, so it can stand in an address."""

    name: str = Field(max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$")
    role: Role


class TokenView(Lenient):
    name: str
    role: Role
    created_at: datetime


class NewToken(TokenView):
    token: str


class CommandRequested(Lenient):
    """The site's queue shows what becomes of it, by its id."""

    status: Literal["queued"] = "queued"
    id: str


class Health(Lenient):
    """What `GET /health` answers; agents know central by `product`."""

    status: Literal["ok"] = "ok"
    product: Literal["pureboot-central"] = "pureboot-central"
    version: str
    generation: int
