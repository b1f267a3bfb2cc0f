"""Which runner gets a request: one with room and the fewest requests. If possible it is warm for the hint."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.routing import OpenSlots, Slot


def pick(slots: Iterable[Slot], max_multiplexing: int, hint: str | None = None) -> Slot | None:
    """Return the choice by the plain rule, which looks at every runner."""
    possible = [slot for slot in slots if slot.open and slot.in_flight < max_multiplexing]
    warm = [slot for slot in possible if hint in slot.hints]
    return min(warm or possible, key=lambda slot: slot.in_flight, default=None)


def placed(slots: Iterable[Slot]) -> OpenSlots:
    places = OpenSlots()
    for slot in slots:
        if slot.open:
            places.add(slot)
    return places


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
def test_the_choice_is_that_of_the_rule(given_slots: list[Slot], most: int, hint: str | None) -> None:
    for number, slot in enumerate(given_slots):
        slot.runner_id = f"{number}"
    assert placed(given_slots).choose(most, hint) is pick(given_slots, most, hint)


steps = st.tuples(
    st.sampled_from(["begin"] * 4 + ["end"] * 3 + ["open", "close", "warm"]),
    st.integers(0, 30),
    st.none() | st.sampled_from("abc"),
)


@given(st.integers(1, 4), st.lists(steps, max_size=200))
def test_the_choice_is_that_of_the_rule_after_whatever_happened(
    most: int, history: list[tuple[str, int, str | None]]
) -> None:
    places = OpenSlots()
    routed: list[Slot] = []  # in the order of their arrival
    under_way: list[Slot] = []
    made = 0
    for what, number, hint in history:
        if what == "open":
            routed.append(Slot(runner_id=f"{made}", host="h", port=1, in_flight=number % 3))
            under_way += [routed[-1]] * (number % 3)
            places.add(routed[-1])
            made += 1
        elif what == "close" and routed:
            slot = routed.pop(number % len(routed))
            slot.open = False
            places.remove(slot)
            if number % 2:  # it gets requests again, because the change could not be stored
                slot.open = True
                places.add(slot)
                routed.append(slot)
        elif what == "warm" and routed:
            routed[number % len(routed)].warm_for(frozenset(f"{hint or ''}ab"[: number % 3]))
        elif what == "end" and under_way:
            under_way.pop(number % len(under_way)).give_back()
        elif what == "begin":
            chosen = places.choose(most, hint)
            assert chosen is pick(routed, most, hint)
            if chosen is not None:
                chosen.take()
                under_way.append(chosen)
        assert list(places) == routed
        assert places.in_flight == sum(slot.in_flight for slot in routed)


def test_runners_that_are_gone_leave_nothing_behind() -> None:
    places, kept = OpenSlots(), weakref.WeakSet[Slot]()
    stays = Slot(runner_id="stays", host="h", port=1)
    places.add(stays)
    for number in range(1000):
        slot = Slot(runner_id=f"{number}", host="h", port=1, hints=frozenset({"m"}))
        kept.add(slot)
        places.add(slot)
        slot.take()
        places.remove(slot)
    gc.collect()
    assert len(kept) < 100
    assert places.choose(1) is stays


class Hint(str):
    """A string that supports weak references."""


def test_hints_that_are_replaced_leave_nothing_behind() -> None:
    places, kept = OpenSlots(), weakref.WeakSet[Hint]()
    slot = Slot(runner_id="r", host="h", port=1)
    places.add(slot)
    for number in range(1000):
        hint = Hint(f"model {number}")
        kept.add(hint)
        slot.warm_for(frozenset({hint}))
        assert places.choose(1, hint) is slot
        slot.take()
        slot.give_back()
    del hint
    gc.collect()
    assert len(kept) == 1
    places.remove(slot)
    slot.hints = frozenset()
    gc.collect()
    assert not kept


def test_a_warm_runner_goes_before_an_emptier_one_but_is_not_waited_for() -> None:
    warm = Slot(runner_id="warm", host="h", port=1, in_flight=1, hints=frozenset({"m"}))
    cold = Slot(runner_id="cold", host="h", port=2)
    places = placed([cold, warm])
    assert places.choose(2, "m") is warm
    assert places.choose(1, "m") is cold
    assert OpenSlots().choose(1) is None


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 30))
def test_requests_are_spread_evenly(runners: int, most: int, requests: int) -> None:
    slots = [Slot(runner_id=f"{n}", host="h", port=n) for n in range(runners)]
    places = placed(slots)
    for _ in range(requests):
        slot = places.choose(most)
        if slot is not None:
            slot.take()
    loads = [slot.in_flight for slot in slots]
    assert max(loads) - min(loads) <= 1
    assert sum(loads) == min(requests, runners * most)
