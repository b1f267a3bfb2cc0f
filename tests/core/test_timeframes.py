"""Parts of spans cover each time once. They leave no gaps in any time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.timeframes import Timeframe, begin_of, end_of, usual_timeframe

ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe"]).map(
    ZoneInfo
)
TIMES = st.integers(0, 10 * 365 * 86_400).map(lambda at: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=at))


@given(TIMES, st.sampled_from(list(Timeframe)), ZONES)
def test_each_time_lies_in_its_part(at: datetime, frame: Timeframe, zone: ZoneInfo) -> None:
    begin = begin_of(at, frame, zone)
    end = end_of(begin, frame)
    assert begin.astimezone(UTC) <= at < end.astimezone(UTC)
    assert begin_of(begin, frame, zone) == begin
    last = end.astimezone(UTC) - timedelta(microseconds=1)
    assert begin_of(last, frame, zone).astimezone(UTC) == begin.astimezone(UTC)
    assert begin_of(end, frame, zone).astimezone(UTC) == end.astimezone(UTC)


def test_weeks_begin_on_monday_and_months_on_their_first() -> None:
    at = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    assert begin_of(at, Timeframe.WEEK) == datetime(2026, 12, 28, tzinfo=UTC)
    assert end_of(begin_of(at, Timeframe.MONTH), Timeframe.MONTH) == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("span", "frame"),
    [
        (timedelta(minutes=119), "minute"),
        (timedelta(hours=2), "hour"),
        (timedelta(days=2), "day"),
        (timedelta(days=64), "week"),
        (timedelta(days=183), "month"),
    ],
)
def test_the_usual_timeframe(span: timedelta, frame: str) -> None:
    assert usual_timeframe(span) == frame
