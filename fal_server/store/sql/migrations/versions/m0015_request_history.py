"""The request history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; requests that ended before are not known."""
    op.create_table(
        "request_records",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("app_name", sa.String(), nullable=False),
        sa.Column("revision_id", sa.String(), nullable=False),
        sa.Column("runner_id", sa.String()),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("key_id", sa.String()),
        sa.Column("queued", sa.Boolean(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("code", sa.Integer()),
        sa.Column("error_type", sa.String()),
        sa.Column("bytes_in", sa.BigInteger(), nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("cold_start", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("account", "ended_at", "request_id", name=op.f("request_records_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "request_records_app_ix", "request_records", ["account", "app_name", "ended_at", "request_id"], unique=False
    )
    op.create_index("request_records_id_ix", "request_records", ["request_id"], unique=False)
    op.create_table(
        "request_minutes",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("app_name", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("numbers", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("account", "app_name", "endpoint", "at", name=op.f("request_minutes_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("request_minutes_account_at_ix"), "request_minutes", ["account", "at"], unique=False)
    op.create_index(op.f("request_minutes_at_ix"), "request_minutes", ["at"], unique=False)
