"""How many runners in a row a queued request has ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; requests that wait already start at 0."""
    op.add_column("requests", sa.Column("ended_runners", sa.Integer(), nullable=False, server_default="0"))
