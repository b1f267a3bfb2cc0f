"""The GPUs of runners, one by one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. It is not known which GPUs present runners use."""
    op.add_column("runners", sa.Column("gpus", sa.JSON(), nullable=False, server_default="[]"))
