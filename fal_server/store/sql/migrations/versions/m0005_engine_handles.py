"""A runner's process as text, and the host of the runner. Only its engine reads the text."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_RUNNERS = sa.table(
    "runners",
    sa.column("runner_id", sa.String()),
    sa.column("state", sa.String()),
    sa.column("port", sa.Integer()),
    sa.column("process", sa.JSON()),
    sa.column("handle", sa.String()),
    sa.column("host", sa.String()),
)


def upgrade() -> None:
    """Add the columns, carry living runners over, drop the former column."""
    op.add_column("runners", sa.Column("handle", sa.String(), nullable=False, server_default=""))
    op.add_column("runners", sa.Column("host", sa.String(), nullable=False, server_default=""))
    connection = op.get_bind()
    living = sa.select(_RUNNERS).where(_RUNNERS.c.state != "terminated")
    for row in connection.execute(living).mappings().all():
        process = row["process"]
        handle = f"{process['pid']}/{process['started_ticks']}" if process else ""
        host = "127.0.0.1" if row["port"] else ""  # until now every runner was on the controller's machine
        mine = _RUNNERS.c.runner_id == row["runner_id"]
        connection.execute(sa.update(_RUNNERS).where(mine).values(handle=handle, host=host))
    op.drop_column("runners", "process")
