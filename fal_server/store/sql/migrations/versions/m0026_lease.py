"""What several controllers share: nodes, the owner, and those that wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables and columns; no controller holds the lease yet."""
    op.create_table(
        "nodes",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("joined_at", sa.BigInteger(), nullable=False),
        sa.Column("drained", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("nodes_pk")),
    )
    op.create_table(
        "controllers",
        sa.Column("directory", sa.String(), nullable=False),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("directory", name=op.f("controllers_pk")),
    )
    op.add_column("epochs", sa.Column("holder", sa.String(), nullable=True))
    op.add_column("epochs", sa.Column("expires_at", sa.BigInteger(), nullable=True))
