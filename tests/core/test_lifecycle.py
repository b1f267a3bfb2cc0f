"""The states of a runner: only the table's moves, only forward. Late or repeated reports change nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.lifecycle import MOVES, End, Event, Observation, step
from fal_server.core.runners import RANK, Desired, MetricsAccess, RunnerState, StopCause
from tests.fakes.domain import START, at, make_runner

STORED = [state for state in RunnerState if state is not RunnerState.RUNNING]
HANDLE = "1/2"

observations = st.builds(
    Observation,
    runner_id=st.just("x"),
    event=st.sampled_from(Event),
    reason=st.sampled_from(["", "because"]),
    exit_code=st.none() | st.integers(0, 255),
    port=st.none() | st.integers(1, 65535),
    metrics_access=st.sampled_from(MetricsAccess),
)


def seen(event: Event, **fields: Any) -> Observation:
    return Observation(runner_id="x", event=event, **fields)


@given(st.sampled_from(STORED), st.sampled_from(Desired), observations)
def test_a_step_is_a_move_of_the_table_or_nothing(state: RunnerState, desired: Desired, what: Observation) -> None:
    runner = make_runner(state=state, desired=desired)
    moved = step(runner, what, at(5))
    if what.event is Event.METRICS:
        assert moved == replace(runner, metrics_access=moved.metrics_access)
    elif moved is not runner:
        assert moved.state in MOVES[state]
        assert RANK[moved.state] > RANK[state]
    assert moved.desired is desired


@given(st.sampled_from(STORED), observations)
def test_a_repeated_observation_changes_nothing(state: RunnerState, what: Observation) -> None:
    once = step(make_runner(state=state), what, at(5))
    assert step(once, what, at(9)) is once


@given(st.lists(observations, max_size=12))
def test_states_never_move_down_whatever_is_reported(whats: list[Observation]) -> None:
    runner = make_runner(state=RunnerState.FAILURE_DELAY)
    for number, what in enumerate(whats):
        moved = step(runner, what, at(number))
        assert RANK[moved.state] >= RANK[runner.state]
        if runner.ended:
            assert moved is runner
        runner = moved


def test_the_table_moves_up_only_and_an_end_is_possible_from_everywhere() -> None:
    assert set(MOVES) == set(STORED)
    for state, targets in MOVES.items():
        assert all(RANK[target] > RANK[state] for target in targets)
        assert state is RunnerState.TERMINATED or RunnerState.TERMINATED in targets


def test_a_whole_life_with_its_times() -> None:
    runner = make_runner(state=RunnerState.FAILURE_DELAY, not_before=at(30), reason="waits")
    runner = step(runner, seen(Event.DUE), at(30))
    assert (runner.state, runner.not_before, runner.reason) == (RunnerState.PENDING, None, "")
    runner = step(runner, seen(Event.LAUNCHED, node="n", handle=HANDLE), at(31))
    assert (runner.state, runner.started_at, runner.node, runner.handle) == (RunnerState.SETUP, at(31), "n", HANDLE)
    runner = step(runner, seen(Event.READY, port=8080, metrics_port=9090), at(32))
    assert (runner.state, runner.ready_at, runner.port, runner.metrics_port) == (RunnerState.IDLE, at(32), 8080, 9090)
    runner = step(runner, seen(Event.METRICS, metrics_access=MetricsAccess.GATED), at(32))
    assert (runner.state, runner.metrics_access) == (RunnerState.IDLE, MetricsAccess.GATED)
    runner = step(runner, seen(Event.UNROUTED), at(33))
    assert (runner.state, runner.draining_at) == (RunnerState.DRAINING, at(33))
    runner = step(runner, seen(Event.STOPPING), at(34))
    assert (runner.state, runner.stopping_at) == (RunnerState.TERMINATING, at(34))
    runner = step(runner, seen(Event.GONE, exit_code=143), at(35))
    assert (runner.state, runner.ended_at, runner.exit_code) == (RunnerState.TERMINATED, at(35), 143)


@pytest.mark.parametrize(
    ("desired", "state", "reason", "reported", "shown"),
    [
        (Desired.DRAIN, RunnerState.TERMINATING, "stopped by request", "signal 15", "stopped by request"),
        (Desired.GONE, RunnerState.IDLE, "killed by request", "signal 9", "killed by request"),
        (Desired.SERVE, RunnerState.SETUP, "", "setup() raised ValueError", "setup() raised ValueError"),
        (Desired.SERVE, RunnerState.TERMINATING, "not ready in time", "signal 9", "not ready in time"),
        (Desired.SERVE, RunnerState.IDLE, "", "", ""),
    ],
)
def test_why_a_runner_was_to_stop_says_more_than_how_it_ended(
    desired: Desired, state: RunnerState, reason: str, reported: str, shown: str
) -> None:
    runner = make_runner(state=state, desired=desired, reason=reason)
    assert step(runner, seen(Event.GONE, reason=reported), START).reason == shown


def test_that_it_ran_out_of_memory_says_more_than_its_broken_connections() -> None:
    runner = make_runner(state=RunnerState.TERMINATING, desired=Desired.GONE, reason="its connections broke")
    ended = step(runner, seen(Event.GONE, reason="out of memory", end=End.OUT_OF_MEMORY), START)
    assert ended.reason == "out of memory"


def test_an_end_before_the_order_to_kill_it_is_said_first() -> None:
    runner = make_runner(state=RunnerState.IDLE, desired=Desired.GONE, kill=True, reason="it broke the connection of q")
    crashed = step(runner, seen(Event.GONE, reason="worker exited with code 3", end=End.ITSELF), START)
    assert crashed.reason == "worker exited with code 3; it broke the connection of q"
    assert crashed.own_end == "worker exited with code 3"
    killed = step(runner, seen(Event.GONE, reason="worker was killed by signal 9 (SIGKILL)"), START)
    assert (killed.reason, killed.own_end) == (runner.reason, "")


def test_an_end_by_itself_is_kept_apart_from_why_it_was_to_stop() -> None:
    runner = make_runner(state=RunnerState.DRAINING, desired=Desired.DRAIN, reason="revision r does not serve any more")
    crashed = step(runner, seen(Event.GONE, reason="worker exited with code 3", end=End.ITSELF), START)
    assert (crashed.reason, crashed.own_end) == (runner.reason, "worker exited with code 3")


def test_the_cause_of_a_stop_outlasts_the_end() -> None:
    runner = make_runner(state=RunnerState.SETUP, started_at=START)
    stopping = step(runner, seen(Event.STOPPING, stop_cause=StopCause.STARTUP_TIMEOUT), START)
    again = step(replace(stopping, state=RunnerState.SETUP), seen(Event.STOPPING), START)
    ended = step(again, seen(Event.GONE, reason="worker was killed by signal 9 (SIGKILL)"), START)
    assert (ended.stop_cause, ended.own_end) == (StopCause.STARTUP_TIMEOUT, "")
