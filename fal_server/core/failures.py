"""Starts that failed: which ends count as one, and what is remembered of those in a row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from fal_server.core.runners import Desired, Runner

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


def failed_to_start(runner: Runner) -> bool:
    """Whether a runner that was to serve ended by itself before it was ready, or very soon after."""
    if runner.desired is not Desired.SERVE or runner.ended_at is None:
        return False
    return runner.ready_at is None or runner.ended_at - runner.ready_at < EARLY_END
