"""The parser of times on the command line."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_cli.times import parse_time

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "back"),
    [
        ("now", timedelta()),
        ("NOW", timedelta()),
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("1h", timedelta(hours=1)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("1d", timedelta(days=1)),
        ("2w", timedelta(weeks=2)),
        ("3 days", timedelta(days=3)),
        ("24h ago", timedelta(days=1)),
        ("1 hour 5 minutes ago", timedelta(minutes=65)),
    ],
)
def test_relative_times_count_back_from_now(text, back):
    assert parse_time(text, now=NOW) == NOW - back


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T09:00:00Z", datetime(2026, 1, 31, 9, tzinfo=UTC)),
        ("2026-01-31T09:00:00+02:00", datetime(2026, 1, 31, 7, tzinfo=UTC)),
        ("2026-01-31 09:00:00.25Z", datetime(2026, 1, 31, 9, microsecond=250000, tzinfo=UTC)),
    ],
)
def test_iso_timestamps(text, expected):
    assert parse_time(text) == expected


def test_a_timestamp_without_offset_is_local(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_time("2026-01-31T09:00") == datetime(2026, 1, 31, tzinfo=UTC)
        assert parse_time("1h", now=NOW) == NOW - timedelta(hours=1)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "soon", "5", "h", "-1h", "1x", "2026-13-01", "1h later", "999999999999w", "m m"])
def test_a_malformed_time_is_refused(text):
    with pytest.raises(ValueError, match=r"not a time|too far back"):
        parse_time(text)


@given(st.text())
def test_any_text_gives_a_time_or_a_value_error(text):
    try:
        assert parse_time(text).tzinfo is not None
    except ValueError:
        return


@given(st.integers(0, 10**4), st.sampled_from("smhdw"))
def test_every_count_of_a_unit_is_in_the_past(count, unit):
    assert parse_time(f"{count}{unit}", now=NOW) <= NOW
