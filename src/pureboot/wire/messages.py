"""The bodies both sides speak (PROTOCOL 2, DESIGN 6), and how a push item becomes a change and back.

Times are ISO 8601 in UTC, names snake_case. Requests between agent and central refuse unknown fields; what machines
send and what answers carry is read with unknown fields ignored.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from pureboot.core.changes import Change, NodeEvent, Registration, Settlement, StateUpdate
from pureboot.core.errors import Invalid, PureBootError
from pureboot.core.ipxe import MAX_WORDS, acting_word
from pureboot.core.lifecycle import TRANSITIONS, Autonomy, By, Edge, NodeState, Stage
from pureboot.core.mac import MacAddress
from pureboot.core.node import DoneWhen, InstallMethod, LocalBoot, clean_facts, printable
from pureboot.core.reconcile import Resolution, Strategy
from pureboot.wire.beats import BeatReport, Command, Moment

MESSAGE_LENGTH = 2000
# What a database's integer holds; a number beyond it is a field's mistake, not an item that can never be stored.
BIGGEST = 2**63 - 1
# What PostgreSQL takes for an integer.
Count = Annotated[int, Field(ge=0, lt=2**31)]
# Items of an epoch: more than any life makes, and few enough that sums of them are within BIGGEST.
Tally = Annotated[int, Field(ge=0, le=10**15)]


# JSON has no infinity, and pydantic would read one from text: what is stored or sent again would be broken.
class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


T = TypeVar("T")
B = TypeVar("B", bound=BaseModel)


class ListPage(BaseModel, Generic[T]):
    items: list[T]
    next_cursor: str | None = None


# Documents: what central knows, as the API, the feed and the push answer show it.


class NodeDocument(Lenient):
    id: str
    mac_address: str
    mac_addresses: list[str]
    hostname: str = ""
    state: NodeState
    attempt: int
    version: int
    state_rev: int
    home_site_id: str
    group_id: str | None = None
    workflow_id: str | None = None
    tags: list[str] = []
    facts: dict[str, str] = {}
    local_boot: LocalBoot | None = None
    last_seen: datetime | None = None
    created_at: datetime
    updated_at: datetime

    @property
    def stage(self) -> Stage:
        return Stage(self.state, self.attempt)


class WorkflowBase(Strict):
    """Files are content names, `category/path`."""

    name: str = Field(min_length=1, max_length=200)
    install_method: InstallMethod = InstallMethod.KERNEL
    architecture: str = Field(default="x86_64", max_length=32)
    boot_mode: Literal["bios", "uefi", "any"] = "any"
    kernel: str = ""
    initrd: list[str] = []
    cmdline: str = ""
    boot_url: str = ""
    templates: dict[str, str] = {}
    done_when: DoneWhen = DoneWhen.REPORT


class WorkflowFields(WorkflowBase):
    """What an administrator says of a workflow. What was stored before a rule came is still read."""

    @field_validator("cmdline", "boot_url")
    @classmethod
    def _inert(cls, text: str) -> str:
        if (word := acting_word(text)) is not None:
            raise ValueError(f"iPXE would act on {word[:40]!r} instead of passing it on")
        if len(text.split()) > MAX_WORDS:
            raise ValueError(f"iPXE takes at most {MAX_WORDS} words on a line")
        return text


class WorkflowDocument(WorkflowBase):
    model_config = ConfigDict(extra="ignore")

    id: str
    version: int
    created_at: datetime
    updated_at: datetime


class ContentCategory(StrEnum):
    BOOTLOADERS = "bootloaders"
    SCRIPTS = "scripts"
    TEMPLATES = "templates"
    IMAGES = "images"


class ContentDocument(Lenient):
    category: ContentCategory
    path: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0)
    version: int
    updated_at: datetime

    @property
    def name(self) -> str:
        return f"{self.category}/{self.path}"


class CachePolicy(StrEnum):
    MINIMAL = "minimal"
    ASSIGNED = "assigned"
    MIRROR = "mirror"
    PATTERN = "pattern"


class MigrationPolicy(StrEnum):
    MANUAL = "manual"
    AUTO_ACCEPT = "auto_accept"
    AUTO_RELEASE = "auto_release"
    BIDIRECTIONAL = "bidirectional"


class SiteSettings(Strict):
    """What a site may set for its agent; None leaves the agent's own setting in force."""

    offline_default_action: Literal["local", "discovery", "last_known"] | None = None
    offline_install_max_age: float | None = Field(default=None, gt=0, description="seconds")


class SiteFields(SiteSettings):
    name: str = Field(min_length=1, max_length=200)
    description: str = ""
    parent_id: str | None = None
    agent_url: str = ""
    autonomy_level: Autonomy = Autonomy.LIMITED
    conflict_resolution: Strategy = Strategy.CENTRAL_WINS
    cache_policy: CachePolicy = CachePolicy.ASSIGNED
    cache_patterns: list[str] = []
    cache_max_size_gb: float = Field(default=50, gt=0)
    cache_retention_days: int = Field(default=30, gt=0, le=36500)
    migration_policy: MigrationPolicy = MigrationPolicy.MANUAL
    local_boot: LocalBoot = LocalBoot.SANBOOT


class SiteDocument(SiteFields):
    """A site as its agent sees it on the feed."""

    # What was stored before infinity was refused is still read, so that it can be mended.
    model_config = ConfigDict(extra="ignore", allow_inf_nan=True)

    id: str
    version: int
    created_at: datetime
    updated_at: datetime


class AgentStatus(StrEnum):
    ONLINE = "online"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    UNKNOWN = "unknown"


class ConflictDocument(Lenient):
    """`local_chain` holds the ids of the site's items that wait for or shared this conflict's resolution, in order.
    `local_attempt`: None where the chain brought no edge, or central is older than this field. `version`: 0 where it
    is older than that one."""

    id: str
    version: int = 0
    node_id: str
    node_mac: str
    conflict_type: str
    base_state: str | None
    local_state: str
    local_attempt: int | None = None
    central_state: str
    local_chain: list[str]
    local_updated_at: datetime
    central_updated_at: datetime
    strategy: Strategy
    status: Literal["pending", "resolved"]
    resolved: bool
    resolution: Resolution | None
    resolved_by: str | None
    resolved_at: datetime | None
    comment: str = ""


# Push


class Base(Strict):
    """What the change was made on: central's revision of the node's state, as the agent last stored it."""

    generation: int = Field(ge=0, le=BIGGEST)
    state_rev: int | None = Field(default=None, ge=0, le=BIGGEST)


class PushItem(Strict):
    """`body` is read by `to_change`, so that one bad item is one `rejected` outcome and not a refused batch."""

    id: str = Field(min_length=1, max_length=64)
    epoch: str = Field(min_length=1, max_length=64)
    seq: int = Field(ge=0, le=BIGGEST)
    lane: str = Field(min_length=1, max_length=64)
    item_type: str = Field(max_length=64)
    autonomy: Autonomy = Autonomy.LIMITED
    age_ms: int = Field(default=0, ge=0, le=BIGGEST)
    u_ms: int = Field(default=0, ge=0, le=BIGGEST)
    after: str | None = Field(default=None, max_length=64)
    conflict_id: str | None = Field(default=None, max_length=64)
    base: Base | None = None
    body: dict[str, Any]


class EpochAccount(Strict):
    """What the sender's file knows of the items accepted in one epoch: made = settled + discarded + queued."""

    epoch: str = Field(min_length=1, max_length=64)
    made: Tally
    settled: Tally
    discarded: Tally = 0
    queued: Tally = 0


class PushRequest(Strict):
    """`fence`: of the session (`SessionGrant`); None: the sender knows no sessions."""

    agent_id: str
    epoch: str = Field(max_length=64)
    generation: int
    fence: int | None = Field(default=None, ge=0, le=BIGGEST)
    epoch_accounts: list[EpochAccount] = Field(default=[], max_length=100)
    items: list[PushItem] = Field(max_length=1000)


class Outcome(StrEnum):
    APPLIED = "applied"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"
    RETRY_LATER = "retry_later"


UNKNOWN_NODE = "unknown_node"


class PushResult(Lenient):
    """`first` is the first outcome of a duplicate."""

    id: str
    outcome: Outcome
    first: Outcome | None = None
    canonical_id: str | None = None
    conflict_id: str | None = None
    resolution: Resolution | None = None
    reason: str | None = None

    @property
    def settled(self) -> bool:
        return self.outcome is not Outcome.RETRY_LATER

    @property
    def effect(self) -> Outcome:
        """What became of the item, whichever request settled it."""
        return self.first if self.outcome is Outcome.DUPLICATE and self.first else self.outcome

    @property
    def code(self) -> str:
        """What a rejection begins with."""
        return (self.reason or "").partition(":")[0]


class PushedNode(Lenient):
    """A node as it stands after the commit; `doc` is None where central has deleted it or moved it to another site."""

    id: str
    version: int
    state_rev: int
    state: str
    doc: NodeDocument | None


class Backpressure(Lenient):
    after_ms: int = 0


class PushAnswer(Lenient):
    generation: int
    results: list[PushResult]
    nodes: list[PushedNode] = []
    conflicts: list[ConflictDocument] = []
    backpressure: Backpressure = Backpressure()


class SessionRequest(Strict):
    """`previous_epochs`: the lives of this file before `epoch`; a restart takes its own lease over."""

    agent_id: str
    epoch: str = Field(min_length=1, max_length=64)
    previous_epochs: list[Annotated[str, Field(max_length=64)]] = Field(default=[], max_length=100)


class SessionGrant(Lenient):
    """`spread_ms`: after an outage the first push waits for a random part of it."""

    fence: int
    lease_seconds: int
    spread_ms: int = 0


class FactChange(Strict):
    model_config = ConfigDict(populate_by_name=True)

    origin: str | None = Field(default=None, alias="from")
    to: str


class RegistrationBody(Strict):
    node_id: str = Field(min_length=1, max_length=64)
    mac_addresses: list[str] = Field(min_length=1, max_length=32)
    hostname: str = Field(default="", max_length=255)
    facts: dict[str, str] = {}


class StateUpdateBody(Strict):
    """`from_attempt` and `triggered_by` may be left out where the lifecycle leaves one answer."""

    from_state: NodeState
    to_state: NodeState
    attempt: int = Field(default=0, ge=0, le=1000)
    from_attempt: int | None = Field(default=None, ge=0, le=1000)
    triggered_by: By | None = None
    comment: str = Field(default="", max_length=MESSAGE_LENGTH)
    facts: dict[str, FactChange] = {}

    def edge(self) -> Edge:
        origin = Stage(self.from_state, self._origin_attempt())
        makers = TRANSITIONS.get((self.from_state, self.to_state), frozenset({By.NODE}))
        by = self.triggered_by or (By.NODE if By.NODE in makers else min(makers, key=lambda m: m is By.ADMIN))
        return Edge(origin, Stage(self.to_state, self.attempt), by)

    def _origin_attempt(self) -> int:
        if self.from_attempt is not None:
            return self.from_attempt
        if self.to_state is NodeState.INSTALLING:
            return self.attempt - 1 if self.from_state is NodeState.INSTALLING else 0
        return self.attempt


class NodeEventBody(Strict):
    event: str = Field(min_length=1, max_length=100)
    message: str = Field(default="", max_length=MESSAGE_LENGTH)
    metadata: dict[str, Any] = Field(default_factory=dict)
    attempt: int = Field(default=0, ge=0, le=1000)


class SettlementBody(Strict):
    conflict_id: str = Field(min_length=1, max_length=64)
    resolution: Resolution
    comment: str = Field(default="", max_length=MESSAGE_LENGTH)
    person: str = Field(default="", max_length=200)


class DiscardBody(Strict):
    """A person gave the item up; central keeps that it was."""

    item_id: str = Field(min_length=1, max_length=64)
    item_type: str = Field(max_length=64)
    lane: str = Field(max_length=64)
    reason: str = Field(default="", max_length=MESSAGE_LENGTH)
    person: str = Field(default="", max_length=200)


DISCARDED = "sync_discarded"


def to_change(item: PushItem) -> Change:
    """Raises PureBootError with one sentence for a type or a body that cannot be read."""
    try:
        match item.item_type:
            case "registration":
                registration = RegistrationBody.model_validate(item.body)
                macs = tuple(dict.fromkeys(MacAddress.parse(mac) for mac in registration.mac_addresses))
                facts = clean_facts(dict(registration.facts))
                return Registration(registration.node_id, macs, printable(registration.hostname, 255), facts)
            case "state_update":
                update = StateUpdateBody.model_validate(item.body)
                facts = clean_facts({name: change.to for name, change in update.facts.items()})
                return StateUpdate(item.lane, update.edge(), printable(update.comment, MESSAGE_LENGTH), facts)
            case "event":
                event = NodeEventBody.model_validate(item.body)
                name, message = printable(event.event, 100), printable(event.message, MESSAGE_LENGTH)
                return NodeEvent(item.lane, name, message, event.metadata, event.attempt)
            case "settlement":
                settlement = SettlementBody.model_validate(item.body)
                comment, person = printable(settlement.comment, MESSAGE_LENGTH), printable(settlement.person, 200)
                return Settlement(item.lane, settlement.conflict_id, settlement.resolution, comment, person)
            case "discard":
                discard = DiscardBody.model_validate(item.body)
                about = discard.model_dump(exclude={"reason"})
                return NodeEvent(item.lane, DISCARDED, printable(discard.reason, MESSAGE_LENGTH), about)
            case unknown:
                raise Invalid(f"There is no item type {unknown[:40]!r}.", code="unknown_type")
    except ValidationError as error:
        raise explain(error) from None


def to_body(change: Change) -> tuple[str, dict[str, Any]]:
    """The item type and body that `to_change` reads back."""
    match change:
        case Registration(node_id, macs, hostname, facts):
            registration = RegistrationBody(
                node_id=node_id, mac_addresses=[str(mac) for mac in macs], hostname=hostname, facts=facts
            )
            return "registration", registration.model_dump(mode="json")
        case StateUpdate(_, edge, comment, facts):
            update = StateUpdateBody(
                from_state=edge.origin.state,
                to_state=edge.target.state,
                attempt=edge.target.attempt,
                from_attempt=edge.origin.attempt,
                triggered_by=edge.by,
                comment=comment,
                facts={name: FactChange(to=value) for name, value in facts.items()},
            )
            return "state_update", update.model_dump(mode="json", by_alias=True)
        case NodeEvent(_, event, message, metadata, attempt):
            happened = NodeEventBody(event=event, message=message, metadata=metadata, attempt=attempt)
            return "event", happened.model_dump(mode="json")
        case Settlement(_, conflict_id, resolution, comment, person):
            settled = SettlementBody(conflict_id=conflict_id, resolution=resolution, comment=comment, person=person)
            return "settlement", settled.model_dump(mode="json")


def valid(model: type[B], values: object) -> B:
    """Past the edge, where nobody expects a foreign error any more. Raises Invalid."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explain(error) from None


def explain(error: ValidationError) -> PureBootError:
    """Foreign validation errors as one sentence that names the first bad field."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:100] or "body"
    return Invalid(f"{where}: {first['msg']}.", hint=f"{error.error_count()} field(s) to mend.")


# Feed


class FeedItem(Lenient):
    pos: int
    type: Literal["node", "workflow", "content", "site", "conflict", "alias"]
    op: Literal["upsert", "delete", "moved_out"]
    id: str
    version: int = 0
    doc: dict[str, Any] = {}


class FeedPage(Lenient):
    """`next` is opaque: the site's position and the one of workflows and content. `beat`: somebody waits for this
    agent's next heartbeat."""

    generation: int
    items: list[FeedItem]
    next: str
    more: bool
    beat: bool = False


# Agents


class AgentRegistration(Strict):
    """`site`, an id or a name, guards against a token meant for another site; empty: whichever the token is for."""

    token: str
    site: str = ""
    version: str = ""
    agent_url: str = ""


class AgentCredential(Lenient):
    """Shown once. `heartbeat_interval` is in seconds."""

    agent_id: str
    site_id: str
    credential: str
    heartbeat_interval: int = 60


class NodeReadiness(Lenient):
    """`ready`: without central, a boot would install it, once it is `approved`; else `reason` says what keeps it."""

    node_id: str
    mac_address: str
    hostname: str
    state: NodeState
    workflow_id: str | None
    workflow: str
    approved: bool
    ready: bool
    reason: str


class MissingContent(Lenient):
    """`size` is None for what central has not got either."""

    name: str
    size: int | None


class ReadinessSummary(Lenient):
    """Of `total` nodes that have a workflow the site can install `ready` without central. `missing` names the first of
    `missing_total` files that it lacks for the others."""

    ready: int = 0
    total: int = 0
    missing: list[str] = []
    missing_total: int = 0

    def sentence(self, site: str) -> str:
        if not self.total:
            return f"Site {site} has no machine with a workflow."
        told = f"Site {site} can install {self.ready} of {self.total} machines without central."
        if not self.missing:
            return told
        more = self.missing_total - len(self.missing)
        return f"{told} Missing: {', '.join(self.missing)}{f' and {more} more' if more > 0 else ''}."


class ReadinessReport(Lenient):
    """`summary` is a sentence for people. The nodes that are not ready come first, of those the approved ones."""

    summary: str
    ready: int
    total: int
    missing: list[MissingContent]
    items: list[NodeReadiness]


class AgentMetrics(Lenient):
    """What a heartbeat says of its site. Names and defaults of the offline fields are the user's contract. `report` is
    only in the heartbeat itself; an agent of before has none."""

    version: str = ""
    uptime_seconds: Count = 0
    services: dict[str, str] = {}
    nodes_seen_last_hour: Count = 0
    active_boots: Count = 0
    cache_hit_rate: float = Field(default=0.0, ge=0, le=1)
    cache_bytes: int = Field(default=0, ge=0, le=BIGGEST)
    cache_limit_bytes: int = Field(default=0, ge=0, le=BIGGEST)
    cache_files: Count = 0
    disk_free_bytes: int = Field(default=0, ge=0, le=BIGGEST)
    readiness: ReadinessSummary = ReadinessSummary()
    last_sync_at: Moment | None = None

    is_online: bool = True
    last_online_at: Moment | None = None
    offline_duration_seconds: Count = 0
    pending_queue_items: Count = 0
    failed_queue_items: Count = 0
    conflicts_pending: Count = 0

    report: BeatReport | None = None


class Heartbeat(Strict):
    agent_id: str
    interval_seconds: int = Field(default=60, gt=0, le=86400)
    metrics: AgentMetrics


class HeartbeatAnswer(Lenient):
    status: Literal["ok"] = "ok"
    commands: list[Command] = []


# What machines send to an agent (and administrators to central): unknown fields are ignored.


class RegisterBody(Lenient):
    model_config = ConfigDict(populate_by_name=True)

    mac_address: str = Field(validation_alias=AliasChoices("mac_address", "mac"))
    hostname: Annotated[str, AfterValidator(lambda name: printable(name, 255))] = ""
    vendor: str | None = None
    model: str | None = None
    serial_number: str | None = None
    system_uuid: str | None = None
    ip_address: str | None = None
    report_id: str | None = Field(default=None, max_length=200)

    def facts(self) -> dict[str, str]:
        return clean_facts(self.model_dump())


class StateBody(Lenient):
    state: str
    comment: str = ""
    force: bool = False
    report_id: str | None = Field(default=None, max_length=200)
    boot_token: str | None = None


class EventBody(Lenient):
    event: str = Field(min_length=1, max_length=100)
    message: str = ""
    status: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)
    report_id: str | None = Field(default=None, max_length=200)
    boot_token: str | None = None


class ReportBody(EventBody):
    model_config = ConfigDict(populate_by_name=True)

    mac_address: str = Field(validation_alias=AliasChoices("mac_address", "mac"))
