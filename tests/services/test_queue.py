"""The queue's use cases on a real store. Its runners give the test's answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fal_server.core.faults import (
    FailedPrecondition,
    InvalidArgument,
    NodeTrouble,
    NotFound,
)
from fal_server.core.identity import LOCAL
from fal_server.core.queue import MOST_ATTEMPTS, Answer, Condition, Failure, Priority, State
from fal_server.core.routing import Outcome
from fal_server.core.runners import Desired, RunnerState
from fal_server.ports.queue import AnswerTooLarge, RequestFilter
from fal_server.services.attempts import RETRIES
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.engine import Start
from tests.fakes.queueing import BROKEN, Queueing, queueing

TIMED_OUT = Failure(condition=Condition.TIMEOUT, error_type="request_timeout", detail="too long")


async def answer_of(q: Queueing, request_id: str) -> Answer:
    _, answer = await q.queue.result(app_id("a"), request_id)
    assert answer is not None
    return answer


async def test_a_request_is_sent_to_a_runner_and_its_answer_stored(q):
    q.client.usual = Answer(status=201, headers=(("content-type", "text/plain"),), body=b"\x00\xffdone")
    request_id = await q.submit(path="/x?y=1", method="PUT", headers=(("x-mine", "1"),), body=b"\xfe in")
    done = await q.completed(request_id)
    assert (done.status, done.attempt, done.error, done.dead) == (201, 1, None, False)
    assert await answer_of(q, request_id) == q.client.usual
    sent, content = q.client.sent[0]
    assert (sent.path, sent.method, content.headers, content.body) == ("/x?y=1", "PUT", (("x-mine", "1"),), b"\xfe in")
    assert done.started_at is not None
    assert done.runner_id == sent.runner_id


async def test_an_app_must_exist_and_have_a_port(q):
    with pytest.raises(NotFound, match="app 'none' not found"):
        await q.submit("none")
    await q.platform.deploy("function", exposed_port=None)
    with pytest.raises(NotFound, match="without a port"):
        await q.submit("function")
    with pytest.raises(InvalidArgument, match="fal_webhook"):
        await q.submit(webhook_url="file:///etc/passwd")


async def test_a_request_is_found_only_through_its_app(q):
    await q.platform.deploy("b")
    request_id = await q.submit()
    for ask in (q.queue.status, q.queue.result, q.queue.cancel, q.queue.redrive):
        with pytest.raises(NotFound, match=r"request .* not found"):
            await ask(app_id("b"), request_id)
    await q.completed(request_id)
    with pytest.raises(NotFound, match=r"request .* not found"):
        await q.queue.status(app_id("b"), request_id)


async def test_no_more_at_once_than_the_app_can_take_and_all_are_counted(q):
    q.client.held.clear()
    made = [await q.submit() for _ in range(5)]
    await q.until(lambda: q.client.under_way == 1)
    load = q.platform.dispatcher.load(q.platform.app())
    assert (load.in_flight, load.queued) == (1, 4)
    assert [(await q.queue.status(app_id("a"), one)).position for one in made] == [0, 0, 1, 2, 3]
    assert q.queue.size(app_id("a")) == {"public": 4}
    q.client.held.set()
    for one in made:
        await q.completed(one)
    assert q.client.most_at_once == 1
    assert [request.request_id for request, _ in q.client.sent] == made


async def test_low_priority_waits_for_normal_and_callers_take_turns(q):
    q.client.held.clear()
    first = await q.submit()
    await q.until(lambda: q.client.under_way == 1)
    low = await q.submit(priority=Priority.LOW)
    a1, a2 = await q.submit(caller="a"), await q.submit(caller="a")
    b1 = await q.submit(caller="b")
    assert q.queue.size(app_id("a")) == {"public": 1, "a": 2, "b": 1}
    q.client.held.set()
    for one in (first, low, a1, a2, b1):
        await q.completed(one)
    assert [request.request_id for request, _ in q.client.sent] == [first, a1, b1, a2, low]


@pytest.mark.parametrize(
    ("failed", "condemned"),
    [(BROKEN, True), (TIMED_OUT, True), (Answer(status=503), True), (Answer(status=504), False)],
)
async def test_what_is_retried(q, failed, condemned):
    q.client.answers = [failed]
    request_id = await q.submit()
    await q.until(lambda: len(q.client.sent) == 1)
    await q.until(lambda: len(q.backlog.apps) == 1)
    waiting = await q.get(request_id)
    assert (waiting.state, waiting.attempt) == (State.IN_QUEUE, 1)
    first = q.client.sent[0][0].runner_id
    if condemned:
        await q.until(lambda: first in q.platform.engine.killed)
    q.pass_time(1)
    done = await q.completed(request_id)
    assert (done.status, done.attempt, done.error) == (200, 2, None)
    assert (q.client.sent[1][0].runner_id != first) == condemned


async def test_an_answer_of_500_is_passed_on(q):
    q.client.answers = [Answer(status=500, body=b'{"detail": "x"}')]
    done = await q.completed(await q.submit())
    assert (done.status, done.attempt, done.dead, done.error_type) == (500, 1, False, "runner_server_error")
    assert (await answer_of(q, done.request_id)).body == b'{"detail": "x"}'


async def test_a_gateway_error_has_the_runner_probed(q):
    q.client.answers, q.client.alive = [Answer(status=502)], False
    done = await q.completed(await q.submit())
    assert (done.status, done.attempt, q.client.probes) == (502, 1, 1)
    await q.until(lambda: done.runner_id in q.platform.engine.killed)


async def test_requests_of_a_missing_app(q):
    done = await q.completed(await q.submit())
    with pytest.raises(NotFound, match="app 'none' not found"):
        await q.queue.find(LOCAL, RequestFilter(app_name="none"))
    assert await q.queue.find(LOCAL, RequestFilter(app_name="a", dead=True)) == []
    await q.platform.apps.delete(SCOPE, "a", "")
    assert [one.request_id for one in await q.queue.find(LOCAL, RequestFilter(app_name="a"))] == [done.request_id]


def test_pauses_between_attempts_double_up_to_a_minute():
    assert [RETRIES.pause(n) for n in (1, 2, 3, 7, 8, 100)] == [0.5, 1.0, 2.0, 32.0, 60.0, 60.0]


async def test_after_ten_attempts_a_request_is_given_up_and_can_be_queued_again(q):
    q.client.usual = BROKEN
    request_id = await q.submit()
    for attempt in range(1, MOST_ATTEMPTS + 1):
        await q.until(lambda made=attempt: len(q.client.sent) == made)
        await q.until(lambda: q.backlog.apps or q.backlog.get(request_id) is None)
        q.pass_time(61)
    done = await q.completed(request_id)
    assert (done.attempt, done.dead, done.status, done.error_type) == (10, True, 503, "runner_disconnected")
    assert b"runner_disconnected" in (await answer_of(q, request_id)).body
    assert [one.request_id for one in await q.queue.find(LOCAL, RequestFilter(app_name="a", dead=True))] == [request_id]

    q.client.usual = Answer(status=200, body=b"1")
    await q.queue.redrive(app_id("a"), request_id)
    with pytest.raises(FailedPrecondition, match="not completed"):
        await q.queue.redrive(app_id("a"), request_id)
    again = await q.completed(request_id)
    assert (again.attempt, again.dead, again.status, again.error) == (1, False, 200, None)
    with pytest.raises(FailedPrecondition, match="was not given up"):
        await q.queue.redrive(app_id("a"), request_id)


async def test_a_request_that_ends_three_runners_in_a_row_is_given_up_and_can_be_queued_again(q):
    q.client.answers = [BROKEN] * 2
    q.platform.engine.crash = "worker exited with code 3"
    request_id = await q.submit()
    for attempt in (1, 2):
        await q.until(lambda made=attempt: len(q.client.sent) == made and q.backlog.apps)
        waiting = await q.get(request_id)
        assert (waiting.ended_runners, waiting.dead) == (attempt, False)
        assert waiting.error.startswith("the runner ended with exit code 3 while it worked on this request")
        q.client.answers = [BROKEN]
        q.pass_time(61)
    done = await q.completed(request_id)
    assert (done.attempt, done.dead, done.status, done.error_type) == (3, True, 503, "runner_disconnected")
    assert done.error.endswith("; given up, because it has ended 3 runners in a row")
    assert b"given up" in (await answer_of(q, request_id)).body
    await q.queue.redrive(app_id("a"), request_id)
    again = await q.completed(request_id)
    assert (again.attempt, again.status, again.ended_runners) == (1, 200, 0)


async def test_the_app_s_budget_and_the_caller_s_no_retry_are_kept(q):
    await q.platform.deploy("b", retry_config='{"connection_error": {"retries": 0}}')
    q.client.usual = BROKEN
    done = await q.completed(await q.submit("b"), "b")
    assert (done.attempt, done.dead) == (1, True)
    done = await q.completed(await q.submit(no_retry=True))
    assert (done.attempt, done.dead) == (1, True)


async def test_a_waiting_request_says_why(q):
    q.platform.engine.start_as, q.platform.engine.why = Start.ENDS, "worker exited with code 1: OSError: no weights"
    request_id = await q.submit()
    await q.until(lambda: q.platform.fleet.failures(app_id("a"), q.platform.app().revision_id).count)
    delay = (await q.queue.status(app_id("a"), request_id)).delay
    [failed] = [spec.runner_id for spec in q.platform.engine.launched]
    assert delay.reason == (
        "the last start failed: worker exited with code 1: OSError: no weights; "
        f"`fal runners logs {failed}` shows what it wrote"
    )


async def test_a_request_that_waits_for_a_long_setup_says_so(q):
    q.platform.engine.start_as = Start.WAITS
    request_id = await q.submit()
    await q.until(lambda: [runner for runner in q.platform.fleet.runners if runner.state is RunnerState.SETUP])
    assert (await q.queue.status(app_id("a"), request_id)).delay is None
    q.pass_time(12)
    [started] = [spec.runner_id for spec in q.platform.engine.launched]
    delay = (await q.queue.status(app_id("a"), request_id)).delay
    assert delay.reason == f"runner {started} is in its setup: `fal runners logs {started}` shows what it writes"


async def test_a_request_that_rests_says_which_attempt_failed(q):
    await q.platform.deploy("b", retry_config='{"connection_error": {"retries": 2}, "timeout": 0, "server_error": 0}')
    q.client.answers = [BROKEN]
    request_id = await q.submit("b")
    await q.until(lambda: q.client.sent and q.backlog.apps)
    delay = (await q.queue.status(app_id("b"), request_id)).delay
    assert delay.reason == "attempt 1 of 3 failed: it went away"
    assert (delay.next_try_at - q.clock.now()).total_seconds() == RETRIES.pause(1)


async def test_a_start_that_fails_is_no_retry(q):
    q.platform.engine.start_as = Start.ENDS
    request_id = await q.submit()
    await q.until(lambda: len(q.platform.engine.launched) >= 1 and q.backlog.apps)
    assert (await q.get(request_id)).state is State.IN_QUEUE
    q.platform.engine.start_as = Start.READY
    for _ in range(3):
        q.pass_time(31)
        await q.platform.settled()
    done = await q.completed(request_id)
    assert (done.status, done.attempt) == (200, 1)


async def test_a_waiting_request_is_cancelled(q):
    q.client.held.clear()
    first, second = await q.submit(), await q.submit()
    await q.until(lambda: q.client.under_way == 1)
    await q.queue.cancel(app_id("a"), second)
    ended = await q.completed(second)
    assert (ended.status, ended.error_type, ended.attempt) == (499, "client_cancelled", 0)
    with pytest.raises(FailedPrecondition, match="is completed"):
        await q.queue.cancel(app_id("a"), second)
    q.client.held.set()
    await q.completed(first)
    assert len(q.client.sent) == 1


async def test_an_app_is_told_of_a_cancellation_and_decides(q):
    def stop() -> None:
        q.client.usual = Answer(status=499, body=b'{"detail": "stopped"}')
        q.client.held.set()

    q.client.on_cancel = stop
    q.client.held.clear()
    request_id = await q.submit()
    await q.until(lambda: q.client.under_way == 1)
    asked = await q.queue.cancel(app_id("a"), request_id)
    assert asked.state is State.IN_PROGRESS
    ended = await q.completed(request_id)
    assert (ended.status, ended.error_type, ended.attempt) == (499, "client_cancelled", 1)
    assert (await q.queue.result(app_id("a"), request_id))[1].body == b'{"detail": "stopped"}'
    assert (q.client.told, q.client.cut_off) == ([(request_id, "/")], [])
    assert q.platform.the_runner().desired is Desired.SERVE


async def test_an_app_that_ignores_a_cancellation_finishes_and_its_answer_is_kept(q):
    q.client.held.clear()
    request_id = await q.submit()
    await q.until(lambda: q.client.under_way == 1)
    await q.queue.cancel(app_id("a"), request_id)
    await q.until(lambda: q.client.told)
    q.client.held.set()
    ended = await q.completed(request_id)
    assert (ended.status, ended.error_type) == (200, None)


async def test_a_cancelled_request_is_not_tried_again(q):
    q.client.held.clear()
    q.client.answers = [BROKEN]
    request_id = await q.submit()
    await q.until(lambda: q.client.under_way == 1)
    await q.queue.cancel(app_id("a"), request_id)
    q.client.held.set()
    ended = await q.completed(request_id)
    assert (ended.status, ended.error_type, len(q.client.sent)) == (499, "client_cancelled", 1)


async def test_a_request_that_waits_for_its_first_runner_is_cancelled(q):
    q.platform.engine.start_as = Start.WAITS
    request_id = await q.submit()
    await q.until(lambda: q.platform.engine.launched)
    await q.queue.cancel(app_id("a"), request_id)
    assert (await q.completed(request_id)).error_type == "client_cancelled"
    assert q.platform.dispatcher.load(q.platform.app()).queued == 0


async def test_a_flush_cancels_waiting_requests(q):
    q.client.held.clear()
    first = await q.submit(caller="a")
    await q.until(lambda: q.client.under_way == 1)
    mine, other = await q.submit(caller="a"), await q.submit(caller="b")
    assert await q.queue.flush(app_id("a"), "b") == 1
    assert (await q.get(other)).error_type == "client_cancelled"
    assert await q.queue.flush(app_id("a")) == 1
    assert (await q.get(mine)).error_type == "client_cancelled"
    assert await q.queue.flush(app_id("a")) == 0
    await q.submit()
    assert await q.queue.flush(app_id("a"), "b") == 0
    assert await q.queue.flush(app_id("a"), "public") == 1
    q.client.held.set()
    assert (await q.completed(first)).status == 200
    with pytest.raises(NotFound):
        await q.queue.flush(app_id("none"))
    with pytest.raises(NotFound):
        q.queue.size(app_id("none"))


async def test_a_long_queue_is_flushed_in_groups(q):
    q.client.held.clear()
    first = await q.submit()
    await q.until(lambda: q.client.under_way == 1)
    hooked = await q.submit(webhook_url="http://127.0.0.1:9/hook")
    waiting = [hooked, *[await q.submit(path=f"/{n}") for n in range(250)]]
    assert await q.queue.flush(app_id("a"), limit=120) == 120
    assert q.queue.size(app_id("a")) == {"public": 131}
    assert (await q.get(waiting[119])).error_type == "client_cancelled"
    assert (await q.get(waiting[120])).state is State.IN_QUEUE, "the oldest come first"
    q.store.failures["complete_all"] = 1
    assert await q.queue.flush(app_id("a")) == 131
    assert await q.queue.flush(app_id("a")) == 0, "it may be repeated"
    for request_id in waiting:
        assert (await q.completed(request_id)).status == 499
    assert (await answer_of(q, waiting[-1])).status == 499
    await q.until(lambda: len(q.receivers.calls) == 1)
    q.client.held.set()
    assert (await q.completed(first)).status == 200


async def test_a_flush_cancels_what_waits_for_a_first_runner(q):
    q.platform.engine.start_as = Start.WAITS
    made = [await q.submit() for _ in range(5)]
    await q.until(lambda: q.platform.engine.launched)
    assert await q.queue.flush(app_id("a")) == 5
    assert {(await q.completed(one)).error_type for one in made} == {"client_cancelled"}


async def test_many_that_were_given_up_are_put_in_line_again(q):
    q.client.usual = Answer(status=503)
    dead = [await q.submit(no_retry=True) for _ in range(130)]
    for one in dead:
        assert (await q.completed(one)).dead
    q.client.usual, q.client.sent = Answer(status=200), []
    fine = await q.submit()
    await q.completed(fine)
    assert set(await q.queue.redrive_all(app_id("a"), [*dead, fine, "unknown"])) == set(dead)
    for one in dead:
        assert (await q.completed(one)).status == 200
    assert await q.queue.redrive_all(app_id("a"), dead) == [], "it may be repeated"
    with pytest.raises(NotFound):
        await q.queue.redrive_all(app_id("none"), dead)


async def test_a_start_deadline_passes_in_line_and_at_the_dispatcher(q):
    q.client.held.clear()
    first = await q.submit(start_seconds=10)
    await q.until(lambda: q.client.under_way == 1)
    second = await q.submit(start_seconds=10)
    q.pass_time(11)
    late = await q.completed(second)
    assert (late.status, late.error_type, late.attempt, late.dead) == (504, "request_timeout", 0, False)
    assert (await answer_of(q, second)).header("x-fal-request-timeout-type") == "user"
    q.client.held.set()
    assert (await q.completed(first)).status == 200


async def test_the_apps_start_timeout_is_the_default(q):
    await q.platform.deploy("b", scaling={"request_start_timeout": 7})
    made = (await q.hand_in("b")).request
    assert (made.start_deadline - made.created_at).total_seconds() == 7
    made = (await q.hand_in("b", start_seconds=3.5)).request
    assert (made.start_deadline - made.created_at).total_seconds() == 3.5


async def test_an_idempotency_key_identifies_one_request(q):
    first = await q.submit(body=b"1", caller="k", idempotency_key="once")
    await q.completed(first)
    assert await q.submit(body=b"1", caller="k", idempotency_key="once") == first
    with pytest.raises(InvalidArgument, match="used for another request"):
        await q.submit(body=b"2", caller="k", idempotency_key="once")
    assert await q.submit(body=b"2", caller="other", idempotency_key="once") != first
    with pytest.raises(InvalidArgument, match="characters"):
        await q.submit(idempotency_key="x" * 256)


async def test_requests_of_a_deleted_app_are_given_up(q):
    q.client.held.clear()
    first = await q.submit()
    await q.until(lambda: q.client.under_way == 1)
    second = await q.submit()
    await q.platform.apps.delete(SCOPE, "a", "")
    q.client.held.set()
    await q.completed(first)
    done = await q.completed(second)
    assert (done.status, done.dead) == (404, True)


async def test_an_answer_that_is_too_large_is_an_error(q):
    q.client.answers = [AnswerTooLarge("larger than kept")]
    done = await q.completed(await q.submit())
    assert (done.status, done.error, done.dead) == (502, "larger than kept", False)


async def test_a_shortage_of_the_machine_uses_up_no_attempt_and_loses_nothing(q):
    q.client.answers = [NodeTrouble("no port is free"), NodeTrouble("no port is free")]
    request_id = await q.submit()
    await q.until(lambda: len(q.client.sent) == 3 or q.pass_time(3))
    done = await q.completed(request_id)
    assert (done.status, done.attempt) == (200, 1)


async def test_a_cancellation_during_a_shortage_is_not_lost(q):
    q.client.answers = [NodeTrouble("no port is free")]
    request_id = await q.submit()
    await q.until(lambda: len(q.client.sent) == 1 and q.backlog.get(request_id).attempt is None)
    await q.queue.cancel(app_id("a"), request_id)
    ended = await q.completed(request_id)
    assert (ended.error_type, len(q.client.sent)) == ("client_cancelled", 1)


async def test_an_unexpected_error_completes_the_request(q):
    q.client.answers = [RuntimeError("a mistake")]
    done = await q.completed(await q.submit())
    assert (done.status, done.error_type, done.dead) == (500, "internal_error", True)


@pytest.mark.parametrize("method", ["begin", "complete", "put_back"])
async def test_a_full_disk_delays_and_loses_nothing(q, method):
    q.client.answers = [BROKEN]
    q.store.failures = {method: 1}
    request_id = await q.submit()
    await q.until(lambda: q.store.failures[method] == 0 or q.pass_time(3))
    await q.until(lambda: q.backlog.get(request_id) is None or q.pass_time(3))
    done = await q.completed(request_id)
    assert (done.status, done.attempt, len(q.client.sent)) == (200, 2, 2)


async def test_logs_of_a_runner_with_one_request_at_a_time_are_the_requests(q):
    request_id = await q.submit()
    done = await q.completed(request_id)
    assert done.alone
    assert await q.queue.lines(done) == []


async def test_a_cancellation_while_an_attempt_is_put_back_is_not_lost(q):
    q.client.answers = [BROKEN]
    q.store.failures = {"put_back": 1}
    request_id = await q.submit()
    await q.until(lambda: q.store.failures["put_back"] == 0)
    await q.queue.cancel(app_id("a"), request_id)
    ended = await q.completed(request_id)
    assert (ended.state, ended.error_type, len(q.client.sent)) == (State.COMPLETED, "client_cancelled", 1)


async def test_a_restart_starts_everything_again_in_order(q):
    q.client.held.clear()
    made = []
    for _ in range(3):
        made.append(await q.submit(caller="k"))
        q.clock.advance(1)
    await q.until(lambda: q.client.under_way == 1)
    await q.worker.close()  # unwritten results are lost, as at the end of the process
    assert (await q.platform.store.queue.get(LOCAL, made[0])).state is State.IN_PROGRESS
    async with queueing(q.platform) as after:
        for request_id in made:
            assert (await after.completed(request_id)).status == 200
        assert [request.request_id for request, _ in after.client.sent] == made
        assert [request.attempt for request, _ in after.client.sent] == [2, 1, 1]


async def test_an_orderly_stop_starts_nothing_more(q):
    q.client.held.clear()
    first = await q.submit()
    await q.until(lambda: q.client.under_way == 1)
    await q.platform.deploy("b", scaling={"max_concurrency": 1})
    place = await q.platform.get("b")
    second = await q.submit("b")
    await q.until(lambda: q.platform.dispatcher.load(q.platform.app("b")).queued == 1 and not q.backlog.apps)
    q.worker.stop_taking()
    q.client.held.set()
    assert (await q.completed(first)).status == 200
    q.platform.dispatcher.release(place, Outcome.DONE)
    await q.platform.settled()
    assert [request.request_id for request, _ in q.client.sent] == [first]
    assert (await q.platform.store.queue.get(LOCAL, second)).state is State.IN_QUEUE


async def test_a_request_that_ends_every_controller_is_given_up(q):
    q.client.held.clear()
    request_id = await q.submit()
    await q.until(lambda: q.client.under_way == 1)
    await q.worker.close()
    stored = await q.platform.store.queue.get(LOCAL, request_id)
    tenth = replace(stored, attempt=MOST_ATTEMPTS - 1, state=State.IN_QUEUE)
    assert await q.platform.store.queue.put_back(replace(tenth, attempt=1), 1)
    for attempt in range(1, MOST_ATTEMPTS):
        await q.platform.store.queue.begin(replace(stored, attempt=attempt + 1))
        if attempt + 1 < MOST_ATTEMPTS:
            await q.platform.store.queue.put_back(replace(tenth, attempt=attempt + 1), attempt + 1)
    async with queueing(q.platform) as after:
        done = await after.completed(request_id)
    assert (done.attempt, done.dead, done.status, after.client.sent) == (MOST_ATTEMPTS, True, 503, [])


async def test_old_results_are_deleted_and_dead_requests_later(q):
    good = await q.submit()
    q.client.answers = [Answer(status=200), BROKEN]
    await q.completed(good)
    dead = await q.submit(no_retry=True)
    await q.completed(dead)
    q.clock.advance(24 * 3600 + 1)
    assert await q.worker.sweep() == 1
    with pytest.raises(NotFound):
        await q.queue.status(app_id("a"), good)
    assert (await q.get(dead)).dead
    q.clock.advance(7 * 24 * 3600)
    assert await q.worker.sweep() == 1


async def test_a_paused_app_is_tried_again_and_loses_nothing(q):
    await q.platform.apps.update(SCOPE, "a", "", {"max_concurrency": 0})
    made = [await q.submit() for _ in range(20)]
    await q.until(lambda: q.backlog.next_change_at() is not None)
    assert len(q.queue.size(app_id("a"))) == 1
    assert sum(q.queue.size(app_id("a")).values()) == 20
    await q.platform.apps.update(SCOPE, "a", "", {"max_concurrency": 2})
    q.pass_time(3)
    for request_id in made:
        assert (await q.completed(request_id)).status == 200
    assert q.client.most_at_once <= 2


async def test_an_end_that_cannot_be_stored_for_an_unforeseen_reason_is_an_error(q):
    q.store.broken["complete"] = 1
    request_id = await q.submit()
    done = await q.completed(request_id)
    assert (done.status, done.error_type, done.dead) == (500, "internal_error", True)
    assert (await answer_of(q, request_id)).status == 500
    await q.queue.redrive(app_id("a"), request_id)
    assert (await q.completed(request_id)).status == 200


async def test_a_return_that_cannot_be_stored_for_an_unforeseen_reason_is_tried_again(q):
    q.store.broken["put_back"] = 1
    q.client.answers = [BROKEN]
    request_id = await q.submit()
    await q.until(lambda: q.backlog.position(q.backlog.get(request_id)) == 0 and q.backlog.busy)
    q.pass_time(RETRIES.pause(1))
    assert (await q.completed(request_id)).status == 200


async def test_requests_that_cannot_be_cancelled_together_are_cancelled_each(q):
    q.client.held.clear()
    first = await q.submit()
    await q.until(lambda: q.client.under_way == 1)
    waiting = [await q.submit() for _ in range(2)]
    q.store.broken["complete_all"] = 1
    assert await q.queue.flush(app_id("a")) == 2
    assert [(await q.get(one)).state for one in waiting] == [State.COMPLETED] * 2
    q.client.held.set()
    assert (await q.completed(first)).status == 200
