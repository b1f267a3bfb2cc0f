"""The tables, one a noun; migrations/ brings a database to this shape, and a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
)

from fal_server.store.sql.columns import Moment, Words

METADATA = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "fk": "%(table_name)s_%(column_0_name)s_fk",
        "ix": "%(table_name)s_%(column_0_N_name)s_ix",
        "uq": "%(table_name)s_%(column_0_N_name)s_uq",
    }
)
_JSON = JSON(none_as_null=True)

# Facts about the database itself, such as the proof of its master key.
SETTINGS = Table(
    "settings",
    METADATA,
    Column("name", Words, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

ENVIRONMENTS = Table(
    "environments",
    METADATA,
    Column("name", Words, primary_key=True),
    Column("description", Words),
    Column("is_default", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
)

# `sealed_environments` holds the configurations of the environments, which may carry registry passwords.
REVISIONS = Table(
    "revisions",
    METADATA,
    Column("revision_id", Words, primary_key=True),
    Column("app_name", Words, nullable=False),
    Column("environment", Words, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("sealed_environments", LargeBinary, nullable=False),
    Column("function", _JSON),
    Column("entrypoint", Words),
    Column("setup", _JSON),
    Column("run_on_main_thread", Boolean, nullable=False),
    Column("exposed_port", Integer),
    Column("metrics_port", Integer),
    Column("num_gpus", Integer),
    Column("files", _JSON, nullable=False),
    Column("secret_names", _JSON),
    Column("scaling", _JSON, nullable=False),
    Column("health_check", _JSON),
    Column("termination_grace_seconds", Integer, nullable=False),
    Column("private_logs", Boolean, nullable=False),
    Column("retry_config", Words),
    Column("skip_retry_conditions", _JSON, nullable=False),
    Column("metadata", _JSON, nullable=False),
    Column("source_code", Words),
    Index(None, "app_name", "created_at"),
    Index(None, "environment", "created_at"),
)

APPS = Table(
    "apps",
    METADATA,
    Column("name", Words, primary_key=True),
    Column("environment", Words, ForeignKey(ENVIRONMENTS.c.name), nullable=False, index=True),
    Column("revision_id", Words, ForeignKey(REVISIONS.c.revision_id), nullable=False, index=True),
    Column("next_revision_id", Words, ForeignKey(REVISIONS.c.revision_id), index=True),
    Column("auth_mode", Words, nullable=False),
    Column("scaling", _JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("next_auth_mode", Words),
    Column("next_scaling", _JSON),
)

# A runner is remembered for a while after its app and revision are gone: no foreign keys.
RUNNERS = Table(
    "runners",
    METADATA,
    Column("runner_id", Words, primary_key=True),
    Column("app_name", Words, nullable=False),
    Column("environment", Words, nullable=False),
    Column("revision_id", Words, nullable=False),
    Column("machine_type", Words, nullable=False),
    Column("sealed_token", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("state", Words, nullable=False),
    Column("desired", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("node", Words, nullable=False),
    Column("process", _JSON),
    Column("port", Integer),
    Column("metrics_port", Integer),
    Column("ordered_at", Moment),
    Column("started_at", Moment),
    Column("ready_at", Moment),
    Column("first_request_at", Moment),
    Column("first_byte_at", Moment),
    Column("unrouted_at", Moment),
    Column("draining_at", Moment),
    Column("stopping_at", Moment),
    Column("ended_at", Moment),
    Column("not_before", Moment),
    Column("exit_code", Integer),
    Column("grace_seconds", Integer, nullable=False),
    Column("kill", Boolean, nullable=False),
    Column("replaces", Words),
    Column("replaced_by", Words),
    Column("replace_first", Boolean, nullable=False),
    Column("ephemeral", Boolean, nullable=False),
    Column("failed_starts", Integer, nullable=False, server_default="0"),
    Index(None, "state", "ended_at"),
)

# What each runner went through; it goes when its runner is forgotten.
RUNNER_EVENTS = Table(
    "runner_events",
    METADATA,
    Column("runner_id", Words, ForeignKey(RUNNERS.c.runner_id, ondelete="CASCADE"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("state", Words, nullable=False),
    Column("reason", Words, nullable=False),
)

KEYS = Table(
    "keys",
    METADATA,
    Column("key_id", Words, primary_key=True),
    Column("secret_hash", Words, nullable=False),
    Column("scope", Words, nullable=False),
    Column("alias", Words, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("preset", Words, nullable=False),
    Column("permissions", _JSON, nullable=False),
    Column("revoked_at", Moment),
)

SECRETS = Table(
    "secrets",
    METADATA,
    Column("environment", Words, ForeignKey(ENVIRONMENTS.c.name, ondelete="CASCADE"), primary_key=True),
    Column("name", Words, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("default_exposed", Boolean),
)

LOG_LINES = Table(
    "log_lines",
    METADATA,
    Column("runner_id", Words, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("timestamp", BigInteger, nullable=False),  # microseconds since 1970
    Column("level", Words, nullable=False),
    Column("source", Words, nullable=False),
    Column("message", Words, nullable=False),
    Column("app_name", Words, nullable=False),
    Column("revision_id", Words, nullable=False),
    Column("request_id", Words),
    Index(None, "runner_id", "timestamp"),
    Index("log_lines_app_ix", "app_name", "timestamp", "runner_id", "sequence"),
    Index("log_lines_time_ix", "timestamp", "runner_id", "sequence"),
    sqlite_with_rowid=False,
)

# Requests of the queue; `request_contents` holds what they carry, sealed, because it may hold credentials.
REQUESTS = Table(
    "requests",
    METADATA,
    Column("request_id", Words, primary_key=True),
    Column("app_name", Words, nullable=False),
    Column("path", Words, nullable=False),
    Column("method", Words, nullable=False),
    Column("caller", Words),
    Column("priority", Words, nullable=False),
    Column("hint", Words),
    Column("no_retry", Boolean, nullable=False),
    Column("idempotency", Words, unique=True),
    Column("fingerprint", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("retries", _JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("not_before", Moment),
    Column("start_deadline", Moment),
    Column("started_at", Moment),
    Column("completed_at", Moment),
    Column("lease_until", Moment),
    Column("runner_id", Words),
    Column("alone", Boolean, nullable=False),
    Column("status", Integer),
    Column("error", Words),
    Column("error_type", Words),
    Column("dead", Boolean, nullable=False),
    Column("webhook", Words, nullable=False),
    Column("webhook_attempts", Integer, nullable=False),
    Column("webhook_at", Moment),
    Index(None, "app_name", "created_at"),
    Index(None, "state", "completed_at"),
    Index(None, "webhook", "webhook_at"),
)

REQUEST_CONTENTS = Table(
    "request_contents",
    METADATA,
    Column("request_id", Words, ForeignKey(REQUESTS.c.request_id, ondelete="CASCADE"), primary_key=True),
    Column("sealed_request", LargeBinary, nullable=False),
    Column("sealed_body", LargeBinary, nullable=False),
    Column("sealed_answer", LargeBinary),
    Column("sealed_answer_body", LargeBinary),
)

WEBHOOK_DELIVERIES = Table(
    "webhook_deliveries",
    METADATA,
    Column("request_id", Words, ForeignKey(REQUESTS.c.request_id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("status", Integer),
    Column("error", Words),
)
