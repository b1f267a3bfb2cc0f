"""Simulated request traces: exact examples, and properties for every trace."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument
from fal_server.core.scaling import Scaling
from fal_server.core.simulation import MOST_ARRIVALS, Arrival, SimulationResult, simulate


def play(scaling: Scaling, arrivals: list[Arrival], start_seconds: float = 1.0) -> SimulationResult:
    game = simulate(scaling, arrivals, start_seconds)
    try:
        while True:
            next(game)
    except StopIteration as done:
        return done.value


def every(seconds: float, count: int, duration: float) -> list[Arrival]:
    return [Arrival(at=number * seconds, duration=duration) for number in range(count)]


def test_one_request_waits_for_the_start_and_its_runner_goes_after_keep_alive() -> None:
    result = play(Scaling(keep_alive=10), [Arrival(at=0, duration=2)])
    assert (result.started, result.most_runners, result.waits, result.unserved) == (1, 1, (1.0,), 0)
    assert result.runner_seconds == pytest.approx(1 + 2 + 10, abs=0.01)


def test_a_delay_holds_a_start_back_and_multiplexing_spares_runners() -> None:
    delayed = play(Scaling(scaling_delay=5), [Arrival(at=0, duration=2)])
    assert delayed.waits == (pytest.approx(6.0, abs=0.001),)
    burst = [Arrival(at=0, duration=5)] * 8
    assert play(Scaling(max_concurrency=8), burst).most_runners == 8
    assert play(Scaling(max_concurrency=8, max_multiplexing=4), burst).most_runners == 2


def test_a_floor_is_there_before_the_first_request_and_stays() -> None:
    result = play(Scaling(min_concurrency=2), [Arrival(at=30, duration=1)])
    assert result.waits == (0.0,)
    assert [point.runners for point in result.points] == [2] * len(result.points)


def test_what_cannot_be_served_is_counted() -> None:
    assert play(Scaling(max_concurrency=0), every(1, 3, 1)).unserved == 3
    assert play(Scaling(request_start_timeout=1), [Arrival(at=0, duration=1)], start_seconds=5).unserved == 1
    never = play(Scaling(startup_timeout=1), [Arrival(at=0, duration=1)], start_seconds=5)
    assert (never.unserved, never.most_runners) == (1, 1)


def test_a_request_that_takes_too_long_costs_its_runner() -> None:
    result = play(Scaling(request_timeout=3, keep_alive=60), [Arrival(at=0, duration=9)])
    assert result.runner_seconds == pytest.approx(1 + 3, abs=0.01)


@pytest.mark.parametrize(
    ("arrivals", "start_seconds", "field"),
    [
        ([], 1.0, "arrivals"),
        ([Arrival(at=0, duration=1)] * (MOST_ARRIVALS + 1), 1.0, "arrivals"),
        ([Arrival(at=-1, duration=1)], 1.0, "arrivals"),
        ([Arrival(at=0, duration=float("nan"))], 1.0, "arrivals"),
        ([Arrival(at=0, duration=1)], float("inf"), "start_seconds"),
    ],
)
def test_what_cannot_be_played_is_refused(arrivals: list[Arrival], start_seconds: float, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        play(Scaling(), arrivals, start_seconds)
    assert refused.value.field == field


loads = st.lists(
    st.builds(Arrival, at=st.integers(0, 100).map(float), duration=st.sampled_from([0.0, 0.5, 3.0, 20.0])),
    min_size=1,
    max_size=40,
)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    arrivals=loads,
    least=st.integers(0, 2),
    more=st.integers(0, 3),
    buffer=st.integers(0, 2),
    multiplexing=st.integers(1, 3),
    delay=st.sampled_from([0, 4]),
    start=st.sampled_from([0.0, 1.0, 15.0]),
)
def test_for_every_trace(
    arrivals: list[Arrival], least: int, more: int, buffer: int, multiplexing: int, delay: int, start: float
) -> None:
    scaling = Scaling(
        min_concurrency=least,
        max_concurrency=least + more,
        concurrency_buffer=buffer,
        max_multiplexing=multiplexing,
        scaling_delay=delay,
    )
    result = play(scaling, arrivals, start)
    assert result.most_runners <= scaling.max_concurrency
    floor = min(scaling.max_concurrency, max(least, buffer))
    assert all(point.runners >= floor for point in result.points)
    assert all(point.in_flight <= point.ready * multiplexing for point in result.points if point.ready == point.runners)
    if scaling.max_concurrency:
        assert len(result.waits) == len(arrivals)
        assert result.unserved == 0
    assert result == play(scaling, arrivals, start)
