"""The promises of the QueueStore port, method by method."""

from __future__ import annotations

import asyncio
import random
import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select

from fal_server.core.faults import Unavailable
from fal_server.core.identity import LOCAL
from fal_server.core.queue import Answer, Content, Priority, QueuedRequest, State, WebhookState
from fal_server.core.webhooks import Delivery
from fal_server.ports.queue import RequestFilter
from fal_server.store.sql.tables import REQUEST_CONTENTS, REQUEST_PARTS
from tests.store import strategies as some

CONTENT = Content(headers=(("authorization", "Bearer hunter2"),), body=b"\x00\xff", webhook_url="http://h/hunter2")
ANSWER = Answer(status=200, headers=(("content-type", "a/b"),), body=bytes(range(256)))


def request(request_id: str = "q", at: float = 0, **changes) -> QueuedRequest:
    values = {"request_id": request_id, "app_name": "a", "path": "/x", "created_at": some.later(at)}
    return QueuedRequest(account=LOCAL, **(values | changes))


def started(made: QueuedRequest) -> QueuedRequest:
    return replace(made, state=State.IN_PROGRESS, attempt=made.attempt + 1, started_at=some.later(5), runner_id="n")


def ended(made: QueuedRequest, at: float = 9, **changes) -> QueuedRequest:
    return replace(made, state=State.COMPLETED, completed_at=some.later(at), status=200, **changes)


async def test_a_request_and_what_it_carries(store):
    assert await store.queue.add(request(), CONTENT) == request()
    assert await store.queue.get(LOCAL, "q") == request()
    assert await store.queue.content(LOCAL, "q") == CONTENT
    assert await store.queue.get(LOCAL, "none") is None
    assert await store.queue.content(LOCAL, "none") is None
    assert await store.queue.answer(LOCAL, "q") is None


async def test_a_request_is_accepted_as_started(store):
    made = started(request(webhook=WebhookState.WAITING, alone=True))
    assert await store.queue.add(made, CONTENT) == made
    assert await store.queue.load() == [made]
    assert await store.queue.begin(made) is None
    done = ended(made, error="e", error_type="t", webhook=WebhookState.PENDING, webhook_at=some.later(9))
    assert await store.queue.complete(done, ANSWER)
    assert await store.queue.get(LOCAL, "q") == done
    assert await store.queue.due_webhooks(some.later(9), 10) == [done]


async def test_an_idempotency_is_one_requests(store):
    first = request("q1", idempotency="i", fingerprint="1")
    assert await store.queue.add(first, CONTENT) == first
    assert await store.queue.add(request("q2", idempotency="i", fingerprint="2"), CONTENT) == first
    assert await store.queue.get(LOCAL, "q2") is None
    await store.queue.add(request("q3"), CONTENT)
    await store.queue.add(request("q4"), CONTENT)


async def test_of_many_at_once_with_one_idempotency_one_is_accepted(store, beside):
    """Two stores on one database represent two controllers. One may replace the other."""
    stores = (store, beside)
    made = [request(f"q{n}", idempotency=f"i{n % 4}", fingerprint=str(n)) for n in range(40)]
    took = await asyncio.gather(*(stores[n // 4 % 2].queue.add(one, CONTENT) for n, one in enumerate(made)))
    winners = {one.idempotency: one for one in took}
    assert len(winners) == 4
    assert all(one == winners[one.idempotency] for one in took)
    for one in made:
        accepted = one in took
        assert (await store.queue.get(LOCAL, one.request_id) is not None) is accepted
        assert (await store.queue.content(LOCAL, one.request_id) is not None) is accepted


async def test_an_attempt_starts_once(store):
    await store.queue.add(request(), CONTENT)
    assert await store.queue.begin(started(request())) == CONTENT
    assert await store.queue.begin(started(request())) is None
    assert await store.queue.get(LOCAL, "q") == started(request())
    waiting = replace(started(request()), state=State.IN_QUEUE, retries={"timeout": 1}, not_before=some.later(7))
    assert await store.queue.put_back(waiting, waiting.attempt)
    assert not await store.queue.put_back(waiting, waiting.attempt)
    assert await store.queue.get(LOCAL, "q") == waiting
    assert await store.queue.begin(started(waiting)) == CONTENT
    assert not await store.queue.put_back(waiting, waiting.attempt), "an older attempt has nothing to say"


async def test_an_attempt_that_does_not_count_keeps_its_number(store):
    await store.queue.add(request(), CONTENT)
    await store.queue.begin(started(request()))
    assert not await store.queue.put_back(request(), request().attempt), "that is not what is stored"
    assert await store.queue.put_back(request(), started(request()).attempt)
    assert await store.queue.get(LOCAL, "q") == request()
    assert await store.queue.begin(started(request())) == CONTENT


async def test_a_request_ends_once(store):
    await store.queue.add(request(), CONTENT)
    await store.queue.begin(started(request()))
    done = ended(started(request()))
    assert not await store.queue.complete(ended(request()), ANSWER), "of an attempt that is over"
    assert await store.queue.complete(done, ANSWER)
    assert not await store.queue.complete(done, Answer(status=500))
    assert await store.queue.answer(LOCAL, "q") == ANSWER
    assert await store.queue.get(LOCAL, "q") == done
    assert await store.queue.begin(started(request())) is None


async def test_what_is_not_over_is_loaded_in_order(store):
    for request_id, at in (("q3", 3), ("q1", 1), ("q2", 2)):
        await store.queue.add(request(request_id, at), CONTENT)
    await store.queue.begin(started(request("q3", 3)))
    await store.queue.complete(ended(request("q2", 2)), ANSWER)
    assert [one.request_id for one in await store.queue.load()] == ["q1", "q3"]


async def test_requests_are_found_newest_first(store):
    await store.queue.add(request("q1", 1, caller="k"), CONTENT)
    await store.queue.add(request("q2", 2), CONTENT)
    await store.queue.add(request("q3", 3, app_name="b"), CONTENT)
    await store.queue.complete(ended(request("q2", 2), dead=True), ANSWER)

    async def ids(**query: Any) -> list[str]:
        fields: dict[str, Any] = {"app_name": "a"} | query
        return [one.request_id for one in await store.queue.find(LOCAL, RequestFilter(**fields))]

    assert await ids() == ["q2", "q1"]
    assert await ids(limit=1) == ["q2"]
    assert await ids(dead=True) == ["q2"]
    assert await ids(dead=False) == ["q1"]
    assert await ids(state=State.IN_QUEUE) == ["q1"]
    assert await ids(caller="k") == ["q1"]
    assert await ids(app_name="b") == ["q3"]


async def test_many_are_completed_at_once(store):
    made = [request(f"q{n}") for n in range(5)]
    for one in made:
        await store.queue.add(one, CONTENT)
    await store.queue.begin(started(made[1]))
    await store.queue.complete(ended(made[2]), replace(ANSWER, status=500))
    wanted = [ended(one, error=one.request_id) for one in (*reversed(made), request("none"))]
    assert await store.queue.complete_all(wanted, ANSWER) == {"q0", "q3", "q4"}
    for number in (0, 3, 4):
        assert await store.queue.get(LOCAL, f"q{number}") == ended(made[number], error=f"q{number}")
        assert await store.queue.answer(LOCAL, f"q{number}") == ANSWER
    assert await store.queue.get(LOCAL, "q1") == started(made[1]), "another attempt has started"
    assert await store.queue.answer(LOCAL, "q2") == replace(ANSWER, status=200)
    assert await store.queue.complete_all(wanted, ANSWER) == set()


async def test_the_requests_of_some_ids_are_found(store):
    for number in range(4):
        await store.queue.add(request(f"q{number}", at=number), CONTENT)
    query = RequestFilter(app_name="a", request_ids=("q1", "none", "q3"))
    assert [one.request_id for one in await store.queue.find(LOCAL, query)] == ["q3", "q1"]
    assert await store.queue.find(LOCAL, replace(query, request_ids=())) == []


async def test_the_dead_are_revived(store):
    await store.queue.add(request(webhook=WebhookState.WAITING), CONTENT)
    dead = ended(request(webhook=WebhookState.PENDING), dead=True, webhook_at=some.later(9))
    await store.queue.complete(dead, ANSWER)
    tried = Delivery(request_id="q", number=1, at=some.later(10), status=500, error="500")
    await store.queue.delivered(replace(dead, webhook_attempts=1), tried)
    assert await store.queue.revive([request(webhook=WebhookState.WAITING), request("none")]) == {
        "q": len(CONTENT.body)
    }
    assert not await store.queue.revive([request()])
    assert await store.queue.sizes_of(LOCAL, ["none"]) == {}
    assert await store.queue.get(LOCAL, "q") == request(webhook=WebhookState.WAITING)
    assert await store.queue.answer(LOCAL, "q") is None
    assert await store.queue.deliveries(LOCAL, "q") == []
    assert await store.queue.content(LOCAL, "q") == CONTENT


async def test_old_requests_are_forgotten_with_all_they_had(store):
    for request_id, at, dead in (("old", 10, False), ("new", 20, False), ("dead", 10, True), ("long-dead", 5, True)):
        await store.queue.add(request(request_id), CONTENT)
        await store.queue.complete(ended(request(request_id), at, dead=dead, webhook=WebhookState.PENDING), ANSWER)
        standing = replace(ended(request(request_id), at, dead=dead), webhook_attempts=1)
        await store.queue.delivered(standing, Delivery(request_id=request_id, number=1, at=some.later(at)))
    await store.queue.add(request("waits"), CONTENT)
    assert await store.queue.forget(some.later(20), some.later(10)) == 2
    assert await store.queue.forget(some.later(20), some.later(10)) == 0
    for gone in ("old", "long-dead"):
        assert await store.queue.get(LOCAL, gone) is None
        assert await store.queue.content(LOCAL, gone) is None
        assert await store.queue.deliveries(LOCAL, gone) == []
    for there in ("new", "dead", "waits"):
        assert await store.queue.get(LOCAL, there) is not None


@pytest.mark.parametrize("size", [2**20, 2**20 + 1, 3 * 2**20 + 7])
async def test_a_large_body_is_stored_in_parts_and_comes_back(reopen, size):
    large = replace(CONTENT, body=random.Random(size).randbytes(size))
    store = await reopen()
    assert await store.queue.add(request(), large) == request()
    again = request("again", idempotency="i")
    assert await store.queue.add(again, large) == again
    assert await store.queue.add(request("repeated", idempotency="i"), large) == again
    assert (await store.queue.body_sizes()) == {"q": size, "again": size}
    longest = await _rows(store, select(func.max(func.length(REQUEST_PARTS.c.sealed))))
    assert longest == [None if size == 2**20 else longest[0]]
    assert (longest[0] or 0) < 2**20 + 100
    assert (await _rows(store, select(func.max(func.length(REQUEST_CONTENTS.c.sealed_body)))))[0] < 2**20 + 100
    store = await reopen()
    assert await store.queue.content(LOCAL, "q") == large
    assert await store.queue.begin(started(request())) == large
    for one in (started(request()), again):
        await store.queue.complete(ended(one), ANSWER)
    assert await store.queue.forget(some.later(20), some.later(20)) == 2
    assert await _rows(store, select(func.count()).select_from(REQUEST_PARTS)) == [0]


async def test_a_body_without_one_of_its_parts_is_not_given_out(reopen):
    store = await reopen()
    await store.queue.add(request(), replace(CONTENT, body=bytes(3 * 2**20)))

    async def lose(connection):
        await connection.execute(delete(REQUEST_PARTS).where(REQUEST_PARTS.c.number == 1))

    await store._database.write(lose)
    with pytest.raises(Unavailable, match="a part of the body of request q is missing"):
        await store.queue.content(LOCAL, "q")


async def _rows(store, query):
    async def work(connection):
        return list((await connection.execute(query)).scalars())

    return await store._database.read(work)


async def test_webhooks_are_due_in_order_and_noted_once(store):
    for request_id, at in (("q2", 20), ("q1", 10), ("q3", 30)):
        await store.queue.add(request(request_id, webhook=WebhookState.WAITING), CONTENT)
        done = ended(request(request_id, webhook=WebhookState.PENDING), webhook_at=some.later(at))
        await store.queue.complete(done, ANSWER)
    await store.queue.add(request("waits", webhook=WebhookState.WAITING), CONTENT)
    assert [one.request_id for one in await store.queue.due_webhooks(some.later(20), 9)] == ["q1", "q2"]
    assert [one.request_id for one in await store.queue.due_webhooks(some.later(20), 1)] == ["q1"]
    assert await store.queue.next_webhook_at() == some.later(10)
    (first,) = await store.queue.due_webhooks(some.later(10), 9)
    failed = replace(first, webhook_attempts=1, webhook_at=some.later(50))
    await store.queue.delivered(failed, Delivery(request_id="q1", number=1, at=some.later(11), error="no"))
    await store.queue.delivered(failed, Delivery(request_id="q1", number=1, at=some.later(12), status=200))
    good = replace(failed, webhook=WebhookState.DELIVERED, webhook_attempts=2, webhook_at=None)
    await store.queue.delivered(good, Delivery(request_id="q1", number=2, at=some.later(50), status=204))
    assert [(one.number, one.status, one.error) for one in await store.queue.deliveries(LOCAL, "q1")] == [
        (1, None, "no"), (2, 204, None),
    ]  # fmt: skip
    assert await store.queue.next_webhook_at() == some.later(20)
    assert (await store.queue.get(LOCAL, "q1")).webhook is WebhookState.DELIVERED


async def test_it_is_there_after_a_restart_and_sealed(reopen, contents):
    store = await reopen()
    await store.queue.add(request(), CONTENT)
    await store.queue.begin(started(request()))
    await store.queue.complete(ended(started(request())), replace(ANSWER, body=b"hunter2"))
    store = await reopen()
    assert (await store.queue.answer(LOCAL, "q")).body == b"hunter2"
    assert b"requests" in contents()
    assert b"hunter2" not in contents()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.none() | st.integers(0, 10**6).map(some.later)


@given(
    made=st.builds(
        QueuedRequest,
        account=st.just(LOCAL),
        request_id=st.just(""),
        app_name=texts,
        path=texts,
        method=texts,
        caller=st.none() | texts,
        priority=st.sampled_from(Priority),
        hint=st.none() | texts,
        no_retry=st.booleans(),
        fingerprint=texts,
        state=st.sampled_from(State),
        attempt=st.integers(0, 10),
        retries=st.dictionaries(texts, st.integers(0, 9)),
        created_at=st.integers(0, 10**6).map(some.later),
        not_before=times,
        start_deadline=times,
        started_at=times,
        completed_at=times,
        lease_until=times,
        runner_id=st.none() | texts,
        alone=st.booleans(),
        status=st.none() | st.integers(100, 599),
        error=st.none() | texts,
        error_type=st.none() | texts,
        dead=st.booleans(),
        webhook=st.sampled_from(WebhookState),
        webhook_attempts=st.integers(0, 10),
        webhook_at=times,
    ),
    content=st.builds(
        Content,
        headers=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
        body=st.binary(max_size=50),
        webhook_url=st.none() | texts,
    ),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_requests_come_back_as_they_went(store, made, content):
    made = replace(made, request_id=str(uuid.uuid4()))  # a drawn id repeats
    await store.queue.add(made, content)
    assert await store.queue.get(LOCAL, made.request_id) == made
    assert await store.queue.content(LOCAL, made.request_id) == content
