"""Which runner gets a request: one with room, warm for the hint if there is one, with the least to do."""

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
