"""Formats times, sizes and states for pages."""

from __future__ import annotations

import re
from datetime import datetime

from markupsafe import Markup

_TONES = {
    "running": "good", "idle": "good", "serving": "good", "delivered": "good", "COMPLETED": "good", "success": "good",
    "setup": "wait", "pending": "wait", "docker_pull": "wait", "rolling": "wait", "IN_QUEUE": "wait",
    "IN_PROGRESS": "wait", "draining": "wait", "terminating": "wait", "waiting": "wait",
    "failure_delay": "bad", "failing": "bad", "failed": "bad", "error": "bad",
    "user_error": "wait", "ERROR": "bad", "WARNING": "wait",
}  # fmt: skip
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def plain(text: str) -> str:
    """Return a line without terminal color codes."""
    return _ESCAPES.sub("", text)


def tone(state: str) -> str:
    """Return the color class of a state: good, wait, bad or quiet."""
    return _TONES.get(state, "quiet")


def span(seconds: float | None) -> str:
    """Return a duration in the largest units that are precise enough."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, name, small, less in _UNITS:
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {name}" + (f" {rest} {less}" if rest and whole < 10 * large else "")
    return f"{whole} s"


def ago(now: datetime, at: datetime | None) -> str:
    """Return how long ago a time was. The exact time is a tooltip."""
    if at is None:
        return "never"
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return _time(at, "now")
    return _time(at, f"{_rough(seconds)} ago" if seconds > 0 else f"in {_rough(-seconds)}")


def _time(at: datetime, text: str) -> Markup:
    return Markup('<time datetime="{0}" title="{1}">{2}</time>').format(at.isoformat(), day_time(at), text)


def _rough(seconds: float) -> str:
    for large, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= large:
            return f"{int(seconds // large)} {name}"
    return f"{int(seconds)} s"


def clock_time(at: datetime) -> str:
    """Return a time of day, to the millisecond, in UTC."""
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"


def day_time(at: datetime | None) -> str:
    """Return a date and time of day in UTC."""
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def size(count: int | None) -> str:
    """Return a number of bytes in binary units."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit in {"B", "MiB", "KiB"} else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def amount(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
