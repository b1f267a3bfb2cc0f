"""Starts that failed: which ends count as one, and how many there were in a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from fal_server.core.runners import Desired, Runner

# How the reason of a runner begins that was ended because its start took too long.
TOO_SLOW = "not ready within startup_timeout"
# A runner that ends by itself so soon after it became ready, and never served, counts as a failed start.
EARLY_END = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Starts of one revision that failed in a row: how many, when the last one did, which runner it was, and why."""

    count: int = 0
    at: datetime | None = None
    runner_id: str = ""
    reason: str = ""


NO_FAILURES = Failures()


def was_too_slow(runner: Runner) -> bool:
    """Whether a runner's start took longer than it may."""
    return runner.ready_at is None and runner.reason.startswith(TOO_SLOW)


def failed_to_start(runner: Runner) -> bool:
    """Whether a runner that was to serve ended by itself before it was ready, or very soon after, without a request."""
    if runner.desired is not Desired.SERVE or runner.ended_at is None or runner.first_byte_at is not None:
        return False
    return runner.ready_at is None or runner.ended_at - runner.ready_at < EARLY_END


def failures_of(runners: Iterable[Runner], must_prove: Callable[[Runner], bool]) -> dict[tuple[str, str], Failures]:
    """The failed starts in a row, by app and revision, as the runners' rows tell them: for after a restart.

    Args:
        runners: those that live, and those that ended of late; in any order.
        must_prove: whether a living runner's being ready is no success yet, since it has a health check to pass.
    """
    outcomes: list[tuple[datetime, Runner]] = []
    for runner in runners:
        if runner.failed_starts:
            # One that never became well was condemned at that moment; its end came later.
            failed_at = runner.ended_at if runner.desired is Desired.SERVE else runner.unrouted_at
            outcomes.append((failed_at or runner.created_at, runner))
        elif runner.ready_at is not None and (runner.ended or not must_prove(runner)):
            outcomes.append((runner.ready_at, runner))
    found: dict[tuple[str, str], Failures] = {}
    for moment, runner in sorted(outcomes, key=lambda outcome: outcome[0]):
        key = (runner.app_name, runner.revision_id)
        found.pop(key, None)
        if runner.failed_starts:
            found[key] = Failures(
                count=runner.failed_starts, at=moment, runner_id=runner.runner_id, reason=runner.reason
            )
    return found
