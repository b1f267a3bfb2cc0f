"""Reads the times that people write after --since and --until, and writes times for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NAMES = {
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "m": "m", "min": "m", "mins": "m", "minute": "m", "minutes": "m",
    "h": "h", "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "d": "d", "day": "d", "days": "d",
    "w": "w", "week": "w", "weeks": "w",
}  # fmt: skip
_PIECE = r"(\d+(?:\.\d+)?)\s*([a-z]+)"
_RELATIVE = re.compile(rf"(?:{_PIECE}\s*)+(?:ago)?", re.IGNORECASE)
FORMS = "'now', a time back from now like '30m', '1h', '1d' or '1h30m', or an ISO timestamp like '2026-01-31T09:00'"


def parse_time(text: str, *, now: datetime | None = None) -> datetime:
    """Return the time that `text` names, in UTC.

    Args:
        text: `now`; a time back from now, as `90s`, `30m`, `1h30m`, `2 days ago`, `2w`; or an ISO 8601 timestamp, in
            local time unless it names an offset.
        now: the time that relative times count from; the clock's if None.

    Raises:
        ValueError: the text has none of these forms.
    """
    now = now or datetime.now(UTC)
    cleaned = text.strip()
    if cleaned.lower() == "now":
        return now.astimezone(UTC)
    if _RELATIVE.fullmatch(cleaned):
        pieces = re.findall(_PIECE, cleaned.lower().removesuffix("ago"))
        units = [_NAMES.get(unit) for _, unit in pieces]
        if all(units):
            seconds = sum(float(count) * _UNITS[unit] for (count, _), unit in zip(pieces, units, strict=True) if unit)
            try:
                return now.astimezone(UTC) - timedelta(seconds=seconds)
            except OverflowError:
                raise ValueError(f"'{text}' is too far back") from None
    try:
        return datetime.fromisoformat(cleaned).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"'{text}' is not a time; use {FORMS}") from None


def describe_time(at: datetime, *, now: datetime | None = None) -> str:
    """Return a time for people: local, to the second, and how long ago, as `2026-01-31 09:00:00 (2 min ago)`."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    age = describe_duration(abs(seconds))
    relative = "now" if abs(seconds) < 1 else f"{age} ago" if seconds > 0 else f"in {age}"
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S} ({relative})"


def describe_duration(seconds: float) -> str:
    """Return a duration in its greatest unit, as `5 s`, `2 min`, `3 h` or `4 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
