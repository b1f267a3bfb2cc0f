"""Which runner gets a request: one with room, warm for the hint if possible, with the fewest requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.routing import Slot, pick

slots = st.lists(
    st.builds(
        Slot,
        runner_id=st.just("x"),
        host=st.just("h"),
        port=st.just(1),
        in_flight=st.integers(0, 6),
        open=st.booleans(),
        hints=st.frozensets(st.sampled_from("ab")),
    ),
    max_size=8,
)


@given(slots, st.integers(1, 6), st.none() | st.sampled_from("abc"))
def test_the_pick(given_slots: list[Slot], most: int, hint: str | None) -> None:
    possible = [slot for slot in given_slots if slot.open and slot.in_flight < most]
    best = pick(given_slots, most, hint)
    if best is None:
        assert not possible
        return
    assert best in possible
    warm = [slot for slot in possible if hint in slot.hints]
    rivals = warm or possible
    assert best in rivals
    assert best.in_flight == min(slot.in_flight for slot in rivals)


def test_a_warm_runner_goes_before_an_emptier_one_but_is_not_waited_for() -> None:
    warm = Slot(runner_id="warm", host="h", port=1, in_flight=1, hints=frozenset({"m"}))
    cold = Slot(runner_id="cold", host="h", port=2)
    assert pick([cold, warm], 2, "m") is warm
    assert pick([cold, warm], 1, "m") is cold
    assert pick([], 1) is None


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["begin", "begin", "end", "close"]), st.integers(0, 15)), max_size=80),
)
def test_no_runner_has_more_than_its_share_and_none_is_passed_over(
    runners: int, most: int, history: list[tuple[str, int]]
) -> None:
    slots = [Slot(runner_id=f"{n}", host="h", port=n) for n in range(runners)]
    under_way: list[Slot] = []
    for what, number in history:
        if what == "close":
            slots[number % runners].open = False
        elif what == "end" and under_way:
            under_way.pop(number % len(under_way)).in_flight -= 1
        elif what == "begin":
            room = [slot for slot in slots if slot.open and slot.in_flight < most]
            slot = pick(slots, most)
            assert (slot is None) == (not room)
            if slot is not None:
                assert slot.open
                slot.in_flight += 1
                under_way.append(slot)
        assert all(0 <= slot.in_flight <= most for slot in slots)
        assert sum(slot.in_flight for slot in slots) == len(under_way)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 30))
def test_requests_are_spread_evenly(runners: int, most: int, requests: int) -> None:
    slots = [Slot(runner_id=f"{n}", host="h", port=n) for n in range(runners)]
    for _ in range(requests):
        slot = pick(slots, most)
        if slot is not None:
            slot.in_flight += 1
    loads = [slot.in_flight for slot in slots]
    assert max(loads) - min(loads) <= 1
    assert sum(loads) == min(requests, runners * most)
