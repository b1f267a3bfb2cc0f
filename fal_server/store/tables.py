"""The tables, one a noun; migrations/ brings a database to this shape, and a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """An aware datetime as microseconds since 1970, exactly.

    Raises:
        ValueError: it is naive.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} is naive: moments are kept in UTC")
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment(since: int) -> datetime:
    """The inverse of `microseconds`, in UTC."""
    return _EPOCH + timedelta(microseconds=since)


class Moment(TypeDecorator[datetime]):
    """An aware datetime, kept as microseconds since 1970: exact, ordered, and the same in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To the database."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        return None if value is None else moment(value)


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
    Column("name", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

ENVIRONMENTS = Table(
    "environments",
    METADATA,
    Column("name", String, primary_key=True),
    Column("description", Text),
    Column("is_default", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
)

# `sealed_environments` holds the configurations of the environments, which may carry registry passwords.
REVISIONS = Table(
    "revisions",
    METADATA,
    Column("revision_id", String, primary_key=True),
    Column("app_name", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("sealed_environments", LargeBinary, nullable=False),
    Column("function", _JSON),
    Column("entrypoint", Text),
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
    Column("retry_config", Text),
    Column("skip_retry_conditions", _JSON, nullable=False),
    Column("metadata", _JSON, nullable=False),
    Column("source_code", Text),
    Index(None, "app_name", "created_at"),
    Index(None, "environment", "created_at"),
)

APPS = Table(
    "apps",
    METADATA,
    Column("name", String, primary_key=True),
    Column("environment", String, ForeignKey(ENVIRONMENTS.c.name), nullable=False, index=True),
    Column("revision_id", String, ForeignKey(REVISIONS.c.revision_id), nullable=False, index=True),
    Column("next_revision_id", String, ForeignKey(REVISIONS.c.revision_id), index=True),
    Column("auth_mode", String, nullable=False),
    Column("scaling", _JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("next_auth_mode", String),
    Column("next_scaling", _JSON),
)

# A runner is remembered for a while after its app and revision are gone: no foreign keys.
RUNNERS = Table(
    "runners",
    METADATA,
    Column("runner_id", String, primary_key=True),
    Column("app_name", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("revision_id", String, nullable=False),
    Column("machine_type", String, nullable=False),
    Column("sealed_token", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("state", String, nullable=False),
    Column("desired", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("node", String, nullable=False),
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
    Column("replaces", String),
    Column("replaced_by", String),
    Column("replace_first", Boolean, nullable=False),
    Column("ephemeral", Boolean, nullable=False),
    Column("failed_starts", Integer, nullable=False, server_default="0"),
    Index(None, "state", "ended_at"),
)

# What each runner went through; it goes when its runner is forgotten.
RUNNER_EVENTS = Table(
    "runner_events",
    METADATA,
    Column("runner_id", String, ForeignKey(RUNNERS.c.runner_id, ondelete="CASCADE"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", Text, nullable=False),
)

KEYS = Table(
    "keys",
    METADATA,
    Column("key_id", String, primary_key=True),
    Column("secret_hash", String, nullable=False),
    Column("scope", String, nullable=False),
    Column("alias", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("preset", String, nullable=False),
    Column("permissions", _JSON, nullable=False),
    Column("revoked_at", Moment),
)

SECRETS = Table(
    "secrets",
    METADATA,
    Column("environment", String, ForeignKey(ENVIRONMENTS.c.name, ondelete="CASCADE"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("default_exposed", Boolean),
)

LOG_LINES = Table(
    "log_lines",
    METADATA,
    Column("runner_id", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("timestamp", BigInteger, nullable=False),  # microseconds since 1970
    Column("level", String, nullable=False),
    Column("source", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("app_name", String, nullable=False),
    Column("revision_id", String, nullable=False),
    Column("request_id", String),
    Index(None, "runner_id", "timestamp"),
    Index("log_lines_app_ix", "app_name", "timestamp", "runner_id", "sequence"),
    Index("log_lines_time_ix", "timestamp", "runner_id", "sequence"),
    sqlite_with_rowid=False,
)

# Requests of the queue; `request_contents` holds what they carry, sealed, because it may hold credentials.
REQUESTS = Table(
    "requests",
    METADATA,
    Column("request_id", String, primary_key=True),
    Column("app_name", String, nullable=False),
    Column("path", Text, nullable=False),
    Column("method", String, nullable=False),
    Column("caller", String),
    Column("priority", String, nullable=False),
    Column("hint", Text),
    Column("no_retry", Boolean, nullable=False),
    Column("idempotency", String, unique=True),
    Column("fingerprint", String, nullable=False),
    Column("state", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("retries", _JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("not_before", Moment),
    Column("start_deadline", Moment),
    Column("started_at", Moment),
    Column("completed_at", Moment),
    Column("lease_until", Moment),
    Column("runner_id", String),
    Column("alone", Boolean, nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("error_type", String),
    Column("dead", Boolean, nullable=False),
    Column("webhook", String, nullable=False),
    Column("webhook_attempts", Integer, nullable=False),
    Column("webhook_at", Moment),
    Index(None, "app_name", "created_at"),
    Index(None, "state", "completed_at"),
    Index(None, "webhook", "webhook_at"),
)

REQUEST_CONTENTS = Table(
    "request_contents",
    METADATA,
    Column("request_id", String, ForeignKey(REQUESTS.c.request_id, ondelete="CASCADE"), primary_key=True),
    Column("sealed_request", LargeBinary, nullable=False),
    Column("sealed_body", LargeBinary, nullable=False),
    Column("sealed_answer", LargeBinary),
    Column("sealed_answer_body", LargeBinary),
)

WEBHOOK_DELIVERIES = Table(
    "webhook_deliveries",
    METADATA,
    Column("request_id", String, ForeignKey(REQUESTS.c.request_id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("status", Integer),
    Column("error", Text),
)
