"""What was decided of a conflict, and what the two sides stood on; the autonomy levels a site had."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sync_conflict", sa.Column("base_rev", sa.BigInteger(), nullable=True))
    op.add_column("sync_conflict", sa.Column("central_rev", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("sync_conflict", sa.Column("decisions", sa.JSON(), server_default="[]", nullable=False))
    op.add_column(
        "sync_conflict", sa.Column("local_uncertainty_ms", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.create_index("ix_sync_conflict_status_id", "sync_conflict", ["status", "id"])
    op.create_index("ix_sync_conflict_node_id", "sync_conflict", ["node_id"])
    op.add_column("site", sa.Column("levels_had", sa.JSON(), server_default="[]", nullable=False))
    # Which ones there were before nobody kept; those of today are believed.
    op.execute(
        """UPDATE site SET levels_had = ('["' || autonomy_level || '"]')""" + _AS_JSON[op.get_bind().dialect.name]
    )


_AS_JSON = {"sqlite": "", "postgresql": "::json"}


def downgrade() -> None:
    raise NotImplementedError("Restore the backup that was made before the upgrade.")
