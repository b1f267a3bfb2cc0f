"""The quotas of accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the accounts that there are get the usual quotas."""
    op.add_column("accounts", sa.Column("quotas", sa.JSON(), nullable=False, server_default="{}"))
