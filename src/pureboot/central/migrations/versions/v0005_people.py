"""People, their sessions, and the role of a token; the indexes of the node lists."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("admin_credential", sa.Column("role", sa.String(length=16), server_default="admin", nullable=False))
    op.create_table(
        "person",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_person")),
    )
    op.create_table(
        "person_session",
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["person.name"], name=op.f("fk_person_session_name_person")),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_person_session")),
    )
    op.create_index(op.f("ix_person_session_name"), "person_session", ["name"], unique=False)
    op.drop_index("ix_node_home_site_id", "node")
    op.drop_index("ix_node_workflow_id", "node")
    for columns in (
        ["home_site_id", "deleted_at", "id"],
        ["state", "deleted_at", "id"],
        ["workflow_id", "deleted_at", "id"],
        ["deleted_at", "id", "hostname"],
    ):
        op.create_index(op.f("ix_node_" + "_".join(columns)), "node", columns, unique=False)


def downgrade() -> None:
    raise NotImplementedError("Restore the backup that was made before the upgrade.")
