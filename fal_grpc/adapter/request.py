"""The request history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from fal_grpc.adapter.values import flag, optional_text, to_datetime, to_timestamp
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message

    from fal_grpc.v1 import request_pb2


class RequestStatus(StrEnum):
    """How a request ended: below 400, 400 to 499, 500 or above. Its caller may also leave before a complete response.

    UNKNOWN stands for the statuses of newer controllers.
    """

    UNKNOWN = "unknown"
    SUCCESS = "success"
    USER_ERROR = "user_error"
    ERROR = "error"
    LEFT = "left"


_STATUSES = {
    1: RequestStatus.SUCCESS,
    2: RequestStatus.USER_ERROR,
    3: RequestStatus.ERROR,
    4: RequestStatus.LEFT,
}
_NUMBERS = {status: number for number, status in _STATUSES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """A request that has ended, without its bodies and headers.

    Attributes:
        app: with the suffix of its environment.
        revision_id: the revision that answered; if no runner got the request, the app's revision at that time.
        runner_id: the last runner that got it; None if none did.
        endpoint: the path in the app's description, such as "/items/{item}", or else the request's own path; without
            the query.
        key_id: the public half of the caller's key; None for a call without one.
        queued: whether it came through the queue.
        received_at: when its head had arrived, or when the queue accepted it.
        started_at: when a runner last got it; None if none did.
        ended_at: when the response was complete, or its caller left.
        status_code: of the response; None if its caller left before it was complete.
        error_type: the value of X-Fal-Error-Type; None for a success.
        bytes_in: bytes of the request's body.
        bytes_out: bytes of the response's body that were sent.
        attempt: how often the queue tried; 1 for a direct call, 0 if no runner got it.
        cold_start: whether it waited for a runner to start.
    """

    request_id: str
    app: str
    revision_id: str
    runner_id: str | None
    endpoint: str
    method: str
    key_id: str | None
    queued: bool
    received_at: datetime
    started_at: datetime | None
    ended_at: datetime
    status_code: int | None
    status: RequestStatus
    error_type: str | None
    bytes_in: int
    bytes_out: int
    attempt: int
    cold_start: bool

    @property
    def duration(self) -> timedelta:
        """The time from its arrival to its end."""
        return self.ended_at - self.received_at

    @property
    def wait(self) -> timedelta:
        """The time that it waited for a runner. It is the whole duration if none got it."""
        return (self.started_at or self.ended_at) - self.received_at


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationQuantiles:
    """Quantiles of durations, accurate to 1 %. `sum` is the total of all durations."""

    p50: timedelta
    p75: timedelta
    p90: timedelta
    p95: timedelta
    p99: timedelta
    sum: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStats:
    """Statistics of the requests that ended in a span. They are for an app or one of its endpoints.

    Attributes:
        app: with the suffix of its environment.
        endpoint: None for all endpoints together.
        status_codes: the number of requests by status code; 0 stands for callers who left.
        error_types: the number of requests by error type.
        cold_starts: the number of requests that waited for a runner to start.
        total: from arrival to end; None if there are no requests.
        wait: the waiting time for a runner; None if there are no requests.
        run: the time on a runner; None if no request reached one.
        cold: the waiting time of cold starts; None if there are none.
    """

    app: str
    endpoint: str | None
    since: datetime
    until: datetime
    count: int
    status_codes: Mapping[int, int]
    error_types: Mapping[str, int]
    cold_starts: int
    bytes_in: int
    bytes_out: int
    total: DurationQuantiles | None
    wait: DurationQuantiles | None
    run: DurationQuantiles | None
    cold: DurationQuantiles | None

    @property
    def errors(self) -> int:
        """The number of requests that ended with status 500 or above."""
        return sum(count for code, count in self.status_codes.items() if code >= 500)

    @property
    def per_second(self) -> float:
        """The number of requests that ended per second."""
        return self.count / (self.until - self.since).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPage:
    """A page of requests.

    Attributes:
        next_page_token: of the next page; empty on the last one.
        cursor: the position after the last request, even on the last page.
    """

    requests: Sequence[RequestRecord]
    next_page_token: str
    cursor: str


def page(message: request_pb2.ListRequestsResponse) -> RequestPage:
    return RequestPage(
        requests=[_record(each) for each in message.requests],
        next_page_token=message.next_page_token,
        cursor=message.cursor,
    )


def record(message: request_pb2.GetRequestResponse) -> RequestRecord:
    return _record(message.request)


def stats(message: request_pb2.GetRequestStatsResponse) -> list[RequestStats]:
    return [
        RequestStats(
            app=each.app,
            endpoint=each.endpoint or None,
            since=to_datetime(each.since),
            until=to_datetime(each.until),
            count=each.count,
            status_codes=dict(each.status_codes),
            error_types=dict(each.error_types),
            cold_starts=each.cold_starts,
            bytes_in=each.bytes_in,
            bytes_out=each.bytes_out,
            total=_quantiles(each.total),
            wait=_quantiles(each.wait),
            run=_quantiles(each.run),
            cold=_quantiles(each.cold),
        )
        for each in message.stats
    ]


def list_request(
    *,
    app: str | None,
    environment_name: str | None,
    status: RequestStatus | str | None,
    since: datetime | None,
    until: datetime | None,
    runner_id: str | None,
    key_id: str | None,
    endpoint: str | None,
    oldest_first: bool,
    page_size: int,
    page_token: str,
) -> request_pb2.ListRequestsRequest:
    from fal_grpc.v1 import request_pb2

    return request_pb2.ListRequestsRequest(
        application_name=optional_text("app", app) or "",
        environment_name=optional_text("environment_name", environment_name) or "",
        status=request_pb2.RequestStatus.ValueType(_status_number(status)),
        since=None if since is None else to_timestamp(since, argument="since"),
        until=None if until is None else to_timestamp(until, argument="until"),
        runner_id=optional_text("runner_id", runner_id) or "",
        key_id=optional_text("key_id", key_id) or "",
        endpoint=optional_text("endpoint", endpoint) or "",
        oldest_first=flag("oldest_first", oldest_first),
        page_size=page_size,
        page_token=page_token,
    )


def get_request(request_id: str) -> request_pb2.GetRequestRequest:
    from fal_grpc.v1 import request_pb2

    return request_pb2.GetRequestRequest(request_id=request_id)


def stats_request(
    *,
    app: str | None,
    environment_name: str | None,
    since: datetime | None,
    until: datetime | None,
    step_seconds: int,
    by_endpoint: bool,
) -> request_pb2.GetRequestStatsRequest:
    from fal_grpc.v1 import request_pb2

    return request_pb2.GetRequestStatsRequest(
        application_name=optional_text("app", app) or "",
        environment_name=optional_text("environment_name", environment_name) or "",
        since=None if since is None else to_timestamp(since, argument="since"),
        until=None if until is None else to_timestamp(until, argument="until"),
        step_seconds=step_seconds,
        by_endpoint=flag("by_endpoint", by_endpoint),
    )


def _status_number(status: RequestStatus | str | None) -> int:
    if status is None:
        return 0
    try:
        return _NUMBERS[RequestStatus(status)]
    except (ValueError, KeyError):
        known = ", ".join(_NUMBERS)
        raise ArgumentError("status", f"{str(status)[:40]!r} is not one of {known}") from None


def _record(message: request_pb2.RequestRecord) -> RequestRecord:
    return RequestRecord(
        request_id=message.request_id,
        app=message.app,
        revision_id=message.revision_id,
        runner_id=message.runner_id or None,
        endpoint=message.endpoint,
        method=message.method,
        key_id=message.key_id or None,
        queued=message.queued,
        received_at=to_datetime(message.received_at),
        started_at=_optional_time(message, "started_at"),
        ended_at=to_datetime(message.ended_at),
        status_code=message.status_code if message.HasField("status_code") else None,
        status=_STATUSES.get(message.status, RequestStatus.UNKNOWN),
        error_type=message.error_type or None,
        bytes_in=message.bytes_in,
        bytes_out=message.bytes_out,
        attempt=message.attempt,
        cold_start=message.cold_start,
    )


def _optional_time(message: Message, field: str) -> datetime | None:
    return to_datetime(getattr(message, field)) if message.HasField(field) else None


def _quantiles(message: request_pb2.DurationQuantiles) -> DurationQuantiles | None:
    if not message.HasField("p50"):
        return None
    return DurationQuantiles(
        p50=_length(message.p50),
        p75=_length(message.p75),
        p90=_length(message.p90),
        p95=_length(message.p95),
        p99=_length(message.p99),
        sum=_length(message.sum),
    )


def _length(message: Duration) -> timedelta:
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
