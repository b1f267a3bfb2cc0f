"""Events of apps that no other row tells of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; earlier moves and settings are not known."""
    op.create_table(
        "app_events",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("app_name", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("category", sa.String(), nullable=False),
        sa.Column("called", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String()),
        sa.Column("new_revision_id", sa.String()),
        sa.Column("old_revision_id", sa.String()),
        sa.Column("config", sa.JSON()),
        sa.PrimaryKeyConstraint("account", "app_name", "sequence", name=op.f("app_events_pk")),
    )
    op.create_index(op.f("app_events_at_ix"), "app_events", ["at"])
