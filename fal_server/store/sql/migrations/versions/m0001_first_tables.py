"""The first tables, and the environment `main`."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and insert `main`."""
    op.create_table(
        "environments",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("environments_pk")),
    )
    op.create_table(
        "keys",
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("preset", sa.String(), nullable=False),
        sa.Column("permissions", sa.JSON(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("keys_pk")),
    )
    op.create_table(
        "log_lines",
        sa.Column("runner_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("app_name", sa.String(), nullable=False),
        sa.Column("revision_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("runner_id", "sequence", name=op.f("log_lines_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index("log_lines_app_ix", "log_lines", ["app_name", "timestamp", "runner_id", "sequence"], unique=False)
    op.create_index(op.f("log_lines_runner_id_timestamp_ix"), "log_lines", ["runner_id", "timestamp"], unique=False)
    op.create_index("log_lines_time_ix", "log_lines", ["timestamp", "runner_id", "sequence"], unique=False)
    op.create_table(
        "revisions",
        sa.Column("revision_id", sa.String(), nullable=False),
        sa.Column("app_name", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("sealed_environments", sa.LargeBinary(), nullable=False),
        sa.Column("function", sa.JSON(), nullable=True),
        sa.Column("entrypoint", sa.Text(), nullable=True),
        sa.Column("setup", sa.JSON(), nullable=True),
        sa.Column("run_on_main_thread", sa.Boolean(), nullable=False),
        sa.Column("exposed_port", sa.Integer(), nullable=True),
        sa.Column("metrics_port", sa.Integer(), nullable=True),
        sa.Column("num_gpus", sa.Integer(), nullable=True),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("secret_names", sa.JSON(), nullable=True),
        sa.Column("scaling", sa.JSON(), nullable=False),
        sa.Column("health_check", sa.JSON(), nullable=True),
        sa.Column("termination_grace_seconds", sa.Integer(), nullable=False),
        sa.Column("private_logs", sa.Boolean(), nullable=False),
        sa.Column("retry_config", sa.Text(), nullable=True),
        sa.Column("skip_retry_conditions", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("source_code", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("revision_id", name=op.f("revisions_pk")),
    )
    op.create_index(op.f("revisions_app_name_created_at_ix"), "revisions", ["app_name", "created_at"], unique=False)
    op.create_index(
        op.f("revisions_environment_created_at_ix"), "revisions", ["environment", "created_at"], unique=False
    )
    op.create_table(
        "runners",
        sa.Column("runner_id", sa.String(), nullable=False),
        sa.Column("app_name", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("revision_id", sa.String(), nullable=False),
        sa.Column("machine_type", sa.String(), nullable=False),
        sa.Column("sealed_token", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("desired", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("process", sa.JSON(), nullable=True),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("metrics_port", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ready_at", sa.BigInteger(), nullable=True),
        sa.Column("draining_at", sa.BigInteger(), nullable=True),
        sa.Column("stopping_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("not_before", sa.BigInteger(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("grace_seconds", sa.Integer(), nullable=False),
        sa.Column("kill", sa.Boolean(), nullable=False),
        sa.Column("replaces", sa.String(), nullable=True),
        sa.Column("replaced_by", sa.String(), nullable=True),
        sa.Column("replace_first", sa.Boolean(), nullable=False),
        sa.Column("ephemeral", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("runner_id", name=op.f("runners_pk")),
    )
    op.create_index(op.f("runners_state_ended_at_ix"), "runners", ["state", "ended_at"], unique=False)
    op.create_table(
        "settings",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("settings_pk")),
    )
    op.create_table(
        "apps",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("revision_id", sa.String(), nullable=False),
        sa.Column("next_revision_id", sa.String(), nullable=True),
        sa.Column("auth_mode", sa.String(), nullable=False),
        sa.Column("scaling", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("rollout_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["environment"], ["environments.name"], name=op.f("apps_environment_fk")),
        sa.ForeignKeyConstraint(["next_revision_id"], ["revisions.revision_id"], name=op.f("apps_next_revision_id_fk")),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.revision_id"], name=op.f("apps_revision_id_fk")),
        sa.PrimaryKeyConstraint("name", name=op.f("apps_pk")),
    )
    op.create_index(op.f("apps_environment_ix"), "apps", ["environment"], unique=False)
    op.create_index(op.f("apps_next_revision_id_ix"), "apps", ["next_revision_id"], unique=False)
    op.create_index(op.f("apps_revision_id_ix"), "apps", ["revision_id"], unique=False)
    op.create_table(
        "secrets",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("default_exposed", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(
            ["environment"], ["environments.name"], name=op.f("secrets_environment_fk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("environment", "name", name=op.f("secrets_pk")),
    )
    # ### end Alembic commands ###
    main = sa.table("environments", sa.column("name"), sa.column("is_default"), sa.column("created_at"))
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    op.bulk_insert(main, [{"name": "main", "is_default": True, "created_at": now}])
