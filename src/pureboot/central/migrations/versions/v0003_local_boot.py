"""How machines get to their own disk: of a site, and of a node that needs another way."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("site", sa.Column("local_boot", sa.String(length=16), server_default="sanboot", nullable=False))
    op.add_column("node", sa.Column("local_boot", sa.String(length=16), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("Restore the backup that was made before the upgrade.")
