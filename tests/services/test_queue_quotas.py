"""The quotas of an account's queue, and the usage by its requests."""

from __future__ import annotations

import asyncio

import pytest

from fal_server.core.faults import ResourceExhausted
from fal_server.core.identity import LOCAL
from fal_server.core.quotas import Quotas
from fal_server.live.backlog import Backlog
from fal_server.ports.queue import RequestFilter
from tests.fakes.domain import app_id
from tests.fakes.platform import Platform
from tests.fakes.queueing import BROKEN, Queueing


async def test_no_more_is_queued_than_the_account_may_have(q):
    q.client.held.clear()
    q.quotas = Quotas(queued_requests=2, queued_bytes=10)
    with pytest.raises(ResourceExhausted, match="0 bytes of requests and cannot take 11 more, of the 10"):
        await q.submit(body=b"x" * 11)
    first = await q.submit(body=b"x" * 8)
    with pytest.raises(ResourceExhausted, match="cancel some"):
        await q.submit(body=b"x" * 3)
    await q.submit(body=b"x" * 2)
    with pytest.raises(ResourceExhausted, match="holds 2 requests"):
        await q.submit()
    assert len(await q.queue.find(LOCAL, RequestFilter(app_name="a"))) == 2, "what is refused is not stored"
    q.client.held.set()
    await q.completed(first)
    await q.until(lambda: q.backlog.held(LOCAL).requests == 0)
    assert q.backlog.held(LOCAL).size == 0
    await q.completed(await q.submit(body=b"x" * 10))


async def test_requests_that_come_at_once_do_not_pass_the_bound_together(q):
    q.client.held.clear()
    q.quotas = Quotas(queued_requests=3)
    found = await asyncio.gather(*(q.submit() for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(each, str) for each in found) == 3
    assert sum(isinstance(each, ResourceExhausted) for each in found) == 7
    assert q.backlog.held(LOCAL).requests == 3
    q.client.held.set()


async def test_a_restart_knows_what_is_queued(platform: Platform):
    await platform.deploy("a", scaling={"max_concurrency": 1})
    signer = await platform.store.webhook_signer()
    before = Queueing(platform, signer)
    for _ in range(3):
        await before.submit(body=b"x" * 1000)
    platform.backlog = Backlog(platform.clock)
    after = Queueing(platform, signer)
    await after.queue.load()
    held = after.backlog.held(LOCAL)
    assert held.requests == 3
    assert held.size == 3000


async def test_a_request_that_the_quota_of_runners_holds_back_is_told_so(q):
    q.platform.quotas = Quotas(runners=1)
    await q.platform.deploy("b")
    await q.platform.get("a")
    why = "its account has all the runners that its quota allows: 1"
    waiting = await q.submit("b")
    await q.until(lambda: any(runner.not_before for runner in q.platform.fleet.of_app(app_id("b"))))
    delay = (await q.queue.status(app_id("b"), waiting)).delay
    assert delay is not None
    assert delay.reason == why
    done = await q.completed(await q.submit("b", start_seconds=1), "b")
    assert (done.status, done.error) == (504, f"no runner of 'b' took the request within 1 s: {why}")


async def test_what_is_put_in_line_again_counts_as_what_it_has(q):
    body = bytes(range(256)) * 4
    q.client.answers.append(BROKEN)
    request_id = await q.submit(body=body, no_retry=True)
    assert (await q.completed(request_id)).dead
    assert q.backlog.held(LOCAL).size == 0
    q.client.held.clear()
    await q.queue.redrive(app_id("a"), request_id)
    assert (q.backlog.held(LOCAL).requests, q.backlog.held(LOCAL).size) == (1, len(body))
    q.client.held.set()
    await q.completed(request_id)
    await q.until(lambda: q.backlog.held(LOCAL).requests == 0)
    assert q.backlog.held(LOCAL).size == 0


async def given_up(q: Queueing, *sizes: int) -> list[str]:
    """Return requests that failed and are not queued any more."""
    found: list[str] = []
    for size in sizes:
        q.client.answers.append(BROKEN)
        found.append(await q.submit(body=b"x" * size, no_retry=True))
        assert (await q.completed(found[-1])).dead
    await q.until(lambda: q.backlog.held(LOCAL).requests == 0)
    q.client.held.clear()
    return found


async def test_what_is_put_in_line_again_needs_room_as_what_is_new(q):
    dead = await given_up(q, 6, 6)
    q.quotas = Quotas(queued_requests=1)
    await q.queue.redrive(app_id("a"), dead[0])
    with pytest.raises(ResourceExhausted, match="holds 1 requests that are not completed, of the 1"):
        await q.queue.redrive(app_id("a"), dead[1])
    q.quotas = Quotas(queued_bytes=10)
    with pytest.raises(ResourceExhausted, match="6 bytes of requests and cannot take 6 more, of the 10"):
        await q.queue.redrive(app_id("a"), dead[1])
    assert (await q.queue.status(app_id("a"), dead[1])).request.dead
    assert (q.backlog.held(LOCAL).requests, q.backlog.held(LOCAL).size) == (1, 6)
    q.client.held.set()


@pytest.mark.parametrize("quotas", [Quotas(queued_requests=2), Quotas(queued_bytes=17)])
async def test_those_of_many_that_have_no_room_together_all_stay(q, quotas):
    dead = await given_up(q, 6, 6, 6)
    q.quotas = quotas
    with pytest.raises(ResourceExhausted, match=r"cannot take (3|18) more"):
        await q.queue.redrive_all(app_id("a"), dead)
    assert [(await q.queue.status(app_id("a"), each)).request.dead for each in dead] == [True] * 3
    assert (q.backlog.held(LOCAL).requests, q.backlog.held(LOCAL).size) == (0, 0)
    q.quotas = Quotas(queued_requests=3, queued_bytes=18)
    assert sorted(await q.queue.redrive_all(app_id("a"), [*dead, *dead])) == sorted(dead)
    assert (q.backlog.held(LOCAL).requests, q.backlog.held(LOCAL).size) == (3, 18)
    q.client.held.set()


async def test_what_is_put_in_line_at_once_does_not_pass_the_bound_together(q):
    dead = await given_up(q, 1, 1, 1, 1)
    q.quotas = Quotas(queued_requests=2)
    calls = (q.queue.redrive(app_id("a"), each) for each in dead)
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(each, ResourceExhausted) for each in found) == 2
    assert q.backlog.held(LOCAL).requests == 2
    q.client.held.set()
