"""Alembic's environment: migrations run in the connection and transaction of `undisclosed journal upgrade`."""

from alembic import context

from undisclosed.journal.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
    transaction_per_migration=False,
)
context.run_migrations()
