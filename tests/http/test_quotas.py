"""Requests above a rate quota get 429. They do not wait for a runner first."""

from __future__ import annotations

import json

import pytest
from websockets.asyncio.client import connect

from fal_server.core.quotas import Quotas
from tests.http.support import KEY, App, ask, echo, runner, running_server
from tests.http.test_message_socket import POSTS, address, answer, answering

CALL = b"GET /me/hello/ HTTP/1.1\r\nHost: here\r\n%b\r\n"


async def test_callers_without_a_key_are_bounded_by_their_address() -> None:
    async with running_server(quotas=Quotas(caller_requests_per_second=1)) as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        forged = b"X-Forwarded-For: 10.0.0.%d\r\n"
        answers = [await ask(h, CALL % (KEY + forged % number)) for number in range(4)]
        assert [status for status, _, _ in answers[:2]] == [200, 429]
        _, fields, body = next(each for each in answers if each[0] == 429)
        assert int(fields[b"retry-after"]) == 1
        assert fields[b"content-type"] == b"application/json"
        said = json.loads(body)
        assert said["error_type"] == "bad_request"
        assert "more than the 1 requests a second" in said["detail"]
        assert "try again in 1 s" in said["detail"]


@pytest.mark.parametrize("warm", [False, True])
async def test_keys_share_the_bound_of_the_account(warm: bool) -> None:
    async with running_server(quotas=Quotas(requests_per_second=1)) as h, runner(echo) as port:
        h.ledger.add(App("hello", public=False), port)
        if warm:
            h.keys.warm |= {"kid"}
        # At most a second passes between them, in which one more is allowed.
        statuses = [(await ask(h, CALL % KEY))[0] for _ in range(3)]
        assert statuses[0] == 200
        assert 429 in statuses
        assert len(h.ledger.asked) == statuses.count(200)


async def test_who_is_refused_costs_the_account_nothing() -> None:
    async with running_server(quotas=Quotas(requests_per_second=1)) as h, runner(echo) as port:
        h.ledger.add(App("hello", public=False), port)
        for _ in range(3):
            assert (await ask(h, CALL % b""))[0] == 401
        assert (await ask(h, CALL % KEY))[0] == 200


async def test_each_message_of_a_socket_counts() -> None:
    quotas = Quotas(caller_requests_per_second=2)
    async with running_server(quotas=quotas) as h, runner(answering) as port:
        h.ledger.add(App("a"), port)
        h.ledger.described["a"] = POSTS
        async with connect(address(h)) as ws:  # this is the first request
            for number in range(4):
                await ws.send(json.dumps(number))
            found = [await answer(ws) for _ in range(4)]
        statuses = [start["status"] for start, _, _ in found]
        assert statuses[0] == 200
        assert 429 in statuses
        said = next(body for start, body, _ in found if start["status"] == 429)
        assert b"more than the 2 requests a second" in said
