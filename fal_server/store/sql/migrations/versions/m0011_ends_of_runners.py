"""Why a runner was ended, and how it ended by itself. Both are apart from the reason that people read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Of the present runners, only a start that is being given up has a cause to keep."""
    op.add_column("runners", sa.Column("stop_cause", sa.Text(), nullable=True))
    op.add_column("runners", sa.Column("own_end", sa.Text(), nullable=False, server_default=""))
    op.execute(
        "UPDATE runners SET stop_cause = 'startup_timeout' WHERE state = 'terminating' AND ready_at IS NULL "
        "AND reason LIKE 'not ready within startup_timeout%'"
    )
