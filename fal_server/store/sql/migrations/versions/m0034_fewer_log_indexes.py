"""One index less for log lines. A runner's times increase with its sequence, which the primary key has."""

from __future__ import annotations

from alembic import op

revision = "0034"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the index of each runner's times."""
    op.drop_index(op.f("log_lines_runner_id_timestamp_ix"), "log_lines")
