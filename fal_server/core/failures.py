"""Decides which runners' ends count as failed starts, and counts consecutive ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from fal_server.core.identity import AppId
from fal_server.core.runners import Desired, Runner, StopCause

# A runner that ends by itself this soon after it became ready, without a request, counts as a failed start.
EARLY_END = timedelta(seconds=10)
# Causes of kills after a request found a runner broken.
FOUND_BROKEN = frozenset({StopCause.BROKE_CONNECTION, StopCause.UNAVAILABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """The consecutive failed starts of one revision. It says how many, and when, which and why the last one failed."""

    count: int = 0
    at: datetime | None = None
    runner_id: str = ""
    reason: str = ""
    timed_out: bool = False


NO_FAILURES = Failures()


def failed_to_start(runner: Runner) -> bool:
    """Return whether a runner ended by itself early, without a request. Early is before it was ready, or soon after."""
    if runner.desired is not Desired.SERVE or runner.ended_at is None or runner.first_byte_at is not None:
        return False
    return runner.ready_at is None or runner.ended_at - runner.ready_at < EARLY_END


def failure_of(runner: Runner, at: datetime) -> Failures:
    """Return a revision's failed starts, of which a runner's is the last. Its row has the count."""
    return Failures(
        count=runner.failed_starts,
        at=at,
        runner_id=runner.runner_id,
        reason=runner.reason,
        timed_out=runner.stop_cause is StopCause.STARTUP_TIMEOUT,
    )


def failures_of(runners: Iterable[Runner], must_prove: Callable[[Runner], bool]) -> dict[tuple[AppId, str], Failures]:
    """Return consecutive failed starts by app and revision, from rows. The controller needs this after a restart.

    Args:
        runners: the living and the recently ended ones, in any order.
        must_prove: whether a living runner must still pass a health check before its start counts as successful.
    """
    outcomes: list[tuple[datetime, Runner]] = []
    for runner in runners:
        if runner.failed_starts:
            # A runner that never passed its health check failed when it was unrouted; it ended later.
            failed_at = runner.ended_at if runner.desired is Desired.SERVE else runner.unrouted_at
            outcomes.append((failed_at or runner.created_at, runner))
        elif runner.ready_at is not None and (runner.ended or not must_prove(runner)):
            outcomes.append((runner.ready_at, runner))
    found: dict[tuple[AppId, str], Failures] = {}
    for at, runner in sorted(outcomes, key=lambda outcome: outcome[0]):
        key = (runner.app_id, runner.revision_id)
        found.pop(key, None)
        if runner.failed_starts:
            found[key] = failure_of(runner, at)
    return found
