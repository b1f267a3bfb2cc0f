"""Backoff: pauses grow up to a cap, and differ between clients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal.api.logs import LogReconnectPolicy
from fal_grpc.backoff import Backoff
from fal_grpc.errors import UnavailableError


def test_pauses_double_up_to_the_cap():
    backoff = Backoff(first_seconds=0.5, longest_seconds=3, jitter=0)
    assert [backoff.pause(failures) for failures in range(6)] == [0, 0.5, 1, 2, 3, 3]
    assert backoff.pause(10**9) == 3


def test_jitter_only_shortens():
    drawn = iter([0.0, 0.5, 0.99])
    backoff = Backoff(first_seconds=4, longest_seconds=4, jitter=0.5, rng=lambda: next(drawn))
    assert [backoff.pause(1) for _ in range(3)] == [4, 3, pytest.approx(2.02)]


@given(
    st.floats(0.001, 10),
    st.floats(1, 1000),
    st.floats(1, 5),
    st.floats(0, 1),
    st.floats(0, 0.999),
    st.integers(1, 5000),
)
def test_no_pause_is_longer_than_the_cap(first, times, factor, jitter, drawn, failures):
    backoff = Backoff(
        first_seconds=first, longest_seconds=first * times, factor=factor, jitter=jitter, rng=lambda: drawn
    )
    pause = backoff.pause(failures)
    assert 0 <= pause <= first * times * 1.0000001
    assert pause >= first * (1 - jitter) * 0.999999


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_seconds": 0},
        {"first_seconds": 2, "longest_seconds": 1},
        {"factor": 0.5},
        {"jitter": 1.5},
    ],
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="no such backoff"):
        Backoff(**{"first_seconds": 1, "longest_seconds": 1, **wrong})


def test_followers_of_logs_do_not_reconnect_in_lockstep():
    def pauses() -> list[float]:
        policy = LogReconnectPolicy()
        return [policy.pause(UnavailableError("gone"), resumable=True) for _ in range(10)]

    one, other = pauses(), pauses()
    assert one != other
    assert 2.5 <= one[-1] <= 5
