"""The records of ended requests. They are a row for each, and statistics for each minute."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from zlib import crc32

from fal_server.core.cursors import read_cursor, write_cursor
from fal_server.core.identity import AccountId, AppId
from fal_server.core.sketch import DurationSketch

CALLER_LEFT = "client_disconnected"
"""The error type of a request whose caller left before the response was complete; no response has it."""
OTHER_ENDPOINTS = "(other)"
"""Stands in the statistics for an app's endpoints beyond the first few hundred."""
MINUTE = timedelta(minutes=1)


class RequestStatus(StrEnum):
    """How a request ended, under the published names; LEFT is our own."""

    SUCCESS = "success"
    USER_ERROR = "user_error"
    ERROR = "error"
    LEFT = "left"


def status_of(code: int | None) -> RequestStatus:
    """Return how a request ended by its status code. None if its caller left."""
    if code is None:
        return RequestStatus.LEFT
    if code < 400:
        return RequestStatus.SUCCESS
    return RequestStatus.USER_ERROR if code < 500 else RequestStatus.ERROR


def in_sample(request_id: str, share: float) -> bool:
    """Return whether a success gets a row. The result for one request never changes."""
    return share >= 1.0 or crc32(request_id.encode()) < share * 2**32


class DirectRequest(NamedTuple):
    """A direct request at its end; derived values are computed later.

    Attributes:
        path: with the query.
        runner_id, revision_id: None if no runner got it.
        received, started, ended: seconds of a monotonic clock; started is None if no runner got it.
        code: of the response; None if the caller left before it was complete.
        trace: the caller's traceparent, "" without one; None if no spans of it are exported.
    """

    app_id: AppId
    request_id: str
    runner_id: str | None
    revision_id: str | None
    path: bytes
    method: bytes
    key_id: str | None
    received: float
    started: float | None
    ended: float
    code: int | None
    error_type: str | None
    bytes_in: int
    bytes_out: int
    cold_start: bool
    trace: str | None = None


@dataclass(unsafe_hash=True, slots=True, kw_only=True)
class RequestRecord:
    """A request that has ended, without its bodies and headers.

    Treat it as frozen. It is not declared so because creating a frozen object takes three times as long.

    Attributes:
        app_name: with the environment's suffix.
        endpoint: the described path of the request, or else its own path, without the query.
        key_id: the public half of the caller's key; None for a call without one.
        received_at: when its head had arrived, or when the queue accepted it.
        started_at: when a runner got it; None if none did.
        code: of the response; None if the caller left before it was complete.
        error_type: the published name; None for a success.
        attempt: how often the queue tried, 1 for a direct call; 0 if no runner got it.
        cold_start: whether it waited for a runner to start.
    """

    account: AccountId
    request_id: str
    app_name: str
    revision_id: str
    runner_id: str | None
    endpoint: str
    method: str
    key_id: str | None
    queued: bool
    received_at: datetime
    started_at: datetime | None
    ended_at: datetime
    code: int | None
    error_type: str | None
    bytes_in: int
    bytes_out: int
    attempt: int
    cold_start: bool

    @property
    def status(self) -> RequestStatus:
        """How it ended."""
        return status_of(self.code)

    @property
    def wait_seconds(self) -> float:
        """The time that it waited for a runner. It is the whole duration if none got it."""
        return ((self.started_at or self.ended_at) - self.received_at).total_seconds()

    @property
    def run_seconds(self) -> float | None:
        """The time on a runner; None if none got it."""
        return None if self.started_at is None else (self.ended_at - self.started_at).total_seconds()

    @property
    def seconds(self) -> float:
        """The time from its arrival to its end."""
        return (self.ended_at - self.received_at).total_seconds()


class QueuedTrace(NamedTuple):
    """A queued request at its end, whose spans are exported.

    Attributes:
        trace: the caller's traceparent; "" without one.
    """

    record: RequestRecord
    trace: str


@dataclass(slots=True, kw_only=True)
class RequestStats:
    """Statistics of requests, which can be merged. They are mutable, because they grow with each request.

    Attributes:
        codes: the number of requests by status code; 0 stands for callers who left.
        errors: the number of requests by error type.
        wait: the waiting times for a runner.
        run: the times on a runner.
        total: the total durations.
        cold: the waiting times of cold starts.
    """

    codes: Counter[int] = field(default_factory=Counter[int])
    errors: Counter[str] = field(default_factory=Counter[str])
    bytes_in: int = 0
    bytes_out: int = 0
    wait: DurationSketch = field(default_factory=DurationSketch)
    run: DurationSketch = field(default_factory=DurationSketch)
    total: DurationSketch = field(default_factory=DurationSketch)
    cold: DurationSketch = field(default_factory=DurationSketch)

    def add(self, record: RequestRecord) -> None:
        """Count a request."""
        self.codes[record.code or 0] += 1
        if record.error_type is not None:
            self.errors[record.error_type] += 1
        self.bytes_in += record.bytes_in
        self.bytes_out += record.bytes_out
        wait, run = record.wait_seconds, record.run_seconds
        self.wait.add(wait)
        if run is not None:
            self.run.add(run)
        self.total.add(record.seconds)
        if record.cold_start:
            self.cold.add(wait)

    def merge(self, other: RequestStats) -> None:
        """Add other statistics."""
        self.codes.update(other.codes)
        self.errors.update(other.errors)
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.wait.merge(other.wait)
        self.run.merge(other.run)
        self.total.merge(other.total)
        self.cold.merge(other.cold)

    @property
    def count(self) -> int:
        """The number of ended requests."""
        return self.codes.total()

    def count_of(self, status: RequestStatus) -> int:
        """Return how many requests ended with this status."""
        return sum(count for code, count in self.codes.items() if status_of(code or None) is status)


class MinuteKey(NamedTuple):
    """The subject and the minute of statistics. A request counts in the minute of its end.

    Attributes:
        at: when the minute begins.
    """

    account: AccountId
    app_name: str
    endpoint: str
    at: datetime


def minute_of(ended_at: datetime) -> datetime:
    """Return when the minute begins in which a request counts."""
    return ended_at.replace(second=0, microsecond=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestQuery:
    """Selects requests by the time of their end; None means no restriction.

    Attributes:
        app_name: with the environment's suffix.
        status: how it ended.
        since: ended at or after this.
        until: ended before this.
        oldest_first: in the order of their ends, instead of the reverse.
        after: only those after this cursor, in the same order.
        limit: the most requests.
    """

    app_name: str | None = None
    endpoint: str | None = None
    status: RequestStatus | None = None
    since: datetime | None = None
    until: datetime | None = None
    runner_id: str | None = None
    key_id: str | None = None
    request_id: str | None = None
    oldest_first: bool = False
    after: str | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPage:
    """A page of requests, and the cursor to resume from.

    Attributes:
        cursor: the position after the last one; on an empty page the query's, or empty.
    """

    records: tuple[RequestRecord, ...]
    cursor: str
    more: bool


def cursor_after(record: RequestRecord, microseconds: int) -> str:
    """Return the cursor directly after a request.

    Args:
        microseconds: of its end, since 1970.
    """
    return write_cursor([microseconds, record.request_id])


def position_of(cursor: str) -> tuple[int, str]:
    """Return a cursor's (end in microseconds, request_id).

    Raises:
        ValueError: it is not a cursor.
    """
    match read_cursor(cursor):
        case [int(at), str(request_id)] if abs(at) < 2**63:
            return at, request_id
        case _:
            raise ValueError("it is another one's cursor")
