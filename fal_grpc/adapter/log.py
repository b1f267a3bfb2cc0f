"""Log lines. Builds, deploys and runs stream them; the controller stores them for runners."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from fal_grpc.adapter.values import count, environment, optional_text, timestamp, to_datetime, to_timestamp
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import log_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LogLevel(StrEnum):
    """The severity of a line. STDOUT and STDERR are lines of builds, deploys and runs that state no level."""

    TRACE = "TRACE"
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    STDOUT = "STDOUT"
    STDERR = "STDERR"
    UNKNOWN = "UNKNOWN"


class LogSource(StrEnum):
    """The writer of a streamed line. It is the environment's build, the platform (BRIDGE), or the user's code."""

    BUILDER = "BUILDER"
    BRIDGE = "BRIDGE"
    USER = "USER"
    UNKNOWN = "UNKNOWN"


class LogOrigin(StrEnum):
    """The writer of a stored line. It is the build, the platform (system), or the app's stdout or stderr."""

    BUILD = "build"
    SYSTEM = "system"
    STDOUT = "stdout"
    STDERR = "stderr"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Selects stored lines of one runner or one app.

    Attributes:
        runner_id, app, environment_name: the runner, or the app in an environment.
        sources: only lines from these; empty means all.
        search: only lines that contain this text, ignoring case.
        request_id: only lines written for this request.
        since, until: only lines at or after `since` and before `until`; naive times are local.
        lines: at most this many over all pages: the newest ones, or the oldest ones with `oldest`.

    Raises:
        ArgumentError: not exactly one of runner_id and app is given, `lines` is less than 1, or `until` is before
            `since`.
    """

    runner_id: str | None = None
    app: str | None = None
    environment_name: str | None = None
    sources: tuple[LogOrigin, ...] = ()
    search: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    lines: int | None = None
    oldest: bool = False

    def __post_init__(self) -> None:
        if bool(self.runner_id) == bool(self.app):
            raise ArgumentError("runner_id", "name either a runner or an app, and not both")
        if count("lines", self.lines) == 0:
            raise ArgumentError("lines", "must be at least 1, not 0")
        since = None if self.since is None else timestamp("since", self.since)
        until = None if self.until is None else timestamp("until", self.until)
        if since is not None and until is not None and until.astimezone(UTC) < since.astimezone(UTC):
            raise ArgumentError("until", "must not be before since: no line can be between them")

    @property
    def oldest_first(self) -> bool:
        """Whether pages start with the oldest line. They go backwards if only the newest are wanted."""
        return self.lines is None or self.oldest


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A line that a build, a deploy or a run streams. `timestamp` is aware; None if it was not sent."""

    message: str
    source: LogSource
    level: LogLevel
    timestamp: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """A stored line of a runner, identified by (runner_id, sequence). Sequence 0 means that it has no number.

    Attributes:
        timestamp: when it was written, aware.
        message: the text, without the newline at its end.
        request_id: the request in progress; empty if unknown.
        app, revision: the runner's app and revision; empty if the controller does not say.
    """

    runner_id: str
    sequence: int
    timestamp: datetime
    level: LogLevel
    source: LogOrigin
    message: str
    request_id: str = ""
    app: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerEnded:
    """How a runner ended. `exit_code` is None if no process ran; `ended_at` is None if the controller does not say."""

    runner_id: str
    ended_at: datetime | None
    exit_code: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Some stored lines, and the token of the next page. The token is None on the last page.

    Attributes:
        reached: the time of the last line searched for this page, whether it matched or not; None if unknown.
    """

    entries: tuple[LogEntry, ...]
    next_page_token: str | None
    reached: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBatch:
    """New lines, and the cursor to resume after them. A batch without lines is a heartbeat."""

    entries: tuple[LogEntry, ...]
    cursor: str
    runner_ended: RunnerEnded | None


LEVELS: Mapping[int, LogLevel] = dict(enumerate(level for level in LogLevel if level is not LogLevel.UNKNOWN))
SOURCES: Mapping[int, LogSource] = dict(enumerate(source for source in LogSource if source is not LogSource.UNKNOWN))
ORIGINS: Mapping[int, LogOrigin] = {
    1: LogOrigin.BUILD,
    2: LogOrigin.SYSTEM,
    3: LogOrigin.STDOUT,
    4: LogOrigin.STDERR,
}


def logs(messages: Iterable[log_pb2.Log]) -> tuple[Log, ...]:
    return tuple(
        Log(
            message=message.message,
            source=SOURCES.get(message.source, LogSource.UNKNOWN),
            level=LEVELS.get(message.level, LogLevel.UNKNOWN),
            timestamp=to_datetime(message.timestamp) if message.HasField("timestamp") else None,
        )
        for message in messages
    )


def entries(messages: Iterable[log_pb2.LogEntry]) -> tuple[LogEntry, ...]:
    found: list[LogEntry] = []
    known, timestamp = (0, 0), _EPOCH
    for message in messages:
        stamp = message.timestamp
        parts = (stamp.seconds, stamp.nanos)
        if parts != known:  # lines that were read together have the same timestamp
            known, timestamp = parts, to_datetime(stamp)
        found.append(
            LogEntry(
                runner_id=message.runner_id,
                sequence=message.sequence,
                timestamp=timestamp,
                level=LEVELS.get(message.level, LogLevel.UNKNOWN),
                source=ORIGINS.get(message.source, LogOrigin.UNKNOWN),
                message=message.message,
                request_id=message.request_id,
                app=message.app,
                revision=message.revision,
            )
        )
    return tuple(found)


def page(message: log_pb2.ListLogsResponse) -> LogPage:
    return LogPage(
        entries=entries(message.entries),
        next_page_token=message.next_page_token or None,
        reached=message.reached.ToDatetime(UTC) if message.HasField("reached") else None,
    )


def batch(message: log_pb2.FollowLogsResponse) -> LogBatch:
    ended = message.runner_ended if message.HasField("runner_ended") else None
    return LogBatch(
        entries=entries(message.entries),
        cursor=message.cursor,
        runner_ended=None if ended is None else runner_ended(ended),
    )


def runner_ended(message: log_pb2.RunnerEnded) -> RunnerEnded:
    return RunnerEnded(
        runner_id=message.runner_id,
        ended_at=to_datetime(message.ended_at) if message.HasField("ended_at") else None,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        reason=message.reason,
    )


def _origin_number(origin: LogOrigin) -> log_pb2.LogEntry.Source.ValueType:
    from fal_grpc.v1 import log_pb2

    return log_pb2.LogEntry.Source.Value(
        f"SOURCE_{origin.name}" if origin in ORIGINS.values() else "SOURCE_UNSPECIFIED"
    )


def _selector(query: LogQuery) -> log_pb2.LogSelector:
    from fal_grpc.v1 import log_pb2

    selector = log_pb2.LogSelector(
        search=optional_text("search", query.search) or "",
        sources=[_origin_number(source) for source in query.sources],
        request_id=optional_text("request_id", query.request_id) or "",
    )
    if query.runner_id:
        selector.runner_id = query.runner_id
    else:
        target = log_pb2.AppLogTarget(app=query.app or "", environment_name=environment(query.environment_name) or "")
        selector.app.CopyFrom(target)
    return selector


def list_request(query: LogQuery, *, page_size: int = 0, page_token: str | None = None) -> log_pb2.ListLogsRequest:
    """Return a request for one page of stored lines. A page size of 0 leaves it to the controller."""
    from fal_grpc.v1 import log_pb2

    oldest_first = query.oldest_first
    order = log_pb2.ListLogsRequest.ORDER_OLDEST_FIRST if oldest_first else log_pb2.ListLogsRequest.ORDER_NEWEST_FIRST
    return log_pb2.ListLogsRequest(
        selector=_selector(query),
        since=None if query.since is None else to_timestamp(query.since, argument="since"),
        until=None if query.until is None else to_timestamp(query.until, argument="until"),
        order=order,
        lines=query.lines or 0,
        page_size=page_size,
        page_token=page_token or "",
    )


def follow_request(query: LogQuery, *, cursor: str | None = None) -> log_pb2.FollowLogsRequest:
    """Return a request to follow lines. It starts at the cursor, else the query's `since`, else now."""
    from fal_grpc.v1 import log_pb2

    message = log_pb2.FollowLogsRequest(selector=_selector(query))
    if cursor:
        message.cursor = cursor
    elif query.since is not None:
        message.since.CopyFrom(to_timestamp(query.since, argument="since"))
    return message
