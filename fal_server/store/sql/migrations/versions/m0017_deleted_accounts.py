"""When a half-removed account was deleted, and the sizes of queued bodies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. No present account was deleted, and the size of a present body is roughly known."""
    op.add_column("accounts", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    op.add_column("request_contents", sa.Column("body_bytes", sa.BigInteger(), nullable=True))
