"""docs/reference/runner-states.md matches the table of moves."""

from __future__ import annotations

from fal_server.core.lifecycle import MOVES
from scripts.runner_states import MEANINGS, PAGE, SPINE, moves, render


def test_the_page_is_what_the_script_writes() -> None:
    assert PAGE.read_text() == render(), "run .venv/bin/python -m scripts.runner_states"


def test_every_state_and_move_is_shown() -> None:
    assert set(SPINE) == set(MOVES) == set(MEANINGS)
    assert {(state, target) for state, targets in MOVES.items() for target in targets} == set(moves())
    for state, target in moves():
        assert f"    {state.name} --> {target.name}\n" in render()
