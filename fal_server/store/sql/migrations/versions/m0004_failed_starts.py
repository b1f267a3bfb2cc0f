"""The number of consecutive failed starts. With it, waits after failures survive a restart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("runners", sa.Column("failed_starts", sa.Integer(), nullable=False, server_default="0"))
