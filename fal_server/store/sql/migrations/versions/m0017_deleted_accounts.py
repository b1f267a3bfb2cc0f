"""When an account was deleted whose things are not all removed yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; no account that there is was deleted."""
    op.add_column("accounts", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
