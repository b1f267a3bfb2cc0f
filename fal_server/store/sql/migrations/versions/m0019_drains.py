"""Log drains."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; there are no drains yet."""
    op.create_table(
        "drains",
        sa.Column("drain_id", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("shown_url", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("apps", sa.JSON(), nullable=False),
        sa.Column("least_level", sa.String(), nullable=False),
        sa.Column("header_names", sa.JSON(), nullable=False),
        sa.Column("signed", sa.Boolean(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("sent_lines", sa.BigInteger(), nullable=False),
        sa.Column("lost_lines", sa.BigInteger(), nullable=False),
        sa.Column("last_sent_at", sa.BigInteger()),
        sa.Column("last_error", sa.String()),
        sa.Column("last_error_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("drain_id", name=op.f("drains_pk")),
    )
    op.create_index("drains_name_ix", "drains", ["account", "name"], unique=True)
    op.create_table(
        "drain_positions",
        sa.Column("drain_id", sa.String(), nullable=False),
        sa.Column("runner_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("drain_id", "runner_id", name=op.f("drain_positions_pk")),
        sa.ForeignKeyConstraint(
            ["drain_id"], ["drains.drain_id"], name=op.f("drain_positions_drain_id_fk"), ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
