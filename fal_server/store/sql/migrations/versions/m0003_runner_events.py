"""Histories and start times of runners, and settings for the next revision. An app takes the settings over with it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, add the columns, drop one that nothing reads."""
    op.create_table(
        "runner_events",
        sa.Column("runner_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["runner_id"], ["runners.runner_id"], name=op.f("runner_events_runner_id_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("runner_id", "sequence", name=op.f("runner_events_pk")),
    )
    for name in ("ordered_at", "first_request_at", "first_byte_at", "unrouted_at"):
        op.add_column("runners", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("apps", sa.Column("next_auth_mode", sa.String(), nullable=True))
    op.add_column("apps", sa.Column("next_scaling", sa.JSON(), nullable=True))
    op.drop_column("apps", "rollout_at")
