"""The queue: requests, their contents, and the deliveries of their webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("app_name", sa.String(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("caller", sa.String(), nullable=True),
        sa.Column("priority", sa.String(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=True),
        sa.Column("no_retry", sa.Boolean(), nullable=False),
        sa.Column("idempotency", sa.String(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("retries", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=True),
        sa.Column("start_deadline", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("runner_id", sa.String(), nullable=True),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_type", sa.String(), nullable=True),
        sa.Column("dead", sa.Boolean(), nullable=False),
        sa.Column("webhook", sa.String(), nullable=False),
        sa.Column("webhook_attempts", sa.Integer(), nullable=False),
        sa.Column("webhook_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("request_id", name=op.f("requests_pk")),
        sa.UniqueConstraint("idempotency", name=op.f("requests_idempotency_uq")),
    )
    op.create_index(op.f("requests_app_name_created_at_ix"), "requests", ["app_name", "created_at"], unique=False)
    op.create_index(op.f("requests_state_completed_at_ix"), "requests", ["state", "completed_at"], unique=False)
    op.create_index(op.f("requests_webhook_webhook_at_ix"), "requests", ["webhook", "webhook_at"], unique=False)
    op.create_table(
        "request_contents",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("sealed_request", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_body", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_answer", sa.LargeBinary(), nullable=True),
        sa.Column("sealed_answer_body", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.request_id"], name=op.f("request_contents_request_id_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("request_id", name=op.f("request_contents_pk")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.request_id"], name=op.f("webhook_deliveries_request_id_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("request_id", "number", name=op.f("webhook_deliveries_pk")),
    )
