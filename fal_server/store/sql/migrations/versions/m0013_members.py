"""Accounts and their members. The account that owned everything until now is `local`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and the account that there is."""
    accounts = op.create_table(
        "accounts",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("nickname", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("full_name", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("accounts_pk")),
        sa.UniqueConstraint("nickname", name=op.f("accounts_nickname_uq")),
    )
    local = {"account": "local", "nickname": "local", "kind": "user", "full_name": "Local account", "created_at": 0}
    op.bulk_insert(accounts, [local])
    op.create_table(
        "members",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.account"], name=op.f("members_account_fk")),
        sa.ForeignKeyConstraint(["user"], ["accounts.account"], name=op.f("members_user_fk")),
        sa.PrimaryKeyConstraint("account", "user", name=op.f("members_pk")),
    )
    op.create_index(op.f("members_user_ix"), "members", ["user"])
