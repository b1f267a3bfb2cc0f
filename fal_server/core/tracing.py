"""Trace contexts (https://www.w3.org/TR/trace-context/): the trace that a request belongs to."""

from __future__ import annotations

import re

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
_VALID = re.compile(
    r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|(?!00|ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
_NOTHING = ("-" + "0" * 32 + "-", "-" + "0" * 16 + "-")


def is_traceparent(value: str) -> bool:
    """Return whether a header field is a valid traceparent; an invalid one must be ignored."""
    return _VALID.fullmatch(value) is not None and not any(nothing in value[:55] for nothing in _NOTHING)


def new_traceparent(request_id: str) -> str:
    """Return the traceparent of a new trace whose id is the request's, without the hyphens.

    The span is the platform's, which stores no spans. The flag leaves it to the app to record its own.

    Args:
        request_id: a UUID.
    """
    trace_id = request_id.replace("-", "")
    return f"00-{trace_id}-{trace_id[:16]}-01"
