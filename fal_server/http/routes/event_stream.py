"""Writes server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from starlette.responses import StreamingResponse

COMMENT_SECONDS = 15.0
"""Seconds after which a silent stream sends a comment, because proxies close silent connections."""

COMMENT = b": still here\n\n"


def event(data: str, name: str = "") -> bytes:
    """Return one event; line breaks in its data become spaces."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {' '.join(data.splitlines())}\n\n".encode()


def event_stream(events: AsyncIterator[bytes], headers: Mapping[str, str] | None = None) -> StreamingResponse:
    """Return a response that sends events as they come."""
    return StreamingResponse(
        events, media_type="text/event-stream", headers={"cache-control": "no-store", **(headers or {})}
    )
