"""Webhooks of runs of workflows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; the runs that there are have no webhook."""
    op.add_column("workflow_runs", sa.Column("sealed_webhook_url", sa.LargeBinary(), nullable=True))
    op.add_column("workflow_runs", sa.Column("webhook", sa.String(), nullable=False, server_default="none"))
    op.add_column("workflow_runs", sa.Column("webhook_attempts", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("workflow_runs", sa.Column("webhook_at", sa.BigInteger(), nullable=True))
    op.create_index(op.f("workflow_runs_webhook_webhook_at_ix"), "workflow_runs", ["webhook", "webhook_at"])
