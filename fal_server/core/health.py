"""Whether a ready runner is well: when it is checked, and what a failed check means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fal_server.core.revisions import HealthCheck

PERIOD_SECONDS = 15
# A runner that has not passed a check yet is asked this often: a deploy may be waiting for it.
UNPROVEN_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What is known of a runner's health.

    Attributes:
        proven: it has passed a check.
        failures: checks that failed in a row and counted.
        checked_at: when the last one began.
        asked: an answer of its asked for a check that was not begun yet.
    """

    proven: bool = False
    failures: int = 0
    checked_at: datetime | None = None
    asked: bool = False


NEW = Vitals()


def due_at(check: HealthCheck, vitals: Vitals, ready_at: datetime, *, busy: bool) -> datetime | None:
    """When a runner's next check is due; None where it is not to be checked as things are.

    The first check is due at once, whatever its kind, because no traffic moves to a runner that has not passed one.

    Args:
        busy: it has requests in flight; then it is left alone unless the check allows that.
    """
    if busy and not check.allow_on_busy:
        return None
    if vitals.checked_at is None:
        return ready_at
    if vitals.asked:
        return vitals.checked_at
    if not vitals.proven:
        return vitals.checked_at + timedelta(seconds=UNPROVEN_SECONDS)
    return vitals.checked_at + timedelta(seconds=PERIOD_SECONDS) if check.call_regularly else None


def begun(vitals: Vitals, now: datetime) -> Vitals:
    """A check begins."""
    return replace(vitals, checked_at=now, asked=False)


def passed(vitals: Vitals) -> Vitals:
    """It was answered with 2xx in time."""
    return replace(vitals, proven=True, failures=0)


def failed(
    check: HealthCheck, vitals: Vitals, *, started_at: datetime, startup_timeout: int, now: datetime
) -> tuple[Vitals, bool]:
    """It was not.

    In the start period (at least `startup_timeout`, from the runner's start) a failure does not count. Where checks
    are made only when an answer asks for one, the app itself has raised the alarm: then one failure is enough.

    Returns:
        What is known now, and whether the runner counts as unhealthy.
    """
    if vitals.proven and not check.call_regularly:
        return replace(vitals, failures=vitals.failures + 1), True
    if now < started_at + timedelta(seconds=max(check.start_period_seconds, startup_timeout)):
        return vitals, False
    counted = replace(vitals, failures=vitals.failures + 1)
    return counted, counted.failures >= check.failure_threshold
