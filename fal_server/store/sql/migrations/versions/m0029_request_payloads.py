"""Inputs and outputs of direct requests, for controllers that keep them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; payloads of earlier requests are not known."""
    op.create_table(
        "request_payloads",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.Column("sealed_input", sa.LargeBinary()),
        sa.Column("sealed_output", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("account", "request_id", name=op.f("request_payloads_pk")),
    )
    op.create_index(op.f("request_payloads_ended_at_ix"), "request_payloads", ["ended_at"])
