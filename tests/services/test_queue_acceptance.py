"""Requests for a free slot are stored with their start."""

from __future__ import annotations

import asyncio

import pytest

from fal_server.core.faults import Unavailable, UnusableIdempotencyKey
from fal_server.core.identity import LOCAL
from fal_server.core.queue import State
from fal_server.core.routing import Outcome
from fal_server.core.runners import RunnerState
from fal_server.loops import queue
from fal_server.services import attempts
from tests.fakes.domain import START, app_id, make_runner
from tests.fakes.platform import Platform
from tests.fakes.queueing import Queueing, queueing


async def test_a_request_for_a_free_slot_is_stored_as_started_once(q):
    await q.completed(await q.submit())
    q.store.broken = {"begin": 1}
    q.client.held.clear()
    handed_in = await q.hand_in()
    assert (handed_in.request.state, handed_in.position) == (State.IN_QUEUE, 0)
    request_id = handed_in.request.request_id
    stored = await q.platform.store.queue.get(LOCAL, request_id)
    assert (stored.state, stored.attempt, stored.runner_id) == (State.IN_PROGRESS, 1, q.platform.the_runner().runner_id)
    await q.until(lambda: q.client.under_way == 1)
    assert (await q.get(request_id)) == stored
    q.client.held.set()
    done = await q.completed(request_id)
    assert (done.status, done.attempt, q.store.broken) == (200, 1, {"begin": 1})


async def test_a_crash_between_acceptance_and_start_loses_nothing(q):
    await q.completed(await q.submit())
    q.client.held.clear()
    request_id = await q.submit()
    await q.worker.close()
    stored = await q.platform.store.queue.get(LOCAL, request_id)
    assert (stored.state, stored.attempt) == (State.IN_PROGRESS, 1)
    async with queueing(q.platform) as after:
        assert (await after.completed(request_id)).status == 200
        assert [request.attempt for request, _ in after.client.sent] == [2]


@pytest.mark.parametrize("steps", [1, 2])
async def test_a_stop_during_acceptance_is_told(q, steps, monkeypatch):
    await q.completed(await q.submit())
    monkeypatch.setattr(queue, "_ACCEPT_SECONDS", 0)
    q.store.gates["add"] = asyncio.Event()
    submitted = asyncio.ensure_future(q.hand_in())
    for _ in range(steps):
        await asyncio.sleep(0)
    assert q.platform.dispatcher.load(q.platform.app()).in_flight == 1
    await q.worker.close()
    with pytest.raises(Unavailable, match="submit it again"):
        await submitted
    assert len(q.client.sent) == 1
    assert q.platform.dispatcher.load(q.platform.app()).in_flight == 0


async def test_a_stop_lets_an_acceptance_end(q):
    await q.completed(await q.submit())
    gate = q.store.gates["add"] = asyncio.Event()
    submitted = asyncio.ensure_future(q.hand_in())
    await q.until(lambda: q.platform.dispatcher.load(q.platform.app()).in_flight == 1)
    closed = asyncio.ensure_future(q.worker.close())
    await asyncio.sleep(0)
    gate.set()
    assert (await submitted).request.state is State.IN_QUEUE
    await closed


async def test_nothing_is_sent_before_the_runners_are_adopted(idle: Platform):
    await idle.deploy()
    await idle.fleet.add([make_runner(state=RunnerState.IDLE, ready_at=START, revision_id=idle.app().revision_id)])
    q = Queueing(idle, await idle.store.webhook_signer())
    await q.queue.load()
    request_id = await q.submit()
    stored = await idle.store.queue.get(LOCAL, request_id)
    assert stored is not None
    assert (stored.state, stored.attempt) == (State.IN_QUEUE, 0)
    async with queueing(idle) as after:
        assert (await after.completed(request_id)).attempt == 1


async def test_a_slow_database_keeps_no_slot_from_direct_calls(q, monkeypatch):
    await q.completed(await q.submit())
    monkeypatch.setattr(attempts, "_STORE_SECONDS", 0)
    gate = q.store.gates["add"] = asyncio.Event()
    submitted = asyncio.ensure_future(q.hand_in())
    await asyncio.sleep(0)
    assert q.platform.dispatcher.load(q.platform.app()).in_flight == 1
    await q.until(lambda: q.platform.dispatcher.load(q.platform.app()).in_flight == 0)
    direct = q.platform.dispatcher.try_acquire(app_id("a"), request_id="direct", caller=None, hint=None)
    assert direct is not None
    gate.set()
    request_id = (await submitted).request.request_id
    q.platform.dispatcher.release(direct, Outcome.DONE)
    done = await q.completed(request_id)
    assert (done.status, done.attempt) == (200, 1), "nothing was sent at first"


async def test_a_request_that_is_stored_too_late_is_not_started(q):
    await q.completed(await q.submit())
    gate = q.store.gates["add"] = asyncio.Event()
    submitted = asyncio.ensure_future(q.hand_in(start_seconds=5))
    await q.until(lambda: q.platform.dispatcher.load(q.platform.app()).in_flight == 1)
    q.clock.advance(60)
    gate.set()
    assert (await q.completed((await submitted).request.request_id)).status == 504
    assert len(q.client.sent) == 1
    assert q.platform.dispatcher.load(q.platform.app()).in_flight == 0


async def test_a_request_is_sent_when_it_is_stored(q):
    await q.completed(await q.submit())
    gate = q.store.gates["add"] = asyncio.Event()
    q.client.held.clear()
    submitted = asyncio.ensure_future(q.hand_in())
    await q.until(lambda: q.platform.dispatcher.load(q.platform.app()).in_flight == 1)
    placed_at = q.clock.now()
    q.clock.advance(60)
    gate.set()
    await submitted
    await q.until(lambda: q.client.under_way == 1)
    assert not q.platform.fleet.sent_before(q.platform.the_runner().runner_id, placed_at)
    q.client.held.set()


async def test_a_request_that_comes_first_is_sent_first(q):
    await q.completed(await q.submit())
    lease = q.platform.dispatcher.try_acquire(app_id("a"), request_id="direct", caller=None, hint=None)
    first = asyncio.ensure_future(q.hand_in(body=b"1"))
    asyncio.get_running_loop().call_soon(q.platform.dispatcher.release, lease, Outcome.DONE)
    second = asyncio.ensure_future(q.hand_in(body=b"2"))
    for one in (await first, await second):
        await q.completed(one.request.request_id)
    assert [content.body for _, content in q.client.sent[1:]] == [b"1", b"2"]


async def test_a_repeated_submission_does_not_keep_a_runner(q):
    await q.completed(await q.submit(idempotency_key="k"))
    runner_id = q.platform.the_runner().runner_id
    before = q.platform.fleet.usage(runner_id).last_request_at
    q.clock.advance(100)
    await q.submit(idempotency_key="k")
    assert q.platform.fleet.usage(runner_id).last_request_at == before


async def test_a_request_that_cannot_be_stored_leaves_its_slot(q):
    await q.completed(await q.submit())
    q.store.failures = {"add": 1}
    with pytest.raises(Unavailable, match="the disk is full"):
        await q.submit()
    assert q.platform.dispatcher.load(q.platform.app()).in_flight == 0
    assert (await q.completed(await q.submit())).status == 200


async def test_a_repeated_submission_leaves_its_slot(q):
    first = await q.submit(idempotency_key="k")
    await q.completed(first)
    assert await q.submit(idempotency_key="k") == first
    with pytest.raises(UnusableIdempotencyKey):
        await q.submit(idempotency_key="k", body=b"other")
    assert q.platform.dispatcher.load(q.platform.app()).in_flight == 0
    assert len(q.client.sent) == 1


async def test_a_caller_that_leaves_during_acceptance_interrupts_nothing(q):
    await q.completed(await q.submit())
    submitted = asyncio.ensure_future(q.hand_in())
    await asyncio.sleep(0)
    assert q.platform.dispatcher.load(q.platform.app()).in_flight == 1
    submitted.cancel()
    await q.until(lambda: len(q.client.sent) == 2)
    assert (await q.completed(q.client.sent[1][0].request_id)).status == 200


async def test_new_requests_do_not_overtake_those_that_wait(q):
    await q.completed(await q.submit())
    q.client.sent.clear()
    made = await asyncio.gather(*(q.submit() for _ in range(20)))
    for one in made:
        await q.completed(one)
        made.append(await q.submit())
        if len(made) == 40:
            break
    for one in made:
        await q.completed(one)
    assert [request.request_id for request, _ in q.client.sent] == made
