"""The tables, one for each noun. A test compares them with the result of migrations/."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    BindParameter,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    false,
    true,
)

from fal_server.core.identity import EVERY_ACCOUNT, LOCAL, Accounts
from fal_server.store.sql.columns import Text, UtcTimestamp

METADATA = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "fk": "%(table_name)s_%(column_0_name)s_fk",
        "ix": "%(table_name)s_%(column_0_N_name)s_ix",
        "uq": "%(table_name)s_%(column_0_N_name)s_uq",
    }
)
_JSON = JSON(none_as_null=True)


def _account() -> Column[str]:
    """Return the column for a row's owner. Only rows that are older than accounts have the default."""
    return Column("account", Text, nullable=False, server_default=LOCAL)


# Facts about the database itself, such as the proof of its master key.
SETTINGS = Table(
    "settings",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

ACCOUNTS = Table(
    "accounts",
    METADATA,
    Column("account", Text, primary_key=True),
    Column("nickname", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("full_name", Text, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("quotas", _JSON, nullable=False, server_default="{}"),
    Column("deleted_at", UtcTimestamp),
)

# The members of the teams among the accounts.
MEMBERS = Table(
    "members",
    METADATA,
    Column("account", Text, ForeignKey(ACCOUNTS.c.account), primary_key=True),
    Column("user", Text, ForeignKey(ACCOUNTS.c.account), primary_key=True, index=True),
    Column("role", Text, nullable=False),
    Column("added_at", UtcTimestamp, nullable=False),
)

ENVIRONMENTS = Table(
    "environments",
    METADATA,
    Column("account", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("description", Text),
    Column("is_default", Boolean, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
)

# `sealed_environments` contains the configurations of the environments, which may include registry passwords.
REVISIONS = Table(
    "revisions",
    METADATA,
    _account(),
    Column("revision_id", Text, primary_key=True),
    Column("app_name", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
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
    Index(None, "account", "app_name", "created_at"),
    Index(None, "account", "environment", "created_at"),
)

APPS = Table(
    "apps",
    METADATA,
    Column("account", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("environment", Text, nullable=False),
    Column("revision_id", Text, ForeignKey(REVISIONS.c.revision_id), nullable=False, index=True),
    Column("next_revision_id", Text, ForeignKey(REVISIONS.c.revision_id), index=True),
    Column("auth_mode", Text, nullable=False),
    Column("scaling", _JSON, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("updated_at", UtcTimestamp, nullable=False),
    Column("next_auth_mode", Text),
    Column("next_scaling", _JSON),
    ForeignKeyConstraint(["account", "environment"], [ENVIRONMENTS.c.account, ENVIRONMENTS.c.name]),
    Index(None, "account", "environment"),
)

# No foreign keys, because a runner is kept for a while after its app and revision are deleted.
RUNNERS = Table(
    "runners",
    METADATA,
    _account(),
    Column("runner_id", Text, primary_key=True),
    Column("app_name", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("revision_id", Text, nullable=False),
    Column("machine_type", Text, nullable=False),
    Column("sealed_token", LargeBinary, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("state", Text, nullable=False),
    Column("desired", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("stop_cause", Text),
    Column("own_end", Text, nullable=False, server_default=""),
    Column("node", Text, nullable=False),
    Column("handle", Text, nullable=False, server_default=""),
    Column("host", Text, nullable=False, server_default=""),
    Column("port", Integer),
    Column("metrics_port", Integer),
    Column("gated", Boolean, nullable=False, server_default=false()),
    Column("metrics_access", Text, nullable=False, server_default="open"),
    Column("ordered_at", UtcTimestamp),
    Column("started_at", UtcTimestamp),
    Column("ready_at", UtcTimestamp),
    Column("first_request_at", UtcTimestamp),
    Column("first_byte_at", UtcTimestamp),
    Column("unrouted_at", UtcTimestamp),
    Column("draining_at", UtcTimestamp),
    Column("stopping_at", UtcTimestamp),
    Column("ended_at", UtcTimestamp),
    Column("not_before", UtcTimestamp),
    Column("exit_code", Integer),
    Column("grace_seconds", Integer, nullable=False),
    Column("kill", Boolean, nullable=False),
    Column("replaces", Text),
    Column("replaced_by", Text),
    Column("replace_first", Boolean, nullable=False),
    Column("ephemeral", Boolean, nullable=False),
    Column("failed_starts", Integer, nullable=False, server_default="0"),
    Column("gpus", _JSON, nullable=False, server_default="[]"),
    Index(None, "state", "ended_at"),
)

# The histories of runners; they are deleted with their runners.
RUNNER_EVENTS = Table(
    "runner_events",
    METADATA,
    Column("runner_id", Text, ForeignKey(RUNNERS.c.runner_id, ondelete="CASCADE"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcTimestamp, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

# Moves to revisions and changes of settings; they are kept when their app is deleted, like the histories of runners.
APP_EVENTS = Table(
    "app_events",
    METADATA,
    Column("account", Text, primary_key=True),
    Column("app_name", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcTimestamp, nullable=False, index=True),
    Column("category", Text, nullable=False),
    Column("called", Boolean, nullable=False),
    Column("reason", Text),
    Column("new_revision_id", Text),
    Column("old_revision_id", Text),
    Column("config", _JSON),
)

KEYS = Table(
    "keys",
    METADATA,
    _account(),
    Column("key_id", Text, primary_key=True),
    Column("secret_hash", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("alias", Text, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("preset", Text, nullable=False),
    Column("permissions", _JSON, nullable=False),
    Column("revoked_at", UtcTimestamp),
    Column("expires_at", UtcTimestamp),
    Column("last_used_at", UtcTimestamp),
)

# Rows are added and never changed; `digest` covers the row and the previous one.
AUDIT = Table(
    "audit",
    METADATA,
    Column("account", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcTimestamp, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("digest", Text, nullable=False),
)

SECRETS = Table(
    "secrets",
    METADATA,
    Column("account", Text, primary_key=True),
    Column("environment", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("default_exposed", Boolean),
    ForeignKeyConstraint(["account", "environment"], [ENVIRONMENTS.c.account, ENVIRONMENTS.c.name], ondelete="CASCADE"),
)

LOG_LINES = Table(
    "log_lines",
    METADATA,
    Column("runner_id", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("timestamp", BigInteger, nullable=False),  # microseconds since 1970
    Column("level", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("message", Text, nullable=False),
    _account(),
    Column("app_name", Text, nullable=False),
    Column("revision_id", Text, nullable=False),
    Column("request_id", Text),
    Index("log_lines_app_ix", "app_name", "account", "timestamp", "runner_id", "sequence"),
    Index("log_lines_time_ix", "timestamp", "runner_id", "sequence"),
    sqlite_with_rowid=False,
)

# Thousands of an app's lines each, to search in. They are copies: a search then reads the matching rows.
LOG_SEGMENTS = Table(
    "log_segments",
    METADATA,
    Column("account", Text, primary_key=True),
    Column("app_name", Text, primary_key=True),
    Column("until_at", BigInteger, primary_key=True, autoincrement=False),  # microseconds; the first time after it
    Column("begin_at", BigInteger, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("grams", LargeBinary, nullable=False),
    Column("places", LargeBinary, nullable=False),
    Column("text", LargeBinary, nullable=False),
    Index(None, "begin_at"),
)

# Receivers of log lines; `sealed` holds URL, headers and key, which may be credentials.
DRAINS = Table(
    "drains",
    METADATA,
    Column("drain_id", Text, primary_key=True),
    Column("account", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("shown_url", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("apps", _JSON, nullable=False),
    Column("least_level", Text, nullable=False),
    Column("header_names", _JSON, nullable=False),
    Column("signed", Boolean, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("since", UtcTimestamp, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("sent_lines", BigInteger, nullable=False),
    Column("lost_lines", BigInteger, nullable=False),
    Column("last_sent_at", UtcTimestamp),
    Column("last_error", Text),
    Column("last_error_at", UtcTimestamp),
    Index("drains_name_ix", "account", "name", unique=True),
)

# The cursor of a drain: the last line of each runner that was sent or skipped.
DRAIN_POSITIONS = Table(
    "drain_positions",
    METADATA,
    Column("drain_id", Text, ForeignKey(DRAINS.c.drain_id, ondelete="CASCADE"), primary_key=True),
    Column("runner_id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

NOTICES = Table(
    "notices",
    METADATA,
    Column("notice_id", Text, primary_key=True),
    Column("account", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("form", Text, nullable=False),
    Column("receiver", Text, nullable=False),
    Column("thresholds", _JSON, nullable=False),
    Column("apps", _JSON, nullable=False),
    Column("signed", Boolean, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("last_sent_at", UtcTimestamp),
    Column("last_error", Text),
    Column("last_error_at", UtcTimestamp),
    Index("notices_name_ix", "account", "name", unique=True),
)

# The problems of which a notice tells, until its receiver knows of their ends.
NOTICE_PROBLEMS = Table(
    "notice_problems",
    METADATA,
    Column("notice_id", Text, ForeignKey(NOTICES.c.notice_id, ondelete="CASCADE"), primary_key=True),
    Column("condition", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("value", Float, nullable=False),
    Column("detail", Text, nullable=False),
    Column("began_at", UtcTimestamp, nullable=False),
    Column("told_at", UtcTimestamp),
    Column("missing_since", UtcTimestamp),
    Column("ended_at", UtcTimestamp),
)

# Requests of the queue. Headers and bodies are sealed in `request_contents`, because they may contain credentials.
REQUESTS = Table(
    "requests",
    METADATA,
    Column("request_id", Text, primary_key=True),
    _account(),
    Column("app_name", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("caller", Text),
    Column("priority", Text, nullable=False),
    Column("hint", Text),
    Column("no_retry", Boolean, nullable=False),
    Column("idempotency", Text, unique=True),
    Column("fingerprint", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("retries", _JSON, nullable=False),
    Column("ended_runners", Integer, nullable=False, server_default="0"),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("not_before", UtcTimestamp),
    Column("start_deadline", UtcTimestamp),
    Column("started_at", UtcTimestamp),
    Column("completed_at", UtcTimestamp),
    Column("lease_until", UtcTimestamp),
    Column("runner_id", Text),
    Column("alone", Boolean, nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("error_type", Text),
    Column("dead", Boolean, nullable=False),
    Column("webhook", Text, nullable=False),
    Column("webhook_attempts", Integer, nullable=False),
    Column("webhook_at", UtcTimestamp),
    Index(None, "app_name", "account", "created_at"),
    Index(None, "state", "completed_at"),
    Index(None, "webhook", "webhook_at"),
)

REQUEST_CONTENTS = Table(
    "request_contents",
    METADATA,
    Column("request_id", Text, ForeignKey(REQUESTS.c.request_id, ondelete="CASCADE"), primary_key=True),
    Column("sealed_request", LargeBinary, nullable=False),
    Column("sealed_body", LargeBinary, nullable=False),
    Column("sealed_answer", LargeBinary),
    Column("sealed_answer_body", LargeBinary),
    Column("body_bytes", BigInteger),
)
# Large bodies: a database makes copies of a value that it writes. `sealed_body` is empty then.
REQUEST_PARTS = Table(
    "request_parts",
    METADATA,
    Column("request_id", Text, ForeignKey(REQUESTS.c.request_id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
)

WEBHOOK_DELIVERIES = Table(
    "webhook_deliveries",
    METADATA,
    Column("request_id", Text, ForeignKey(REQUESTS.c.request_id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcTimestamp, nullable=False),
    Column("status", Integer),
    Column("error", Text),
)

# Ended requests, direct and queued alike, in the order of their ends. No foreign keys, because they outlive the rows
# that they name.
REQUEST_RECORDS = Table(
    "request_records",
    METADATA,
    Column("account", Text, primary_key=True),
    Column("ended_at", UtcTimestamp, primary_key=True, autoincrement=False),
    Column("request_id", Text, primary_key=True),
    Column("app_name", Text, nullable=False),
    Column("revision_id", Text, nullable=False),
    Column("runner_id", Text),
    Column("endpoint", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("key_id", Text),
    Column("queued", Boolean, nullable=False),
    Column("received_at", UtcTimestamp, nullable=False),
    Column("started_at", UtcTimestamp),
    Column("code", Integer),
    Column("error_type", Text),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("cold_start", Boolean, nullable=False),
    Index("request_records_app_ix", "account", "app_name", "ended_at", "request_id"),
    Index("request_records_id_ix", "request_id"),
    sqlite_with_rowid=False,
)

# Statistics of the requests that ended in a minute, in the form of `RequestStats`.
# Inputs and outputs of direct requests, if the controller was asked to keep them.
REQUEST_PAYLOADS = Table(
    "request_payloads",
    METADATA,
    Column("account", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("ended_at", UtcTimestamp, nullable=False, index=True),
    Column("sealed_input", LargeBinary),
    Column("sealed_output", LargeBinary),
)

REQUEST_MINUTES = Table(
    "request_minutes",
    METADATA,
    Column("account", Text, primary_key=True),
    Column("app_name", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("at", UtcTimestamp, primary_key=True, autoincrement=False),
    Column("numbers", _JSON, nullable=False),
    Index(None, "account", "at"),
    Index(None, "at"),
    sqlite_with_rowid=False,
)

WORKFLOWS = Table(
    "workflows",
    METADATA,
    Column("account", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("title", Text, nullable=False),
    Column("contents", _JSON, nullable=False),
    Column("is_public", Boolean, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
)

# No foreign key, because a run continues after its workflow is deleted.
WORKFLOW_RUNS = Table(
    "workflow_runs",
    METADATA,
    Column("account", Text, nullable=False),
    Column("run_id", Text, primary_key=True),
    Column("workflow", Text, nullable=False),
    Column("contents", _JSON, nullable=False),
    Column("sealed_input", LargeBinary, nullable=False),
    Column("caller", Text, nullable=False),
    Column("created_at", UtcTimestamp, nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Column("completed_at", UtcTimestamp),
    Column("sealed_answer", LargeBinary),
    Column("error", Text),
    Column("error_type", Text),
    Column("sealed_webhook_url", LargeBinary),
    Column("webhook", Text, nullable=False),
    Column("webhook_attempts", Integer, nullable=False),
    Column("webhook_at", UtcTimestamp),
    Index(None, "completed_at"),
    Index(None, "webhook", "webhook_at"),
)


# One row. Orders to nodes carry the number, so that they can refuse those of an earlier controller. On PostgreSQL it is
# also the lease of the owner: the directory that holds it, and when it ends by the database's clock.
EPOCHS = Table(
    "epochs",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("holder", Text),
    Column("expires_at", BigInteger),
)

# The controllers of a PostgreSQL database, each by its state directory: the owner and those that wait.
CONTROLLERS = Table(
    "controllers",
    METADATA,
    Column("directory", Text, primary_key=True),
    Column("machine", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

NODES = Table(
    "nodes",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("joined_at", UtcTimestamp, nullable=False),
    Column("drained", Boolean, nullable=False),
    Column("region", Text, nullable=False, server_default=""),
)


def owned_by(table: Table, account: Accounts | BindParameter[str]) -> ColumnElement[bool]:
    """Restrict a query to an account's rows. This alone decides what an account can see."""
    return true() if account is EVERY_ACCOUNT else table.c.account == account
