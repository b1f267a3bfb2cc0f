"""Shows ended requests, and statistics of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fal_cli.presentation.counting import counted
from fal_cli.presentation.listing import Field, Listing, time_field
from fal_cli.presentation.output import print_facts, print_line, shown_bytes, shown_clock, shown_time

if TYPE_CHECKING:
    from datetime import datetime

    from fal.api import DurationQuantiles, RequestRecord, RequestStats


def request_document(request: RequestRecord) -> dict[str, object]:
    """Return a request for JSON and YAML."""
    return {
        "request_id": request.request_id,
        "app": request.app,
        "endpoint": request.endpoint,
        "method": request.method,
        "status_code": request.status_code,
        "status": request.status.value,
        "error_type": request.error_type,
        "duration": request.duration.total_seconds(),
        "wait": request.wait.total_seconds(),
        "received_at": request.received_at.isoformat(),
        "started_at": _iso(request.started_at),
        "ended_at": request.ended_at.isoformat(),
        "runner_id": request.runner_id,
        "revision_id": request.revision_id,
        "key_id": request.key_id,
        "queued": request.queued,
        "attempt": request.attempt,
        "cold_start": request.cold_start,
        "bytes_in": request.bytes_in,
        "bytes_out": request.bytes_out,
    }


def stats_document(stats: RequestStats) -> dict[str, object]:
    """Return statistics for JSON and YAML."""
    return {
        "app": stats.app,
        "endpoint": stats.endpoint,
        "since": stats.since.isoformat(),
        "until": stats.until.isoformat(),
        "count": stats.count,
        "per_second": stats.per_second,
        "errors": stats.errors,
        "status_codes": {str(code): count for code, count in sorted(stats.status_codes.items())},
        "error_types": dict(sorted(stats.error_types.items())),
        "cold_starts": stats.cold_starts,
        "bytes_in": stats.bytes_in,
        "bytes_out": stats.bytes_out,
        **{name: _quantiles(getattr(stats, name)) for name in ("total", "wait", "run", "cold")},
    }


def shown_length(length: timedelta | None) -> str:
    """Return a duration in three digits. It is like `12.3 ms` or `1.50 s`, and empty if there is none."""
    if length is None:
        return ""
    seconds = length.total_seconds()
    number, unit = (seconds, "s") if seconds >= 1 else (seconds * 1000, "ms")
    return f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f} {unit}"


def write_request(request: RequestRecord) -> None:
    """Write the details of one request, one per line."""
    waited = f"{shown_length(request.wait)}{', for a runner to start' if request.cold_start else ''}"
    lines = {
        "Request": request.request_id,
        "App": request.app,
        "Endpoint": f"{request.method} {request.endpoint}",
        "Ended": f"{_end(request)}{f', {request.error_type}' if request.error_type else ''}",
        "Received": shown_time(request.received_at),
        "Took": shown_length(request.duration),
        "Waited": waited,
        "Runner": request.runner_id or "none got it",
        "Revision": request.revision_id,
        "Key": request.key_id or "none",
        "Came by": f"the queue, {counted(request.attempt, 'attempt')}" if request.queued else "a direct call",
        "Size": f"{shown_bytes(request.bytes_in)} in, {shown_bytes(request.bytes_out)} out",
    }
    print_facts(lines.items(), 12)


def print_ended(request: RequestRecord) -> None:
    """Write an ended request on one line."""
    print_line(
        f"{shown_clock(request.ended_at)}  {_end(request):<4}  {shown_length(request.duration):>8}  {request.app}  "
        f"{request.method} {request.endpoint}  {request.request_id}"
        f"{f'  {request.error_type}' if request.error_type else ''}"
    )


def _end(request: RequestRecord) -> str:
    return "left" if request.status_code is None else str(request.status_code)


def _quantiles(found: DurationQuantiles | None) -> dict[str, float] | None:
    if found is None:
        return None
    return {name: getattr(found, name).total_seconds() for name in ("p50", "p75", "p90", "p95", "p99", "sum")}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _at(stats: RequestStats, name: str) -> timedelta | None:
    found: timedelta | None = None if stats.total is None else getattr(stats.total, name)
    return found


def _quantile(name: str) -> Field[RequestStats]:
    return Field(
        title=name,
        text=lambda stats: shown_length(_at(stats, name)),
        sort_key=lambda stats: None if (length := _at(stats, name)) is None else length.total_seconds(),
        right=True,
    )


REQUESTS: Listing[RequestRecord] = Listing(
    noun="requests",
    fields=(
        Field(title="Request ID", shortens=True, text=lambda request: request.request_id),
        Field(title="App", text=lambda request: request.app),
        Field(title="Endpoint", text=lambda request: request.endpoint, folds=True),
        Field(title="End", text=_end, right=True),
        Field(
            title="Took",
            text=lambda request: shown_length(request.duration),
            sort_key=lambda request: request.duration.total_seconds(),
            right=True,
        ),
        Field(
            title="Waited",
            text=lambda request: shown_length(request.wait),
            sort_key=lambda request: request.wait.total_seconds(),
            right=True,
            wide=True,
        ),
        time_field("Ended At", lambda request: request.ended_at),
        Field(title="Error", text=lambda request: request.error_type or "", folds=True),
        Field(title="Cold", text=lambda request: "yes" if request.cold_start else "", wide=True),
        Field(title="Queued", text=lambda request: "yes" if request.queued else "", wide=True),
        Field(title="Runner ID", shortens=True, text=lambda request: request.runner_id or "", wide=True),
        Field(title="Key", text=lambda request: request.key_id or "", wide=True),
    ),
    document=request_document,
    item_name=lambda request: request.request_id,
)

STATS: Listing[RequestStats] = Listing(
    noun="stats",
    fields=(
        time_field("Since", lambda stats: stats.since),
        Field(title="Endpoint", text=lambda stats: stats.endpoint or "(all)", folds=True),
        Field(title="Requests", text=lambda stats: str(stats.count), sort_key=lambda stats: stats.count, right=True),
        Field(
            title="Per Second",
            text=lambda stats: f"{stats.per_second:.2f}",
            sort_key=lambda stats: stats.per_second,
            right=True,
        ),
        _quantile("p50"),
        _quantile("p90"),
        _quantile("p99"),
        Field(
            title="Errors",
            text=lambda stats: f"{stats.errors / stats.count:.1%}" if stats.count else "",
            sort_key=lambda stats: stats.errors / stats.count if stats.count else 0.0,
            right=True,
        ),
        Field(
            title="Cold",
            text=lambda stats: str(stats.cold_starts),
            sort_key=lambda stats: stats.cold_starts,
            right=True,
        ),
    ),
    document=stats_document,
    item_name=lambda stats: stats.endpoint or "(all)",
)
