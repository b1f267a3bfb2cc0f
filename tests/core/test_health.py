"""The times of health checks, and which failures count."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fal_server.core.health import NEW, Vitals, due_at, failed, passed, started
from fal_server.core.revisions import HealthCheck
from tests.fakes.domain import START, at

USUAL = HealthCheck(path="/health")
ON_DEMAND = HealthCheck(path="/health", call_regularly=False)
WELL = Vitals(proven=True, checked_at=at(100))


@pytest.mark.parametrize(
    ("check", "vitals", "due"),
    [
        (USUAL, NEW, 0),
        (ON_DEMAND, NEW, 0),
        (USUAL, Vitals(checked_at=at(100)), 102),
        (ON_DEMAND, Vitals(checked_at=at(100)), 102),
        (USUAL, WELL, 115),
        (ON_DEMAND, WELL, None),
        (ON_DEMAND, Vitals(proven=True, checked_at=at(100), asked=True), 100),
    ],
)
def test_when_a_check_is_due(check: HealthCheck, vitals: Vitals, due: float | None) -> None:
    assert due_at(check, vitals, START, busy=False) == (None if due is None else at(due))
    assert due_at(check, vitals, START, busy=True) is None
    also_busy = HealthCheck(path="/", call_regularly=check.call_regularly, allow_on_busy=True)
    assert due_at(also_busy, vitals, START, busy=True) == (None if due is None else at(due))


def test_a_check_that_begins_answers_what_was_asked() -> None:
    assert started(Vitals(asked=True), at(5)) == Vitals(checked_at=at(5))
    assert passed(Vitals(failures=2)) == Vitals(proven=True)


def test_in_the_start_period_which_lasts_at_least_for_the_startup_timeout_failures_do_not_count() -> None:
    for check, startup_timeout in ((USUAL, 600), (HealthCheck(path="/", start_period_seconds=600), 10)):
        vitals, unhealthy = failed(check, WELL, started_at=START, startup_timeout=startup_timeout, now=at(599))
        assert (vitals.failures, unhealthy) == (0, False)
        vitals, unhealthy = failed(check, WELL, started_at=START, startup_timeout=startup_timeout, now=at(600))
        assert (vitals.failures, unhealthy) == (1, False)


def test_so_many_failures_in_a_row_are_unhealthy() -> None:
    vitals = WELL
    verdicts = []
    for number in range(3):
        now = at(600) + timedelta(seconds=15 * number)
        vitals, unhealthy = failed(USUAL, vitals, started_at=START, startup_timeout=600, now=now)
        verdicts.append(unhealthy)
    assert verdicts == [False, False, True]
    vitals, unhealthy = failed(USUAL, passed(vitals), started_at=START, startup_timeout=600, now=at(1000))
    assert (vitals.failures, unhealthy) == (1, False)


def test_on_demand_one_failure_is_enough_but_not_before_the_first_pass() -> None:
    assert failed(ON_DEMAND, WELL, started_at=START, startup_timeout=600, now=at(1))[1]
    assert not failed(ON_DEMAND, NEW, started_at=START, startup_timeout=600, now=at(1))[1]
