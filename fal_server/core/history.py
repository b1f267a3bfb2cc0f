"""A runner's history. It has the recorded state changes, and the durations of its start's phases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fal_server.core.runners import Runner, RunnerState


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """One entry of a runner's history.

    Attributes:
        state: the new state. PENDING appears again when the runner is held and when its start is ordered.
        reason: for people; may be empty.
    """

    runner_id: str
    at: datetime
    state: RunnerState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPhases:
    """The duration of each phase of a start, in seconds. None if it has not ended or did not happen.

    Attributes:
        waiting: from the runner's creation until its start on a node is ordered.
        environment: then until its process starts, while its environment, code and secrets are prepared.
        setup: then until it takes requests.
        first_byte: from its first request to the first byte of the response.
    """

    waiting: float | None = None
    environment: float | None = None
    setup: float | None = None
    first_byte: float | None = None


def change_between(before: Runner | None, after: Runner, now: datetime) -> StateChange | None:
    """Return the history entry for a runner's row change; None without one.

    Each new state, the first hold and the order to start have one. So a runner has at most a dozen, however long it
    waits and however often its reason changes.
    """
    new = before is None or before.state is not after.state
    held = before is not None and before.not_before is None and after.not_before is not None
    ordered = before is not None and before.ordered_at is None and after.ordered_at is not None
    if not (new or held or ordered):
        return None
    reason = f"ordered on {after.node} as {after.machine_type}" if ordered and not new else after.reason
    return StateChange(runner_id=after.runner_id, at=now, state=after.state, reason=reason)


def start_phases(runner: Runner) -> StartPhases:
    """Return the duration of each phase of a runner's start."""
    return StartPhases(
        waiting=_between(runner.created_at, runner.ordered_at),
        environment=_between(runner.ordered_at, runner.started_at),
        setup=_between(runner.started_at, runner.ready_at),
        first_byte=_between(runner.first_request_at, runner.first_byte_at),
    )


def _between(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else max(0.0, (end - begin).total_seconds())
