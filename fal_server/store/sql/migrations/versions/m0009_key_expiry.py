"""When a key expires, and when it was used last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; keys that are there never expire."""
    for name in ("expires_at", "last_used_at"):
        op.add_column("keys", sa.Column(name, sa.BigInteger(), nullable=True))
