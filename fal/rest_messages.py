"""Converts JSON of a controller's HTTP side into the SDK's objects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from fal_grpc.adapter.log import LogEntry, LogLevel, LogOrigin, LogPage
from fal_grpc.adapter.values import JSON

_ORIGINS = {origin.value: origin for origin in LogOrigin}


def address(base: str, path: str, query: Mapping[str, str | datetime | None]) -> str:
    """Return a URL. Parameters that are None are omitted, and times are written in UTC."""
    parts = {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
        for name, value in query.items()
        if value is not None
    }
    return f"{base}{path}?{urlencode(parts)}" if parts else f"{base}{path}"


def segment(text: str) -> str:
    """Return a text as one part of a URL's path."""
    # An HTTP client would take `..` and the part before it away.
    return quote(text, safe="") if text not in (".", "..") else text.replace(".", "%2E")


def objects(answer: JSON) -> list[dict[str, JSON]]:
    """Return the objects of a JSON array; an empty list otherwise."""
    return [item for item in answer if isinstance(item, dict)] if isinstance(answer, list) else []


def parse_time(text: JSON) -> datetime | None:
    """Parse an ISO 8601 time; return None if it is invalid. Without a zone it means UTC, as controllers write it."""
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def log_page(answer: JSON, runner_id: str) -> LogPage:
    """Return stored lines; the token of the next page is its `until`."""
    fields = answer if isinstance(answer, dict) else {}
    items = fields.get("items")
    token = fields.get("next_until")
    return LogPage(
        entries=tuple(log_entry(item, runner_id) for item in (items if isinstance(items, list) else [])),
        next_page_token=token if isinstance(token, str) else None,
    )


def log_entry(item: JSON, runner_id: str) -> LogEntry:
    """Return a log line; fields that the controller omits get neutral values."""
    fields = item if isinstance(item, dict) else {"message": str(item)}
    level = str(fields.get("level") or "INFO").upper()
    origin = str(fields.get("source") or "").lower()
    request_id = fields.get("request_id")
    sequence = fields.get("sequence")
    return LogEntry(
        runner_id=runner_id,
        sequence=sequence if isinstance(sequence, int) else 0,
        timestamp=parse_time(fields.get("timestamp")) or datetime.fromtimestamp(0, UTC),
        level=LogLevel[level] if level in LogLevel.__members__ else LogLevel.UNKNOWN,
        source=_ORIGINS.get(origin, LogOrigin.UNKNOWN),
        message=str(fields.get("message", "")),
        request_id=request_id if isinstance(request_id, str) else "",
        app=str(fields.get("app") or ""),
        revision=str(fields.get("revision") or ""),
    )
