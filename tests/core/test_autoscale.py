"""The scaling formula: its documented examples, and properties for every load."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.autoscale import Load, decide
from fal_server.core.scaling import Scaling


@st.composite
def scalings(draw: st.DrawFn) -> Scaling:
    least = draw(st.integers(0, 20))
    return Scaling(
        min_concurrency=least,
        max_concurrency=draw(st.integers(least, 200)),
        concurrency_buffer=draw(st.integers(0, 20)),
        concurrency_buffer_perc=draw(st.integers(0, 300)),
        max_multiplexing=draw(st.integers(1, 50)),
    )


@st.composite
def loads(draw: st.DrawFn) -> Load:
    queued = draw(st.integers(0, 500))
    return Load(in_flight=draw(st.integers(0, 500)), queued=queued, eligible=draw(st.integers(0, queued)))


@pytest.mark.parametrize(
    ("settings", "volume", "runners"),
    [
        ({}, 0, 0),
        ({}, 1, 1),
        ({}, 5, 2),  # max_concurrency 2
        ({"max_concurrency": 10}, 5, 5),
        ({"max_concurrency": 10, "max_multiplexing": 4}, 5, 2),
        ({"max_concurrency": 10, "max_multiplexing": 4}, 8, 2),
        ({"max_concurrency": 10, "max_multiplexing": 4}, 9, 3),
        ({"max_concurrency": 10, "min_concurrency": 3}, 0, 3),
        ({"max_concurrency": 10, "min_concurrency": 3}, 2, 3),
        ({"max_concurrency": 10, "concurrency_buffer": 2}, 0, 2),  # kept at no load
        ({"max_concurrency": 10, "concurrency_buffer": 2}, 3, 5),  # above the load
        ({"max_concurrency": 10, "concurrency_buffer": 2, "min_concurrency": 3}, 0, 3),
        ({"max_concurrency": 50, "concurrency_buffer_perc": 20}, 10, 12),
        ({"max_concurrency": 50, "concurrency_buffer_perc": 20}, 11, 14),  # ceil(2.2)
        (
            {"max_concurrency": 50, "concurrency_buffer_perc": 20, "max_multiplexing": 10},
            10,
            2,
        ),  # of runners, not requests
        ({"max_concurrency": 50, "concurrency_buffer_perc": 20, "concurrency_buffer": 3}, 10, 13),  # the larger one
        ({"max_concurrency": 50, "concurrency_buffer_perc": 20}, 0, 0),
        ({"max_concurrency": 4, "concurrency_buffer": 3}, 3, 4),
        ({"max_concurrency": 0}, 3, 0),
    ],
)
def test_examples(settings: dict[str, Any], volume: int, runners: int) -> None:
    decision = decide(Scaling(**settings), Load(in_flight=volume))
    assert (decision.start_below, decision.keep) == (runners, runners)


@given(scalings(), loads())
def test_never_above_the_most_and_never_below_the_floor(scaling: Scaling, load: Load) -> None:
    decision = decide(scaling, load)
    floor = min(scaling.max_concurrency, max(scaling.min_concurrency, scaling.concurrency_buffer))
    assert floor <= decision.start_below <= decision.keep <= scaling.max_concurrency


@given(scalings(), loads(), st.integers(0, 100), st.integers(0, 100))
def test_more_load_is_never_fewer_runners(scaling: Scaling, load: Load, more: int, more_ripe: int) -> None:
    busier = Load(
        in_flight=load.in_flight + more, queued=load.queued + more_ripe + more, eligible=load.eligible + more_ripe
    )
    before, after = decide(scaling, load), decide(scaling, busier)
    assert before.start_below <= after.start_below
    assert before.keep <= after.keep


@given(scalings(), loads())
def test_constant_load_is_a_constant_decision(scaling: Scaling, load: Load) -> None:
    assert decide(scaling, load) == decide(scaling, load)


@given(scalings(), st.integers(0, 300), st.integers(0, 300))
def test_moving_a_request_from_the_line_to_a_runner_changes_nothing(scaling: Scaling, busy: int, eligible: int) -> None:
    waiting = decide(scaling, Load(in_flight=busy, queued=eligible, eligible=eligible))
    served = decide(scaling, Load(in_flight=busy + eligible))
    assert (waiting.start_below, waiting.keep) == (served.start_below, served.keep)


def test_a_request_that_waits_out_scaling_delay_starts_nothing_but_keeps_what_is_there() -> None:
    decision = decide(Scaling(scaling_delay=5, max_concurrency=9), Load(in_flight=1, queued=3, eligible=1))
    assert (decision.start_below, decision.keep) == (2, 4)
    assert "2 more wait out scaling_delay 5 s" in decision.reason


def test_the_reason_shows_the_arithmetic() -> None:
    reason = decide(Scaling(max_concurrency=9, max_multiplexing=2, concurrency_buffer=1), Load(in_flight=5)).reason
    assert reason == "5 requests / 2 at once = 3 runners, buffer 1, min 0, max 9: 4"
