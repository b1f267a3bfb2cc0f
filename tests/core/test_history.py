"""The stored changes of a runner, and the phases of its start."""

from __future__ import annotations

from dataclasses import replace

from fal_server.core.history import StartPhases, StateChange, change_between, start_phases
from fal_server.core.runners import Desired, RunnerState
from tests.fakes.domain import at, make_runner

S = RunnerState


def test_a_new_runner_and_every_new_state_are_kept_with_their_reason() -> None:
    pending = make_runner(reason="2 requests")
    assert change_between(None, pending, at(1)) == StateChange(
        runner_id="x", at=at(1), state=S.PENDING, reason="2 requests"
    )
    ended = replace(pending, state=S.TERMINATED, reason="no longer needed")
    assert change_between(pending, ended, at(2)) == StateChange(
        runner_id="x", at=at(2), state=S.TERMINATED, reason="no longer needed"
    )


def test_within_one_state_the_first_hold_and_the_order_are_kept_and_nothing_else() -> None:
    pending = make_runner()
    held = replace(pending, reason="no node has room (a)", not_before=at(20))
    change = change_between(pending, held, at(0))
    assert change is not None
    assert change.reason == "no node has room (a)"
    assert change_between(held, replace(held, reason="no node has room (b)", not_before=at(40)), at(20)) is None
    ordered = change_between(held, replace(held, ordered_at=at(41), node="n1", machine_type="M"), at(41))
    assert ordered == StateChange(runner_id="x", at=at(41), state=S.PENDING, reason="ordered on n1 as M")
    idle = make_runner(state=S.IDLE)
    assert change_between(idle, replace(idle, desired=Desired.DRAIN, reason="rolled out"), at(1)) is None


def test_the_parts_of_a_start() -> None:
    runner = make_runner(state=S.SETUP, created_at=at(0), ordered_at=at(5), started_at=at(7))
    assert start_phases(runner) == StartPhases(waiting=5, environment=2)
    served = replace(runner, ready_at=at(17), first_request_at=at(100), first_byte_at=at(100.25))
    assert start_phases(served) == StartPhases(waiting=5, environment=2, setup=10, first_byte=0.25)
    assert start_phases(make_runner()) == StartPhases()
