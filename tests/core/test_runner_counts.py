"""Counts of runners for each minute. They come from their phases and from the durations of requests."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.runner_counts import (
    Aggregation,
    Phase,
    RunnerCounts,
    Stay,
    counts_by_minute,
    stays_of,
    together,
)
from tests.store import strategies as some

START = some.START.replace(second=0, microsecond=0)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def stay(phase: Phase, begin: float, end: float) -> Stay:
    return Stay(phase=phase, begin=at(begin), end=at(end))


def test_a_runner_is_pending_then_ready_then_draining() -> None:
    runner = replace(
        some.runner("a"), created_at=at(0), ready_at=at(10), draining_at=at(50), stopping_at=at(55), ended_at=at(60)
    )
    assert stays_of(runner, at(100)) == [
        stay(Phase.PENDING, 0, 10), stay(Phase.READY, 10, 50), stay(Phase.DRAINING, 50, 60),
    ]  # fmt: skip
    assert stays_of(runner, at(20)) == [stay(Phase.PENDING, 0, 10), stay(Phase.READY, 10, 20)]
    never_ready = replace(runner, ready_at=None, draining_at=None, stopping_at=None)
    assert stays_of(never_ready, at(100)) == [stay(Phase.PENDING, 0, 60)]
    alive = replace(runner, draining_at=None, stopping_at=None, ended_at=None)
    assert stays_of(alive, at(100))[-1] == stay(Phase.READY, 10, 100)


def test_a_replacement_within_a_minute_is_no_second_runner() -> None:
    stays = [stay(Phase.READY, 0, 90), stay(Phase.READY, 90, 180)]
    highest = counts_by_minute(stays, {}, at(0), at(180), Aggregation.MAX)
    assert [counts.idle for counts in highest] == [1, 1, 1]
    mean = counts_by_minute([stay(Phase.READY, 30, 90)], {}, at(0), at(120), Aggregation.AVG)
    assert [counts.idle for counts in mean] == [0.5, 0.5]


def test_a_long_request_counts_for_the_minutes_before_its_end() -> None:
    stays = [stay(Phase.READY, 0, 300)]
    counts = counts_by_minute(stays, {at(180): 150.0}, at(0), at(300), Aggregation.AVG)
    assert [each.running for each in counts] == pytest.approx([0, 0.5, 1, 1, 0])
    assert [each.idle for each in counts] == pytest.approx([1, 0.5, 0, 0, 1])
    highest = counts_by_minute(stays, {at(180): 150.0}, at(0), at(300), Aggregation.MAX)
    assert [each.running for each in highest] == [0, 1, 1, 1, 0]


def test_a_request_that_ended_later_counts_for_the_last_minutes() -> None:
    counts = counts_by_minute([stay(Phase.READY, 0, 120)], {at(600): 60.0}, at(0), at(120), Aggregation.AVG)
    assert [each.running for each in counts] == pytest.approx([0, 1])


STAYS = st.lists(
    st.tuples(st.sampled_from(list(Phase)), st.integers(-100, 400), st.integers(1, 400)).map(
        lambda drawn: stay(drawn[0], drawn[1], drawn[1] + drawn[2])
    ),
    max_size=6,
)


@given(STAYS, st.dictionaries(st.integers(0, 6), st.floats(0, 500), max_size=4), st.sampled_from(list(Aggregation)))
def test_counts_stay_within_what_there_was(stays: list[Stay], busy: dict[int, float], how: Aggregation) -> None:
    counts = counts_by_minute(stays, {at(60 * k): v for k, v in busy.items()}, at(0), at(330), how)
    assert len(counts) == 6
    for number, each in enumerate(counts):
        alive = [s for s in stays if s.begin < at(60 * number + 60) and s.end > at(60 * number)]
        for phase, count in (
            (Phase.PENDING, each.pending), (Phase.READY, each.running + each.idle), (Phase.DRAINING, each.draining),
        ):  # fmt: skip
            assert -1e-9 <= count <= len([s for s in alive if s.phase is phase]) + 1e-9
        assert each.idle >= -1e-9
    part = together(counts, how)
    assert part.pending <= max(each.pending for each in counts) + 1e-4
    assert together([RunnerCounts(idle=2)], how) == RunnerCounts(idle=2)
