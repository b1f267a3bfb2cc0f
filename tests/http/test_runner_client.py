"""Queued requests to real runners: sent bytes, received answers, and all interruptions."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime

import pytest

from fal_server.core.addresses import RunnerAddress
from fal_server.core.identity import LOCAL
from fal_server.core.queue import Answer, Condition, Content, Failure, QueuedRequest
from fal_server.http.gateway.runner_client import HttpRunnerClient
from fal_server.http.gateway.upstream import straight
from fal_server.ports.queue import AnswerTooLarge

ID = "6f576f02-0000-4000-8000-0000000000aa"
REQUEST = QueuedRequest(
    account=LOCAL, request_id=ID, app_name="a", path="/x?y=%20", created_at=datetime(2026, 1, 1, tzinfo=UTC)
)
CONTENT = Content(headers=(("host", "here"), ("x-mine", "caf\xe9")), body=b'{"a":1}')


@asynccontextmanager
async def runner(answer: bytes | None, *, hold: asyncio.Event | None = None):
    """Run a server that answers one request with these bytes and closes. Yield its port and the requests.

    Args:
        hold: set when the request has arrived; it is not answered before the client is gone.
    """
    asked: list[bytes] = []
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionResetError):  # a probe that sends nothing
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.startswith(b"content-length")), 0)
            asked.append(head + await reader.readexactly(length))
            if hold is not None:
                hold.set()
                await reader.read()
                gone.set()
            if answer:
                writer.write(answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked, gone


async def send(port: int, client: HttpRunnerClient | None = None, seconds: float = 20, **changes) -> Answer | Failure:
    from dataclasses import replace

    client = client or HttpRunnerClient(straight)
    here = RunnerAddress("127.0.0.1", port)
    return await client.send(here, replace(REQUEST, **changes), CONTENT, seconds, asyncio.Event())


async def test_a_request_and_its_answer():
    reply = (
        b"HTTP/1.1 201 Created\r\nContent-Type: a/b\r\ncontent-length: 2\r\nconnection: close, x-hop\r\n"
        b"x-hop: 1\r\nset-cookie: a\r\nset-cookie: b\r\nx-fal-needs-retry: 1\r\n\r\nhi"
    )
    async with runner(reply) as (port, asked, _):
        answer = await send(port)
    (request,) = asked
    assert request == (
        b"POST /x?y=%20 HTTP/1.1\r\nhost: here\r\nx-mine: caf\xe9\r\n"
        b"traceparent: 00-6f576f020000400080000000000000aa-6f576f0200004000-01\r\ncontent-length: 7\r\n"
        b"x-fal-endpoint: /x\r\nx-fal-request-id: " + ID.encode() + b'\r\nconnection: close\r\n\r\n{"a":1}'
    )
    assert answer == Answer(
        status=201,
        headers=(("content-type", "a/b"), ("set-cookie", "a"), ("set-cookie", "b"), ("x-fal-needs-retry", "1")),
        body=b"hi",
    )


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcde",
    ],
)
async def test_every_framing(reply):
    async with runner(reply) as (port, _, _):
        answer = await send(port)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (200, b"abcde")


async def test_an_answer_to_head_has_no_body():
    async with runner(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n") as (port, _, _):
        answer = await send(port, method="HEAD")
    assert isinstance(answer, Answer)
    assert answer.body == b""


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (None, "runner_disconnected"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", "runner_incomplete_response"),
        (b"nonsense\r\n\r\n", "runner_incomplete_response"),
        (b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "runner_connection_error"),
    ],
)
async def test_no_whole_answer(reply, kind):
    async with runner(reply) as (port, _, _):
        answer = await send(port)
    assert isinstance(answer, Failure)
    assert (answer.condition, answer.error_type) == (Condition.CONNECTION_ERROR, kind)


async def test_nobody_listens():
    async with runner(None) as (port, _, _):
        assert await HttpRunnerClient(straight).accepts(RunnerAddress("127.0.0.1", port))
    answer = await send(port)
    assert isinstance(answer, Failure)
    assert answer.error_type == "runner_connection_refused"
    assert not await HttpRunnerClient(straight).accepts(RunnerAddress("127.0.0.1", port))


async def test_too_long_is_cut_off():
    async with runner(None, hold=asyncio.Event()) as (port, _, gone):
        answer = await send(port, seconds=0.05)
        assert isinstance(answer, Failure)
        assert (answer.condition, answer.error_type) == (Condition.TIMEOUT, "request_timeout")
        async with asyncio.timeout(20):
            await gone.wait()


async def test_a_word_that_a_request_is_cancelled():
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    async with runner(reply) as (port, asked, _):
        status = await HttpRunnerClient(straight).cancel(RunnerAddress("127.0.0.1", port), "an-id", "/slow?x=1")
    assert status == 200
    head, *fields = asked[0].decode().strip().split("\r\n")
    assert head == "POST /slow/cancel HTTP/1.1"
    # Servers refuse a request without a host, and a worker identifies this request by its tag.
    assert {f"host: 127.0.0.1:{port}", "x-fal-request-id: an-id", "x-fal-cancellation: 1"} <= set(fields)


async def test_what_follows_a_request_is_sent_when_all_of_it_is_on_its_way():
    hold, sent = asyncio.Event(), asyncio.Event()
    async with runner(None, hold=hold) as (port, _, _):
        sending = HttpRunnerClient(straight).send(RunnerAddress("127.0.0.1", port), REQUEST, CONTENT, 20, sent)
        task = asyncio.create_task(sending)
        await asyncio.wait_for(sent.wait(), 20)
        await asyncio.wait_for(hold.wait(), 20)
        task.cancel()
        await asyncio.wait({task})


async def test_the_app_sees_a_cancelled_request_go():
    came = asyncio.Event()
    async with runner(None, hold=came) as (port, _, gone):
        task = asyncio.create_task(send(port))
        async with asyncio.timeout(20):
            await came.wait()
            task.cancel()
            await gone.wait()
    assert task.cancelled()


async def test_an_answer_that_is_too_large():
    async with runner(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + b"x" * 11) as (port, _, _):
        with pytest.raises(AnswerTooLarge, match="10 bytes"):
            await send(port, HttpRunnerClient(straight, most_bytes=10))
