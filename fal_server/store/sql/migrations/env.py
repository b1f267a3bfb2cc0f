"""Alembic's entry point. It runs the migrations on the connection and in the transaction of `bring_up_to_date`."""

from __future__ import annotations

from alembic import context

from fal_server.store.sql.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,  # SQLite supports it, but Alembic assumes the opposite
)
with context.begin_transaction():
    context.run_migrations()
