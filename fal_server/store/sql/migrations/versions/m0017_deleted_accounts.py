"""When an account was deleted whose things are not all removed yet, and how large queued bodies are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; no account that there is was deleted, and the size of a body that there is shows about."""
    op.add_column("accounts", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    op.add_column("request_contents", sa.Column("body_bytes", sa.BigInteger(), nullable=True))
