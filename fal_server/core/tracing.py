"""Trace contexts (https://www.w3.org/TR/trace-context/): the trace that a request belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
_VALID = re.compile(
    r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|(?!00|ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
_NOTHING = ("-" + "0" * 32 + "-", "-" + "0" * 16 + "-")


def is_traceparent(value: str) -> bool:
    """Return whether a header field is a valid traceparent. An invalid one must be ignored."""
    return _VALID.fullmatch(value) is not None and not any(nothing in value[:55] for nothing in _NOTHING)


def new_traceparent(request_id: str) -> str:
    """Return the traceparent of a new trace with the request's id. The id has no hyphens.

    The span is the platform's, which exports none of its own then. The flag leaves it to the app to record its own.

    Args:
        request_id: a UUID.
    """
    trace_id = request_id.replace("-", "")
    return f"00-{trace_id}-{trace_id[:16]}-01"


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of a request, and our spans that others refer to. All is in hex.

    Attributes:
        parent_id: the caller's span; "" if the request starts the trace.
        sampled: whether the caller records its spans, so that ours belong to something.
        request_span: the whole request.
        app_span: the time on the runner, which is the parent of the app's own spans.
    """

    trace_id: str
    parent_id: str
    sampled: bool
    request_span: str
    app_span: str


def trace_of(request_id: str, traceparent: str) -> Trace:
    """Return the trace of a request.

    Args:
        request_id: a UUID. Both halves of it are spans, so that nothing has to be remembered.
        traceparent: the caller's, which is valid; "" starts a trace, which is recorded.
    """
    own = request_id.replace("-", "")
    if not traceparent:
        return Trace(own, "", True, own[:16], own[16:])
    return Trace(traceparent[3:35], traceparent[36:52], bool(int(traceparent[53:55], 16) & 1), own[:16], own[16:])


def traceparent_among(headers: Iterable[tuple[str, str]]) -> str:
    """Return the traceparent among header fields with lower-case names. It is "" if there is no valid one."""
    return next((value for name, value in headers if name == TRACEPARENT and is_traceparent(value)), "")


def traceparent_for_app(request_id: str, traceparent: str, *, exported: bool) -> str:
    """Return the traceparent that an app gets with a request.

    Args:
        traceparent: the caller's, which is valid; "" without one.
        exported: whether our spans are exported, and so are the parents of the app's.
    """
    return continued(request_id, traceparent) if exported else traceparent or new_traceparent(request_id)


def continued(request_id: str, traceparent: str) -> str:
    """Return the app's traceparent if our spans are exported. Its parent is our span; see `trace_of`."""
    trace = trace_of(request_id, traceparent)
    return f"00-{trace.trace_id}-{trace.app_span}-{int(trace.sampled):02x}"
