"""What central stores (PROTOCOL 1). SQLite and PostgreSQL alike: nothing here belongs to one of them."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """A time in UTC. SQLite keeps no zone, so it is put back on the way out; PostgreSQL may tell another."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite numbers rows by themselves only where the key is exactly INTEGER.
Serial = BigInteger().with_variant(Integer, "sqlite")


def _id(name: str = "id") -> Column[Any]:
    return Column(name, String(64), primary_key=True)


def _times() -> list[Column[Any]]:
    return [Column("created_at", Moment, nullable=False), Column("updated_at", Moment, nullable=False)]


# One row: which life of this database this is (a restore from backup begins a new one), and up to when housekeeping has
# come: it goes by no other clock.
meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("kept_house_at", Moment),
)

site = Table(
    "site",
    metadata,
    _id(),
    Column("name", String(200), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("parent_id", ForeignKey("site.id"), index=True),
    Column("agent_url", Text, nullable=False),
    Column("autonomy_level", String(16), nullable=False),
    # Every level it ever had: an item that claims another was not accepted under it.
    Column("levels_had", JSON, nullable=False, server_default="[]"),
    Column("conflict_resolution", String(16), nullable=False),
    Column("cache_policy", String(16), nullable=False),
    Column("cache_patterns", JSON, nullable=False),
    Column("cache_max_size_gb", Float, nullable=False),
    Column("cache_retention_days", Integer, nullable=False),
    Column("migration_policy", String(16), nullable=False),
    Column("local_boot", String(16), nullable=False, server_default="sanboot"),
    Column("offline_default_action", String(16)),
    Column("offline_install_max_age", Float),
    Column("version", BigInteger, nullable=False),
    *_times(),
)

workflow = Table(
    "workflow",
    metadata,
    _id(),
    Column("name", String(200), nullable=False, unique=True),
    Column("install_method", String(16), nullable=False),
    Column("architecture", String(32), nullable=False),
    Column("boot_mode", String(16), nullable=False),
    Column("kernel", Text, nullable=False),
    Column("initrd", JSON, nullable=False),
    Column("cmdline", Text, nullable=False),
    Column("boot_url", Text, nullable=False),
    Column("templates", JSON, nullable=False),
    Column("done_when", String(16), nullable=False),
    Column("version", BigInteger, nullable=False),
    *_times(),
)

# A deleted file keeps its row: its version must go on rising if the name is used again.
content = Table(
    "content",
    metadata,
    Column("category", String(16), primary_key=True),
    Column("path", String(512), primary_key=True),
    Column("digest", String(80), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("deleted_at", Moment),
)

# A deleted node keeps its row and its history; its MACs are free again, and the first of them is still told here.
node = Table(
    "node",
    metadata,
    _id(),
    Column("home_site_id", String(64), nullable=False),
    Column("mac_address", String(17), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("state_rev", BigInteger, nullable=False),
    Column("hostname", String(255), nullable=False),
    Column("workflow_id", ForeignKey("workflow.id")),
    Column("group_id", String(200)),
    Column("tags", JSON, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("local_boot", String(16)),
    Column("last_seen", Moment),
    Column("stage_at", Moment, nullable=False),
    *_times(),
    Column("deleted_at", Moment),
    # A page of any list is read from one of these, in its order; the last is looked through for text.
    Index(None, "home_site_id", "deleted_at", "id"),
    Index(None, "state", "deleted_at", "id"),
    Index(None, "workflow_id", "deleted_at", "id"),
    Index(None, "deleted_at", "id", "hostname"),
)

node_mac = Table(
    "node_mac",
    metadata,
    Column("mac", String(17), primary_key=True),
    Column("node_id", ForeignKey("node.id"), nullable=False, index=True),
    Column("position", Integer, nullable=False),
)

node_alias = Table(
    "node_alias",
    metadata,
    _id("alias"),
    Column("node_id", ForeignKey("node.id"), nullable=False, index=True),
    Column("site_id", String(64), nullable=False),
    Column("created_at", Moment, nullable=False),
)

node_history = Table(
    "node_history",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("node_id", ForeignKey("node.id"), nullable=False),
    Column("from_state", String(16), nullable=False),
    Column("to_state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("triggered_by", String(16), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("comment", Text, nullable=False),
    Column("occurred_at", Moment, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    Column("site_id", String(64), nullable=False),
    Column("item_id", String(64)),
    Column("forced", Boolean, nullable=False),
    Index(None, "node_id", "seq"),
    # A rowid that is used again would put new rows before old ones.
    sqlite_autoincrement=True,
)

node_event = Table(
    "node_event",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("node_id", ForeignKey("node.id"), nullable=False),
    Column("event", String(100), nullable=False),
    Column("message", Text, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("occurred_at", Moment, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    Column("site_id", String(64), nullable=False),
    Column("item_id", String(64)),
    Index(None, "node_id", "seq"),
    sqlite_autoincrement=True,
)

# The counter a feed's positions come from, and below which position it was compacted away (`floor`).
site_pos = Table(
    "site_pos",
    metadata,
    Column("site", String(64), primary_key=True),
    Column("pos", BigInteger, nullable=False),
    Column("floor", BigInteger, nullable=False),
)

# One row for each entity a site's agent knows of, at the position of its newest change.
feed = Table(
    "feed",
    metadata,
    Column("site", String(64), primary_key=True),
    Column("type", String(16), primary_key=True),
    Column("id", String(600), primary_key=True),
    Column("pos", BigInteger, nullable=False),
    Column("op", String(16), nullable=False),
    Column("version", BigInteger, nullable=False),
    Index(None, "site", "pos", unique=True),
)

# Where a scope's feed ended at some time: what was deleted before it is known to be that old.
feed_mark = Table(
    "feed_mark",
    metadata,
    Column("site", String(64), primary_key=True),
    Column("pos", BigInteger, primary_key=True),
    Column("at", Moment, nullable=False),
)

# `session_epoch` may write until `lease_until`; `fence` counts the sessions.
agent = Table(
    "agent",
    metadata,
    _id(),
    Column("site_id", String(64), nullable=False, index=True),
    Column("credential_hash", String(64), nullable=False, unique=True),
    Column("version", String(100), nullable=False),
    Column("agent_url", Text, nullable=False),
    Column("interval_seconds", Integer, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("report", JSON),
    Column("last_seen", Moment),
    Column("created_at", Moment, nullable=False),
    Column("replaced_at", Moment),
    Column("session_epoch", String(64)),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("lease_until", Moment),
)

# What an agent says became of the items it accepted, by the life of the process that accepted them.
epoch_account = Table(
    "epoch_account",
    metadata,
    Column("agent_id", String(64), primary_key=True),
    Column("epoch", String(64), primary_key=True),
    Column("site_id", String(64), nullable=False, index=True),
    Column("made", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("discarded", BigInteger, nullable=False),
    Column("queued", BigInteger, nullable=False),
    Column("reported_at", Moment, nullable=False),
)

# When central last looked at how silent its agents are, and since when it has done so without a gap.
watch = Table(
    "watch",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Moment),
    Column("back_at", Moment),
)

# `began_at`: the last sign of life before it. `offline_at`: when it had lasted long enough to be more than a hiccup.
# What stands below `ended_at` is known with the heartbeat that ended it; `central_back_at` only where central itself
# was away.
site_outage = Table(
    "site_outage",
    metadata,
    _id(),
    Column("site_id", String(64), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("noticed_at", Moment, nullable=False),
    Column("offline_at", Moment),
    Column("ended_at", Moment),
    Column("agent_offline_seconds", BigInteger),
    Column("agent_back_at", Moment),
    Column("agent_uptime_seconds", BigInteger),
    Column("central_back_at", Moment),
    Index(None, "site_id", "id"),
)
Index(
    "uq_site_outage_open",
    site_outage.c.site_id,
    unique=True,
    sqlite_where=text("ended_at IS NULL"),
    postgresql_where=text("ended_at IS NULL"),
)

# What an operator should know. It stands until what it is about has ended, or for a while; then the next is a new row.
alert = Table(
    "alert",
    metadata,
    _id(),
    Column("site_id", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("times", BigInteger, nullable=False),
    Column("first_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("acknowledged_by", String(200)),
    Column("acknowledged_at", Moment),
    Index(None, "site_id", "id"),
)
Index(
    "uq_alert_standing",
    alert.c.site_id,
    alert.c.kind,
    alert.c.subject,
    unique=True,
    sqlite_where=text("ended_at IS NULL"),
    postgresql_where=text("ended_at IS NULL"),
)

# What a person asked of a site's agent. `handed_at`: when a heartbeat's answer last carried it; it does until the agent
# has said what became of it.
site_command = Table(
    "site_command",
    metadata,
    _id(),
    Column("site_id", String(64), nullable=False),
    Column("command", String(32), nullable=False),
    Column("item_id", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("person", String(200), nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("handed_at", Moment),
    Column("done_at", Moment),
    Column("outcome", String(16)),
    Column("message", Text, nullable=False),
    Index(None, "site_id", "id"),
)
# What waits is looked up by every long poll of every agent.
Index(
    "ix_site_command_waiting",
    site_command.c.site_id,
    sqlite_where=text("done_at IS NULL"),
    postgresql_where=text("done_at IS NULL"),
)

# One row for each site: a new token voids the one before.
agent_token = Table(
    "agent_token",
    metadata,
    Column("site_id", ForeignKey("site.id"), primary_key=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("expires_at", Moment, nullable=False),
    Column("used_at", Moment),
)

admin_credential = Table(
    "admin_credential",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("role", String(16), nullable=False, server_default="admin"),
    Column("created_at", Moment, nullable=False),
)

# Who signs in to the pages. `name` is in lower case, and what history calls them.
person = Table(
    "person",
    metadata,
    _id("name"),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("disabled_at", Moment),
    *_times(),
)

# A browser that is signed in. `used_at` is written now and then only; `expires_at` is the latest end.
person_session = Table(
    "person_session",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("name", ForeignKey("person.name"), nullable=False, index=True),
    Column("created_at", Moment, nullable=False),
    Column("used_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
)

# `expected_rev`: the revision of the node's state that the next item of this chain is made on; none: on no revision
# central knows. `base_generation`: of the base that the chain began on. `epoch` and `seq` account, they never decide
# what is a duplicate.
sync_receipt = Table(
    "sync_receipt",
    metadata,
    _id("item_id"),
    Column("agent_id", String(64), nullable=False),
    Column("site_id", String(64), nullable=False),
    Column("epoch", String(64), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("lane", String(64), nullable=False),
    Column("item_type", String(64), nullable=False),
    Column("payload_hash", String(64), nullable=False),
    Column("autonomy", String(16), nullable=False),
    Column("after", String(64)),
    Column("base_generation", BigInteger),
    Column("base_state_rev", BigInteger),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text),
    Column("node_id", String(64)),
    Column("result_version", BigInteger),
    Column("expected_rev", BigInteger),
    Column("conflict_id", String(64)),
    Column("received_at", Moment, nullable=False),
    Index(None, "agent_id", "epoch", "seq"),
)

sync_conflict = Table(
    "sync_conflict",
    metadata,
    _id(),
    Column("site_id", String(64), nullable=False),
    Column("node_id", String(64), nullable=False),
    Column("node_mac", String(17), nullable=False),
    Column("agent_id", String(64), nullable=False),
    Column("type", String(16), nullable=False),
    Column("base_state", String(16)),
    Column("local_state", String(16), nullable=False),
    Column("central_state", String(16), nullable=False),
    Column("base_rev", BigInteger),
    Column("central_rev", BigInteger, nullable=False, server_default="0"),
    Column("chain", JSON, nullable=False),
    Column("decisions", JSON, nullable=False, server_default="[]"),
    Column("strategy", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("resolution", String(16)),
    Column("resolved_by", String(200)),
    Column("resolved_at", Moment),
    Column("comment", Text, nullable=False),
    Column("expected_rev", BigInteger),
    Column("version", BigInteger, nullable=False),
    Column("local_updated_at", Moment, nullable=False),
    Column("local_uncertainty_ms", BigInteger, nullable=False, server_default="0"),
    Column("central_updated_at", Moment, nullable=False),
    *_times(),
    Index(None, "site_id", "status", "id"),
    Index(None, "status", "id"),
    Index(None, "node_id"),
)
# One open conflict between a site and central for each node.
Index(
    "uq_sync_conflict_open",
    sync_conflict.c.node_id,
    sync_conflict.c.site_id,
    unique=True,
    sqlite_where=text("status = 'pending'"),
    postgresql_where=text("status = 'pending'"),
)
