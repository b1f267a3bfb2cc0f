"""The sketch of durations. Its quantiles keep their error, and parts add up to the whole."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.sketch import LEAST_SECONDS, RELATIVE_ERROR, DurationSketch

DURATIONS = st.lists(st.floats(LEAST_SECONDS, 1e6), min_size=1, max_size=200)


def sketch_of(durations: list[float]) -> DurationSketch:
    made = DurationSketch()
    for each in durations:
        made.add(each)
    return made


@given(DURATIONS, st.floats(0, 1))
def test_a_quantile_is_as_near_as_promised(durations: list[float], share: float) -> None:
    exact = sorted(durations)[max(1, math.ceil(share * len(durations))) - 1]
    found = sketch_of(durations).quantile(share)
    assert found is not None
    assert abs(found - exact) <= RELATIVE_ERROR * exact * (1 + 1e-9)


@given(DURATIONS, DURATIONS, st.floats(0, 1))
def test_parts_add_up_to_the_whole(some: list[float], others: list[float], share: float) -> None:
    merged = sketch_of(some)
    merged.merge(sketch_of(others))
    whole = sketch_of(some + others)
    assert merged.counts == whole.counts
    assert merged.count == len(some) + len(others)
    assert merged.quantile(share) == whole.quantile(share)
    assert math.isclose(merged.seconds, math.fsum(some + others))


@given(DURATIONS, st.floats(1e-5, 1e5))
def test_a_bound_counts_what_is_surely_below_it(durations: list[float], bound: float) -> None:
    (counted,) = sketch_of(durations).up_to([bound])
    assert counted <= sum(each <= bound * (1 + 1e-6) for each in durations)
    assert counted >= sum(each <= bound * (1 - 2 * RELATIVE_ERROR) for each in durations)


def test_of_nothing_there_is_no_quantile() -> None:
    assert DurationSketch().quantile(0.5) is None
    assert DurationSketch().count == 0


def test_no_time_and_less_count_as_the_least() -> None:
    assert sketch_of([0.0, -1.0]).quantile(1) == sketch_of([LEAST_SECONDS]).quantile(1)
