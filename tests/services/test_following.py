"""The cursor of a followed log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.services.following import Position

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def line(runner_id: str, sequence: int, after: float) -> LogEntry:
    """Return a line, `after` seconds after noon."""
    return LogEntry(
        account=LOCAL,
        runner_id=runner_id,
        sequence=sequence,
        timestamp=NOON + timedelta(seconds=after),
        level=LogLevel.INFO,
        source=LogSource.STDOUT,
        message="",
    )


@pytest.mark.parametrize(
    "cursor", ["x", "W10", "bnVsbA", "WzEsMiwzXQ", "W251bGwsbnVsbCx7ImEiOjF9XQ", "WzFlOTksbnVsbCx7fV0"]
)
def test_invalid_cursors(cursor: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Position.read(cursor)
    assert caught.value.field == "cursor"


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 200)), max_size=30), st.booleans())
def test_a_cursor_is_read_back_as_the_same_position(lines: list[tuple[str, int]], floored: bool) -> None:
    position = Position(NOON if floored else None)
    for number, (runner_id, after) in enumerate(lines, 1):
        position.advance([line(runner_id, number, after)])
    again = Position.read(position.cursor())
    assert (again.cursor(), again.sent(), again.since, again.floor) == (
        position.cursor(),
        position.sent(),
        position.since,
        position.floor,
    )
