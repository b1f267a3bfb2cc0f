"""The number of workers that wait for the next runners."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.bursts import Wish, largest_burst, shares

TIMES = st.lists(st.floats(0, 100, allow_nan=False), max_size=30).map(sorted)
WISHES = st.dictionaries(
    st.text(max_size=3),
    st.builds(Wish, workers=st.integers(0, 40), mib=st.none() | st.floats(0, 4000, allow_nan=False)),
    max_size=6,
)


@given(TIMES, st.floats(0, 200, allow_nan=False))
def test_a_burst_is_the_most_starts_within_a_window(times: list[float], window: float) -> None:
    most = max((sum(0 <= other - first <= window for other in times) for first in times), default=0)
    assert largest_burst(times, window) == most


def test_starts_far_apart_are_no_burst() -> None:
    assert largest_burst([0, 10, 20], 3) == 1
    assert largest_burst([0, 1, 2, 10, 11], 3) == 3
    assert largest_burst([], 3) == 0
    assert largest_burst([0, 10, 20], 15) == 2


@given(WISHES, st.floats(-100, 10_000, allow_nan=False))
def test_each_gets_one_and_no_more_than_it_calls_for_or_than_there_is_room(
    wishes: dict[str, Wish], budget: float
) -> None:
    given = shares(wishes, budget)
    assert given.keys() == wishes.keys()
    more = {key: given[key] - 1 for key in given}
    assert all(0 <= more[key] <= max(0, wishes[key].workers - 1) for key in more)
    assert all(more[key] == 0 for key in more if wishes[key].mib is None)
    assert sum(more[key] * (wishes[key].mib or 0) for key in more) <= max(0.0, budget) + 1e-6


def test_the_environment_used_last_is_served_first() -> None:
    wishes = {"earlier": Wish(workers=4, mib=100), "last": Wish(workers=3, mib=100)}
    assert shares(wishes, 300) == {"earlier": 2, "last": 3}
    assert shares(wishes, 0) == {"earlier": 1, "last": 1}
