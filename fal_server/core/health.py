"""Decides when ready runners are checked, and how a failed check counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fal_server.core.revisions import HealthCheck

PERIOD_SECONDS = 15
# The interval for a runner that has not passed a check yet, because a deploy may be waiting for it.
UNPROVEN_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """The state of a runner's health checks.

    Attributes:
        proven: whether it has ever passed a check.
        failures: the number of consecutive failures that counted.
        checked_at: when the last check started.
        asked: whether a response of the app asked for a check that has not started yet.
    """

    proven: bool = False
    failures: int = 0
    checked_at: datetime | None = None
    asked: bool = False


NEW = Vitals()


def due_at(check: HealthCheck, vitals: Vitals, ready_at: datetime, *, busy: bool) -> datetime | None:
    """Return when a runner's next check is due; None if none is.

    The first check is due at once, because no traffic moves to a runner that has not passed one.

    Args:
        busy: whether it has requests in flight, during which it is only checked if `allow_on_busy` is set.
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


def started(vitals: Vitals, now: datetime) -> Vitals:
    """Return the state after a check has started."""
    return replace(vitals, checked_at=now, asked=False)


def passed(vitals: Vitals) -> Vitals:
    """Return the state after a check got a 2xx response in time."""
    return replace(vitals, proven=True, failures=0)


def failed(
    check: HealthCheck, vitals: Vitals, *, started_at: datetime, startup_timeout: int, now: datetime
) -> tuple[Vitals, bool]:
    """Return the state after a failed check. Also return whether the runner counts as unhealthy.

    In the start period (at least `startup_timeout`, from the runner's start) a failure does not count. If checks are
    only made on an app's request, the app itself has raised the alarm, and one failure is enough.
    """
    if vitals.proven and not check.call_regularly:
        return replace(vitals, failures=vitals.failures + 1), True
    if now < started_at + timedelta(seconds=max(check.start_period_seconds, startup_timeout)):
        return vitals, False
    counted = replace(vitals, failures=vitals.failures + 1)
    return counted, counted.failures >= check.failure_threshold
