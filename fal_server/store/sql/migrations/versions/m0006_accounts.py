"""The account that owns each row. Until now there was one, which is called `local`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_LOCAL = "local"


def upgrade() -> None:
    """Add the column. Names of environments, apps and secrets become unique in an account."""
    for table in ("revisions", "runners", "keys", "requests", "log_lines"):
        op.add_column(table, sa.Column("account", sa.String(), nullable=False, server_default=_LOCAL))
    _replace_index("revisions", "app_name", "created_at", with_account=("account", "app_name", "created_at"))
    _replace_index("revisions", "environment", "created_at", with_account=("account", "environment", "created_at"))
    _replace_index("requests", "app_name", "created_at", with_account=("app_name", "account", "created_at"))
    op.drop_index("log_lines_app_ix", "log_lines")
    op.create_index("log_lines_app_ix", "log_lines", ["app_name", "account", "timestamp", "runner_id", "sequence"])
    # A repeated Idempotency-Key is compared with what is stored, which names the account from now on.
    op.execute(f"UPDATE requests SET idempotency = '{_LOCAL}/' || idempotency WHERE idempotency IS NOT NULL")  # noqa: S608
    _make_names_unique_in_an_account()


def _replace_index(table: str, *columns: str, with_account: tuple[str, ...]) -> None:
    op.drop_index(op.f(f"{table}_{'_'.join(columns)}_ix"), table)
    op.create_index(op.f(f"{table}_{'_'.join(with_account)}_ix"), table, list(with_account))


def _make_names_unique_in_an_account() -> None:
    """Create three tables again with other primary keys. SQLite cannot change those.

    Copies without constraints keep their rows meanwhile. Tables that refer to others are dropped first, because SQLite
    deletes the rows of a dropped table, and foreign keys would delete those that refer to them.
    """
    for table in ("secrets", "apps", "environments"):
        op.execute(f"CREATE TABLE {table}_before AS SELECT * FROM {table}")  # noqa: S608
        op.drop_table(table)
    op.create_table(
        "environments",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("environments_pk")),
    )
    op.create_table(
        "apps",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("revision_id", sa.String(), nullable=False),
        sa.Column("next_revision_id", sa.String(), nullable=True),
        sa.Column("auth_mode", sa.String(), nullable=False),
        sa.Column("scaling", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("next_auth_mode", sa.String(), nullable=True),
        sa.Column("next_scaling", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account", "environment"], ["environments.account", "environments.name"], name=op.f("apps_account_fk")
        ),
        sa.ForeignKeyConstraint(["next_revision_id"], ["revisions.revision_id"], name=op.f("apps_next_revision_id_fk")),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.revision_id"], name=op.f("apps_revision_id_fk")),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("apps_pk")),
    )
    for columns in (["account", "environment"], ["next_revision_id"], ["revision_id"]):
        op.create_index(op.f(f"apps_{'_'.join(columns)}_ix"), "apps", columns)
    op.create_table(
        "secrets",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("default_exposed", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account", "environment"],
            ["environments.account", "environments.name"],
            name=op.f("secrets_account_fk"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("account", "environment", "name", name=op.f("secrets_pk")),
    )
    columns_of = {
        "environments": "name, description, is_default, created_at",
        "apps": "name, environment, revision_id, next_revision_id, auth_mode, scaling, created_at, updated_at, "
        "next_auth_mode, next_scaling",
        "secrets": "environment, name, sealed, created_at, default_exposed",
    }
    for table, names in columns_of.items():
        op.execute(f"INSERT INTO {table} (account, {names}) SELECT '{_LOCAL}', {names} FROM {table}_before")  # noqa: S608
        op.drop_table(f"{table}_before")
