"""Who can connect to the port of a runner's metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. Every program can connect to the metrics of present runners."""
    op.add_column("runners", sa.Column("metrics_access", sa.Text(), nullable=False, server_default="open"))
