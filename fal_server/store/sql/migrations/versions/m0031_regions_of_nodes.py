"""The region of each node. It is needed while the node does not answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; a node fills it in when it answers."""
    op.add_column("nodes", sa.Column("region", sa.Text(), nullable=False, server_default=""))
