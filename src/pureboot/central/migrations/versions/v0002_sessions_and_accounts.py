"""Sessions, epoch accounts, notices, and what compacts the feed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epoch_account",
        sa.Column("agent_id", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.String(length=64), nullable=False),
        sa.Column("site_id", sa.String(length=64), nullable=False),
        sa.Column("made", sa.BigInteger(), nullable=False),
        sa.Column("settled", sa.BigInteger(), nullable=False),
        sa.Column("discarded", sa.BigInteger(), nullable=False),
        sa.Column("queued", sa.BigInteger(), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "epoch", name=op.f("pk_epoch_account")),
    )
    op.create_index(op.f("ix_epoch_account_site_id"), "epoch_account", ["site_id"], unique=False)
    op.create_table(
        "feed_mark",
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("pos", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("site", "pos", name=op.f("pk_feed_mark")),
    )
    op.create_table(
        "site_notice",
        sa.Column("site_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("site_id", "kind", "subject", name=op.f("pk_site_notice")),
    )
    op.add_column("agent", sa.Column("session_epoch", sa.String(length=64), nullable=True))
    op.add_column("agent", sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("agent", sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("sync_receipt") as receipt:
        receipt.alter_column("base_generation", existing_type=sa.Integer(), type_=sa.BigInteger())


def downgrade() -> None:
    raise NotImplementedError("Restore the backup that was made before the upgrade.")
