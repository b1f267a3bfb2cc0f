"""Parses the times that people write after --since and --until. It also formats times for people."""

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
        text: `now`; a time before now, such as `90s`, `30m`, `1h30m`, `2 days ago`, `2w`; or an ISO 8601 timestamp, in
            local time unless it names an offset.
        now: the time that relative times count from; None means the current time.

    Raises:
        ValueError: the text has none of these forms.
    """
    now = now or datetime.now(UTC)
    cleaned = text.strip()
    if cleaned.lower() == "now":
        return now.astimezone(UTC)
    seconds = _seconds(cleaned)
    if seconds is not None:
        try:
            return now.astimezone(UTC) - timedelta(seconds=seconds)
        except OverflowError:
            raise ValueError(f"'{text}' is too far back") from None
    try:
        return datetime.fromisoformat(cleaned).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"'{text}' is not a time; use {FORMS}") from None


def parse_duration(text: str) -> timedelta:
    """Return the duration that `text` names: `90s`, `30m`, `1h30m`, `2 days`, or 0.

    Raises:
        ValueError: the text has none of these forms, or is too long.
    """
    cleaned = text.strip()
    seconds = 0.0 if cleaned == "0" else None if cleaned.lower().endswith("ago") else _seconds(cleaned)
    if seconds is None:
        raise ValueError(f"'{text}' is not a duration; use one like '30m', '1h30m', '7d' or 0")
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError(f"'{text}' is too long") from None


def parse_expiry(text: str, *, now: datetime | None = None) -> datetime:
    """Return a future time, in UTC. The text is a duration from now, or an ISO 8601 timestamp.

    Raises:
        ValueError: the text has neither form, or the time has passed.
    """
    now = now or datetime.now(UTC)
    try:
        at = now + parse_duration(text) if _seconds(text.strip()) is not None else parse_time(text, now=now)
    except (ValueError, OverflowError):
        raise ValueError(f"'{text}' is not a time to come; use one like '30d' or '2027-01-31T09:00'") from None
    if at <= now:
        raise ValueError(f"'{text}' is over")
    return at.astimezone(UTC)


def _seconds(text: str) -> float | None:
    """Return a relative time's length; None if the text is not one."""
    if not _RELATIVE.fullmatch(text):
        return None
    pieces = re.findall(_PIECE, text.lower().removesuffix("ago"))
    units = [_NAMES.get(unit) for _, unit in pieces]
    if not all(units):
        return None
    return sum(float(count) * _UNITS[unit] for (count, _), unit in zip(pieces, units, strict=True) if unit)


def describe_time(at: datetime, *, now: datetime | None = None) -> str:
    """Return a time for people: local, and how long ago. An example is `2026-01-31 09:00:00 (2 min ago)`."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    age = describe_duration(abs(seconds))
    relative = "now" if abs(seconds) < 1 else f"{age} ago" if seconds > 0 else f"in {age}"
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S} ({relative})"


def iso_utc(at: datetime, *, milliseconds: bool = False) -> str:
    """Return a time for a program, such as `2026-01-31T09:00:00Z`."""
    timespec = "milliseconds" if milliseconds else "seconds"
    return at.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def describe_duration(seconds: float) -> str:
    """Return a duration in its greatest unit. Examples are `5 s`, `2 min`, `3 h` and `4 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
