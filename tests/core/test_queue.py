"""The decision after an attempt at a queued request: outcomes and limits. The outcomes have a table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.identity import LOCAL
from fal_server.core.queue import (
    MOST_ATTEMPTS,
    Answer,
    Condition,
    Failure,
    Policy,
    QueuedRequest,
    decide_retry,
    policy_of,
    switch,
)
from fal_server.core.routing import Outcome
from tests.fakes.domain import START


def request(**changes) -> QueuedRequest:
    given_ = {"request_id": "q", "app_name": "a", "path": "/", "created_at": START, "attempt": 1}
    return QueuedRequest(account=LOCAL, **(given_ | changes))


def answer(status: int, **headers: str) -> Answer:
    return Answer(status=status, headers=tuple((k.replace("_", "-"), v) for k, v in headers.items()))


def failure(condition: Condition) -> Failure:
    return Failure(condition=condition, error_type="runner_disconnected", detail="it went away")


NEVER, SERVER, TIME, LINK = None, Condition.SERVER_ERROR, Condition.TIMEOUT, Condition.CONNECTION_ERROR


@pytest.mark.parametrize(
    ("seen", "retry", "outcome", "probe"),
    [
        (answer(200), NEVER, Outcome.DONE, False),
        (answer(302), NEVER, Outcome.DONE, False),
        (answer(404), NEVER, Outcome.DONE, False),
        (answer(422), NEVER, Outcome.DONE, False),
        (answer(429), NEVER, Outcome.DONE, False),
        (answer(429, x_fal_needs_retry="1"), SERVER, Outcome.DONE, False),
        (answer(422, x_fal_needs_retry="1"), NEVER, Outcome.DONE, False),
        (answer(500), NEVER, Outcome.DONE, False),
        (answer(500, x_fal_needs_retry="1"), SERVER, Outcome.DONE, False),
        (answer(500, x_fal_needs_retry="true"), SERVER, Outcome.DONE, False),
        (answer(501), NEVER, Outcome.DONE, False),
        (answer(502), NEVER, Outcome.DONE, True),
        (answer(502, x_fal_needs_retry="1"), SERVER, Outcome.DONE, True),
        (answer(503), SERVER, Outcome.UNAVAILABLE, False),
        (answer(503, x_fal_needs_retry="0"), NEVER, Outcome.UNAVAILABLE, False),
        (answer(504), TIME, Outcome.DONE, True),
        (answer(504, x_fal_needs_retry="0"), NEVER, Outcome.DONE, True),
        (answer(200, x_fal_stop_runner="1"), NEVER, Outcome.STOP_RUNNER, False),
        (answer(503, x_fal_stop_runner="1"), SERVER, Outcome.UNAVAILABLE, False),
        (failure(Condition.TIMEOUT), TIME, Outcome.TIMED_OUT, False),
        (failure(Condition.CONNECTION_ERROR), LINK, Outcome.RUNNER_FAILED, False),
    ],
)
def test_what_follows(seen, retry, outcome, probe):
    decision = decide_retry(request(), seen, Policy())
    assert (decision.retry, decision.outcome, decision.probe) == (retry, outcome, probe)
    assert not decision.dead
    assert (decision.error is None) == (isinstance(seen, Answer) and seen.status < 400)


def test_only_ends_of_runners_in_a_row_count_against_a_request():
    ended = replace(failure(Condition.CONNECTION_ERROR), ended_runner=True)
    assert decide_retry(request(ended_runners=1), ended, Policy()).ended_runners == 2
    for other in (failure(Condition.CONNECTION_ERROR), failure(Condition.TIMEOUT), answer(503)):
        after = decide_retry(request(ended_runners=2), other, Policy())
        assert (after.ended_runners, after.dead) == (0, False)
    assert decide_retry(request(ended_runners=2), ended, Policy()).dead


def test_the_callers_word_goes_before_the_apps_and_the_apps_before_the_platforms():
    generous = Policy(budgets={Condition.SERVER_ERROR: 5})
    assert decide_retry(request(), answer(503), generous).retry is Condition.SERVER_ERROR
    refused = decide_retry(request(no_retry=True), answer(503), generous)
    assert (refused.retry, refused.dead) == (None, True)
    assert decide_retry(request(), answer(503), Policy(budgets={Condition.SERVER_ERROR: 0})).retry is None
    assert decide_retry(request(), answer(503), Policy(skipped=frozenset({Condition.SERVER_ERROR}))).retry is None
    assert (
        decide_retry(request(), answer(504), Policy(skipped=frozenset({Condition.SERVER_ERROR}))).retry
        is Condition.TIMEOUT
    )


def test_a_budget_counts_its_own_condition():
    policy = Policy(budgets={Condition.SERVER_ERROR: 1})
    assert decide_retry(request(attempt=2, retries={"timeout": 1}), answer(503), policy).retry is Condition.SERVER_ERROR
    spent = decide_retry(request(attempt=3, retries={"timeout": 1, "server_error": 1}), answer(503), policy)
    assert (spent.retry, spent.dead) == (None, True)


@given(
    attempt=st.integers(1, 40),
    used=st.dictionaries(st.sampled_from([c.value for c in Condition]), st.integers(0, 40)),
    budgets=st.dictionaries(st.sampled_from(list(Condition)), st.integers(0, 1000)),
    condition=st.sampled_from(list(Condition)),
)
def test_never_more_than_ten_attempts(attempt, used, budgets, condition):
    decision = decide_retry(request(attempt=attempt, retries=used), failure(condition), Policy(budgets=budgets))
    if attempt >= MOST_ATTEMPTS or used.get(condition.value, 0) >= MOST_ATTEMPTS - 1:
        assert decision.retry is None
    assert (decision.retry is None) == decision.dead


def test_an_app_of_ten_failures_is_given_up_after_the_tenth():
    made, seen = request(attempt=0), 0
    while True:
        seen += 1
        made = request(attempt=seen, retries=made.retries)
        decision = decide_retry(made, failure(Condition.CONNECTION_ERROR), Policy())
        if decision.retry is None:
            break
        made = request(attempt=seen, retries={"connection_error": seen})
    assert seen == MOST_ATTEMPTS


@pytest.mark.parametrize(
    ("text", "budgets"),
    [
        (None, {}),
        ("", {}),
        ("no JSON", {}),
        ("[]", {}),
        ('{"timeout": {"retries": 2}, "connection_error": {"retries": 0}}', {TIME: 2, LINK: 0}),
        ('{"server_error": 3}', {SERVER: 3}),
        ('{"server_error": {"retries": true}, "timeout": {"retries": -1}, "else": {"retries": 1}}', {TIME: 0}),
    ],
)
def test_policies_are_read_from_revisions(text, budgets):
    assert policy_of(text, ("timeout", "unknown")) == Policy(budgets=budgets, skipped=frozenset({TIME}))


def test_switches():
    assert [switch(w) for w in ("1", " True ", "0", "false", "", None, "maybe")] == [
        True, True, False, False, None, None, None,
    ]  # fmt: skip


def test_an_error_names_the_apps_own_type_first():
    assert decide_retry(request(), answer(400, x_fal_error_type="mine"), Policy()).error_type == "mine"
    assert decide_retry(request(), answer(400), Policy()).error_type == "bad_request"
    assert decide_retry(request(), answer(500), Policy()).error_type == "runner_server_error"
    assert decide_retry(request(), failure(Condition.CONNECTION_ERROR), Policy()).error_type == "runner_disconnected"
