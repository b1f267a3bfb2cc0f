"""Whether a gate stands before a runner's port."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the runners that there are have no gate."""
    op.add_column("runners", sa.Column("gated", sa.Boolean(), nullable=False, server_default=sa.false()))
