"""Webhooks: signed, repeated until they succeed, given up after the tenth attempt."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fal_server.core.identity import LOCAL
from fal_server.core.queue import Answer, WebhookState
from fal_server.core.webhooks import MOST_TRIES
from fal_server.services.webhooks import RETRIES
from tests.fakes.domain import app_id
from tests.fakes.platform import Platform
from tests.fakes.queueing import Queueing, queueing

URL = "http://example.test/hook"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def q(platform: Platform) -> AsyncIterator[Queueing]:
    await platform.deploy("a", scaling={"max_concurrency": 1})
    async with queueing(platform) as found:
        yield found


async def tried(q: Queueing, request_id: str, times: int) -> None:
    """Wait until this many attempts are stored."""
    while len(await q.queue.deliveries(LOCAL, request_id)) < times:
        q.queue.webhook_due.notify()
        await q.until(lambda: True)


def documented(name: str) -> Callable[..., bool]:
    """Return the receiver's code from docs/reference/queue.md."""
    blocks: list[str] = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "reference" / "queue.md").read_text(), re.DOTALL
    )
    (code,) = [block for block in blocks if f"def {name}(" in block]
    found: dict[str, Any] = {}
    exec(code, found)
    return found[name]


async def test_a_webhook_is_signed_and_stored(q):
    q.clock.time = datetime.now(UTC)  # the receiver has another clock
    q.client.usual = Answer(status=200, body=b'{"x": 1}')
    request_id = await q.submit(webhook_url=URL)
    await q.completed(request_id)
    await tried(q, request_id, 1)
    (call,) = q.receivers.calls
    assert call.url == URL
    assert json.loads(call.body)["payload"] == {"x": 1}
    genuine = documented("is_genuine")
    headers = dict(call.headers)
    assert genuine(headers, call.body, q.webhooks.key_set())
    assert not genuine(headers, call.body + b" ", q.webhooks.key_set())
    assert not genuine(headers | {"x-fal-webhook-request-id": "other"}, call.body, q.webhooks.key_set())
    later = str(int(headers["x-fal-webhook-timestamp"]) + 301)
    assert not genuine(headers | {"x-fal-webhook-timestamp": later}, call.body, q.webhooks.key_set())
    (delivery,) = await q.queue.deliveries(LOCAL, request_id)
    assert (delivery.number, delivery.status, delivery.error) == (1, 200, None)
    assert (await q.get(request_id)).webhook is WebhookState.DELIVERED


async def test_a_request_without_a_webhook_calls_nobody(q):
    request_id = await q.submit()
    await q.completed(request_id)
    other = await q.submit(webhook_url=URL)
    await q.completed(other)
    await tried(q, other, 1)
    assert len(q.receivers.calls) == 1
    assert (await q.get(request_id)).webhook is WebhookState.NONE


async def test_a_cancelled_request_s_webhook_says_so(q):
    q.client.held.clear()
    await q.submit()
    request_id = await q.submit(webhook_url=URL)
    await q.until(lambda: q.client.under_way == 1)
    await q.queue.cancel(app_id("a"), request_id)
    await tried(q, request_id, 1)
    sent = json.loads(q.receivers.calls[0].body)
    assert (sent["status"], sent["error"]) == ("ERROR", "the request was cancelled")


def test_ten_tries_take_two_hours():
    assert 1.9 * 3600 < sum(RETRIES.pause(number) for number in range(1, MOST_TRIES)) <= 2 * 3600


async def test_a_webhook_is_tried_again_and_given_up(q):
    q.receivers.answers = [500, 302, OSError("refused"), *[503] * 7]
    request_id = await q.submit(webhook_url=URL)
    await q.completed(request_id)
    for number in range(1, MOST_TRIES + 1):
        await tried(q, request_id, number)
        assert len(q.receivers.calls) == number
        q.clock.advance(2 * 3600)
    tries = await q.queue.deliveries(LOCAL, request_id)
    assert [one.number for one in tries] == list(range(1, 11))
    assert [one.error for one in tries[:3]] == ["the receiver answered 500", "the receiver answered 302", "refused"]
    standing = await q.get(request_id)
    assert (standing.webhook, standing.webhook_attempts, standing.webhook_at) == (WebhookState.FAILED, 10, None)
    assert await q.webhooks.due(10) == []


async def test_webhooks_that_cannot_be_sent_hold_up_no_other(q):
    poisoned = [await q.submit(webhook_url="http://poison.test/") for _ in range(45)]
    for request_id in poisoned:
        await q.completed(request_id)
    request_id = await q.submit(webhook_url=URL)
    await q.completed(request_id)
    await tried(q, request_id, 1)
    (delivery,) = await q.queue.deliveries(LOCAL, request_id)
    assert delivery.error is None
    for request_id in poisoned:
        await tried(q, request_id, 1)
    (delivery,) = await q.queue.deliveries(LOCAL, poisoned[0])
    assert delivery.error == "the webhook cannot be sent: RuntimeError"


async def test_the_key_belongs_to_the_database(q):
    again = await q.platform.store.webhook_signer()
    assert again.key_set() == q.webhooks.key_set()
    assert again.sign(b"x") == q.signer.sign(b"x")
    assert "x=" not in repr(again)
