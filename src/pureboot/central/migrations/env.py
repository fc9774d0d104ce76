"""What alembic runs: always on the connection that `upgrade` opened."""

from alembic import context

from pureboot.central.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    # The connection begins and commits for real (see db.py), so SQLite's DDL is transactional too.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
