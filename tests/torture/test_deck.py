"""Every fault of a run is drawn."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tests.torture.deck import Deck
from tests.torture.driver import FAULTS


@given(st.integers(), st.integers(1, 4))
def test_each_fault_is_drawn_once_before_any_comes_again(seed: int, rounds: int) -> None:
    deck, chance = Deck(FAULTS), random.Random(seed)
    for _ in range(rounds):
        assert sorted(deck.draw(chance) for _ in FAULTS) == sorted(FAULTS)


@given(st.integers())
def test_a_fault_that_could_not_happen_comes_again_within_the_same_turn(seed: int) -> None:
    deck, chance = Deck(FAULTS), random.Random(seed)
    drawn = []
    while len(drawn) < len(FAULTS):
        name = deck.draw(chance)
        if name == "disk" and "tried" not in drawn and drawn.count("disk") == 0 and chance.random() < 0.5:
            deck.put_back(name)
        else:
            drawn.append(name)
    assert sorted(drawn) == sorted(FAULTS)
