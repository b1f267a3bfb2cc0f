"""The spans of a request, which follow from its record. They show where it waited, and how long the app took."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fal_server.core.requests import RequestRecord
from fal_server.core.tracing import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedRequest:
    """A request that has ended, and the trace that it belongs to.

    Attributes:
        runner_began_at, runner_ready_at: when the runner was made that it waited for, and when that took requests; None
            if it waited for none, or if that runner is gone.
    """

    record: RequestRecord
    trace: Trace
    runner_began_at: datetime | None = None
    runner_ready_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span of a trace.

    Attributes:
        trace_id, span_id, parent_id: in hex; no parent is "".
        serves: whether it is the whole request, which its caller waits for.
        failed: whether it ended with an error.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    began_at: datetime
    ended_at: datetime
    serves: bool = False
    failed: bool = False
    attributes: Mapping[str, str | int]


def spans_of(request: TracedRequest) -> list[Span]:
    """Return a request's spans. They are the whole, what it waited for, the start of a runner, and the app."""
    record, trace = request.record, request.trace
    failed = record.code is None or record.code >= 500
    found = [
        Span(
            trace_id=trace.trace_id,
            span_id=trace.request_span,
            parent_id=trace.parent_id,
            name=f"{record.method} {record.app_name}{record.endpoint}",
            began_at=record.received_at,
            ended_at=record.ended_at,
            serves=True,
            failed=failed,
            attributes=_attributes(record),
        )
    ]

    def add(name: str, span_id: str, began_at: datetime, ended_at: datetime, *, failed: bool = False) -> None:
        found.append(
            Span(
                trace_id=trace.trace_id,
                span_id=span_id,
                parent_id=trace.request_span,
                name=name,
                began_at=began_at,
                ended_at=max(began_at, ended_at),
                failed=failed,
                attributes={"fal.runner_id": record.runner_id or ""},
            )
        )

    waited = "queue" if record.queued else "wait"
    add(waited, _derived(record, waited), record.received_at, record.started_at or record.ended_at)
    if record.cold_start and request.runner_began_at is not None and request.runner_ready_at is not None:
        began_at = max(request.runner_began_at, record.received_at)
        add("start", _derived(record, "start"), began_at, request.runner_ready_at)
    if record.started_at is not None:
        add("app", trace.app_span, record.started_at, record.ended_at, failed=failed)
    return found


def _derived(record: RequestRecord, name: str) -> str:
    return hashlib.sha256(f"{record.request_id} {name}".encode()).hexdigest()[:16]


def _attributes(record: RequestRecord) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "http.request.method": record.method,
        "http.route": record.endpoint,
        "fal.app": record.app_name,
        "fal.request_id": record.request_id,
        "fal.attempt": record.attempt,
    }
    if record.code is not None:
        found["http.response.status_code"] = record.code
    if record.error_type is not None:
        found["error.type"] = record.error_type
    return found
