"""The table of runners' allowed state transitions. The only function that makes one is here, too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from fal_server.core.runners import RANK, Desired, MetricsAccess, Runner, RunnerState, StopCause

S = RunnerState

# docs/reference/runner-states.md is drawn from this table. A runner can end in every state; otherwise it only moves up.
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
    """An event in the life of a runner."""

    DUE = "due"  # the delay after a failed start has passed
    PULLING = "pulling"  # its image is being fetched or built
    LAUNCHED = "launched"  # the engine has accepted the order; the shim runs
    READY = "ready"  # setup is done: the app's port is open (or its function runs)
    METRICS = "metrics"  # the port of its metrics opened, later than the app's
    UNROUTED = "unrouted"  # the router sends it no more requests, but some are still open
    STOPPING = "stopping"  # SIGTERM or SIGKILL was sent
    GONE = "gone"  # no process of its group is alive


class End(StrEnum):
    """What ended a worker."""

    ORDERED = "ordered"  # the platform, or unknown
    ITSELF = "itself"  # it exited before anyone asked it to
    OUT_OF_MEMORY = "out of memory"
    OUT_OF_DISK = "out of disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """An observation of one runner.

    Attributes:
        reason: for people. A runner that was asked to stop keeps the reason for that.
        gated: for READY, whether a gate guards the port.
        metrics_access: for READY and METRICS, who can connect to the port of the metrics.
        stop_cause: for STOPPING and GONE, if the stop has one.
        exit_code: for GONE, the worker's exit code: 128 + the signal that ended it; None if unknown.
        end: for GONE, what ended the worker.
    """

    runner_id: str
    event: Event
    reason: str = ""
    node: str = ""
    handle: str = ""
    host: str = ""
    port: int | None = None
    metrics_port: int | None = None
    gated: bool = False
    metrics_access: MetricsAccess = MetricsAccess.OPEN
    stop_cause: StopCause | None = None
    exit_code: int | None = None
    end: End = End.ORDERED


def step(runner: Runner, seen: Observation, now: datetime) -> Runner:
    """Return the runner after an observation.

    An observation without a transition in the table changes nothing, because reports may come late or twice.

    Args:
        runner: the stored runner.
        seen: the observation.
        now: the time of the change.
    """
    if seen.event is Event.METRICS:
        known = runner.metrics_access is seen.metrics_access
        return runner if known or runner.ended else replace(runner, metrics_access=seen.metrics_access)
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
            reached = replace(moved, host=seen.host, port=seen.port, metrics_port=seen.metrics_port, gated=seen.gated)
            return replace(reached, metrics_access=seen.metrics_access, ready_at=now)
        case Event.UNROUTED:
            return replace(moved, draining_at=now)
        case Event.STOPPING:
            return replace(moved, stopping_at=now, stop_cause=seen.stop_cause or runner.stop_cause)
        case Event.GONE:
            cause = seen.stop_cause or runner.stop_cause
            return replace(
                moved, ended_at=now, exit_code=seen.exit_code, own_end=_own_end(runner, seen), stop_cause=cause
            )


_TARGETS: dict[Event, RunnerState] = {
    Event.DUE: S.PENDING,
    Event.PULLING: S.DOCKER_PULL,
    Event.LAUNCHED: S.SETUP,
    Event.READY: S.IDLE,
    Event.UNROUTED: S.DRAINING,
    Event.STOPPING: S.TERMINATING,
    Event.GONE: S.TERMINATED,
}


def _own_end(runner: Runner, seen: Observation) -> str:
    ordered = seen.end is End.ORDERED and (runner.desired is not Desired.SERVE or runner.state is S.TERMINATING)
    return "" if ordered else seen.reason


def _reason(runner: Runner, seen: Observation, target: RunnerState) -> str:
    # The reason for waiting ends with the wait. The reason for a stop says more than how the runner ended.
    if RANK[target] < RANK[S.DRAINING]:
        return seen.reason
    if seen.end is not End.ORDERED and runner.kill and runner.reason and seen.reason:
        # The order to kill it came too late: its own exit says more than others' observations of it.
        return f"{seen.reason}; {runner.reason}"
    if seen.end in {End.OUT_OF_MEMORY, End.OUT_OF_DISK}:
        return seen.reason  # it caused the problem that the platform answered with a stop
    asked_to_stop = runner.desired is not Desired.SERVE or runner.state is S.TERMINATING
    return runner.reason if asked_to_stop and runner.reason else seen.reason or runner.reason
