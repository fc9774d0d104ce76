"""Up to when housekeeping has come. Until now that was whenever the watch looked last."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("meta", sa.Column("kept_house_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE meta SET kept_house_at = (SELECT at FROM watch)")


def downgrade() -> None:
    raise NotImplementedError("Restore the backup that was made before the upgrade.")
