"""A runner's states: the one function that moves a runner from one to the next, and the table of allowed moves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from fal_server.core.runners import RANK, Desired, Runner, RunnerState

S = RunnerState

# docs/reference/runner-states.md is drawn from this table. A runner can end from every state; else they only move up.
MOVES: dict[RunnerState, frozenset[RunnerState]] = {
    S.FAILURE_DELAY: frozenset({S.PENDING, S.TERMINATED}),
    S.PENDING: frozenset({S.DOCKER_PULL, S.SETUP, S.TERMINATED}),
    S.DOCKER_PULL: frozenset({S.SETUP, S.TERMINATING, S.TERMINATED}),
    S.SETUP: frozenset({S.IDLE, S.TERMINATING, S.TERMINATED}),
    S.IDLE: frozenset({S.DRAINING, S.TERMINATING, S.TERMINATED}),
    S.DRAINING: frozenset({S.TERMINATING, S.TERMINATED}),
    S.TERMINATING: frozenset({S.TERMINATED}),
    S.TERMINATED: frozenset(),
}


class Event(StrEnum):
    """What can be seen of a runner."""

    DUE = "due"  # the delay after a failed start is over
    PULLING = "pulling"  # the image that it runs in is fetched or built
    LAUNCHED = "launched"  # the engine has taken the order; the shim is there
    READY = "ready"  # setup is done: the app's port is open (or its function runs)
    UNROUTED = "unrouted"  # the router has acknowledged that it gets no more requests, and some are still open
    STOPPING = "stopping"  # SIGTERM or SIGKILL was sent
    GONE = "gone"  # nothing of its process group is alive


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Something seen of one runner.

    Attributes:
        reason: in words for people. A runner that was told to stop keeps the reason for which it was.
        exit_code: GONE: the worker's exit code, 128 + number where a signal ended it; None where it is not known.
    """

    runner_id: str
    event: Event
    reason: str = ""
    node: str = ""
    handle: str = ""
    host: str = ""
    port: int | None = None
    metrics_port: int | None = None
    exit_code: int | None = None


def step(runner: Runner, seen: Observation, now: datetime) -> Runner:
    """The runner after an observation.

    An observation that would move the state down, or by a move that the table lacks, changes nothing: reports may
    come late or twice.

    Args:
        runner: as it is stored.
        seen: what was seen.
        now: the moment of the change.
    """
    target = _TARGETS[seen.event]
    if target not in MOVES[runner.state]:
        return runner
    moved = replace(runner, state=target, reason=_reason(runner, seen, target))
    match seen.event:
        case Event.DUE:
            return replace(moved, not_before=None)
        case Event.PULLING:
            return replace(moved, not_before=None)
        case Event.LAUNCHED:
            return replace(moved, started_at=now, node=seen.node, handle=seen.handle, not_before=None)
        case Event.READY:
            return replace(moved, ready_at=now, host=seen.host, port=seen.port, metrics_port=seen.metrics_port)
        case Event.UNROUTED:
            return replace(moved, draining_at=now)
        case Event.STOPPING:
            return replace(moved, stopping_at=now)
        case Event.GONE:
            return replace(moved, ended_at=now, exit_code=seen.exit_code)


_TARGETS: dict[Event, RunnerState] = {
    Event.DUE: S.PENDING,
    Event.PULLING: S.DOCKER_PULL,
    Event.LAUNCHED: S.SETUP,
    Event.READY: S.IDLE,
    Event.UNROUTED: S.DRAINING,
    Event.STOPPING: S.TERMINATING,
    Event.GONE: S.TERMINATED,
}


def _reason(runner: Runner, seen: Observation, target: RunnerState) -> str:
    """A reason to wait ends with the waiting; why a runner was to stop says more than how it then ended."""
    if RANK[target] < RANK[S.DRAINING]:
        return seen.reason
    told = runner.desired is not Desired.SERVE or runner.state is S.TERMINATING
    return runner.reason if told and runner.reason else seen.reason or runner.reason
