"""Outages, alerts (which notices were), commands that are acknowledged, and what a heartbeat reports."""

from typing import Any

import sqlalchemy as sa
import uuid_utils
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# As they were told before they were alerts.
NOTICES = {
    "fenced": ("critical", "A second copy of this site's agent tried to write and was fenced off. Stop one of them."),
    "sync_discarded": ("info", "Somebody gave up a report of a machine that central does not know."),
}


def upgrade() -> None:
    _create_tables()
    _move_notices()
    op.drop_table("site_notice")
    op.execute("INSERT INTO watch (id) VALUES (1)")
    op.add_column("agent", sa.Column("report", sa.JSON(), nullable=True))
    # At most a `sync` waited there, and an agent hears central out anyway.
    op.drop_column("agent", "commands")


def _create_tables() -> None:
    op.create_table(
        "watch",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("back_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watch")),
    )
    op.create_table(
        "site_outage",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("site_id", sa.String(length=64), nullable=False),
        sa.Column("agent_id", sa.String(length=64), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("noticed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("offline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("agent_offline_seconds", sa.BigInteger(), nullable=True),
        sa.Column("agent_back_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("agent_uptime_seconds", sa.BigInteger(), nullable=True),
        sa.Column("central_back_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_site_outage")),
    )
    op.create_index(op.f("ix_site_outage_site_id_id"), "site_outage", ["site_id", "id"], unique=False)
    _create_partial_index("uq_site_outage_open", "site_outage", ["site_id"], "ended_at IS NULL", unique=True)
    op.create_table(
        "alert",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("site_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_by", sa.String(length=200), nullable=True),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert")),
    )
    op.create_index(op.f("ix_alert_site_id_id"), "alert", ["site_id", "id"], unique=False)
    _create_partial_index("uq_alert_standing", "alert", ["site_id", "kind", "subject"], "ended_at IS NULL", unique=True)
    op.create_table(
        "site_command",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("site_id", sa.String(length=64), nullable=False),
        sa.Column("command", sa.String(length=32), nullable=False),
        sa.Column("item_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("person", sa.String(length=200), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("handed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_site_command")),
    )
    op.create_index(op.f("ix_site_command_site_id_id"), "site_command", ["site_id", "id"], unique=False)
    _create_partial_index("ix_site_command_waiting", "site_command", ["site_id"], "done_at IS NULL", unique=False)


def _create_partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool) -> None:
    op.create_index(name, table, columns, unique=unique, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _move_notices() -> None:
    conn = op.get_bind()
    meta = sa.MetaData()
    notice = sa.Table("site_notice", meta, autoload_with=conn)
    alert = sa.Table("alert", meta, autoload_with=conn)
    rows = conn.execute(sa.select(notice).order_by(notice.c.first_at)).all()
    if rows:
        conn.execute(sa.insert(alert), [_alert_of(row) for row in rows])


def _alert_of(row: sa.Row[Any]) -> dict[str, Any]:
    severity, message = NOTICES.get(row.kind, ("info", "Something happened at this site."))
    return {
        **row._asdict(),
        "id": str(uuid_utils.uuid7()),
        "severity": severity,
        "message": message,
        "ended_at": row.last_at if row.kind == "sync_discarded" else None,
        "acknowledged_by": None,
        "acknowledged_at": None,
    }


def downgrade() -> None:
    raise NotImplementedError("Restore the backup that was made before the upgrade.")
