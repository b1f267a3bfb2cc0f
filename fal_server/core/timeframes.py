"""Timeframes: intervals into which a span's statistics are divided. They are in a time zone."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

UTC_ZONE = ZoneInfo("UTC")


class Timeframe(StrEnum):
    """The length of an interval."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


# The published rule: the timeframe of a span that is shorter than this.
_SHORTER_THAN = (
    (timedelta(hours=2), Timeframe.MINUTE),
    (timedelta(days=2), Timeframe.HOUR),
    (timedelta(days=64), Timeframe.DAY),
    (timedelta(days=183), Timeframe.WEEK),
)


def usual_timeframe(span: timedelta) -> Timeframe:
    """Return the default timeframe of a span."""
    return next((frame for length, frame in _SHORTER_THAN if span < length), Timeframe.MONTH)


def begin_of(at: datetime, frame: Timeframe, zone: ZoneInfo = UTC_ZONE) -> datetime:
    """Return when the interval that contains a time begins, in the zone. Weeks begin on Monday."""
    local = at.astimezone(zone).replace(second=0, microsecond=0)
    if frame is Timeframe.MINUTE:
        return local
    local = local.replace(minute=0)
    if frame is Timeframe.HOUR:
        return local
    local = local.replace(hour=0, fold=0)
    if frame is Timeframe.DAY:
        return local
    if frame is Timeframe.WEEK:
        return local - timedelta(days=local.weekday())
    return local.replace(day=1)


def end_of(begin: datetime, frame: Timeframe) -> datetime:
    """Return when the interval that begins at a time ends. Both are in the same zone."""
    if frame is Timeframe.MINUTE:
        return (begin.astimezone(UTC_ZONE) + timedelta(minutes=1)).astimezone(begin.tzinfo)
    if frame is Timeframe.HOUR:
        # Add elapsed time, because the hour that a zone repeats in autumn is two hours.
        return (begin.astimezone(UTC_ZONE) + timedelta(hours=1)).astimezone(begin.tzinfo)
    if frame is Timeframe.DAY:
        return begin + timedelta(days=1)
    if frame is Timeframe.WEEK:
        return begin + timedelta(weeks=1)
    return begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
