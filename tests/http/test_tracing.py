"""A caller's trace continues in the app. A request without one starts a trace."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from fal_server.core.addresses import RunnerAddress
from fal_server.core.identity import LOCAL
from fal_server.core.queue import Answer, Content, QueuedRequest
from fal_server.http.gateway.runner_client import HttpRunnerClient
from fal_server.http.gateway.upstream import straight
from tests.fakes.domain import START
from tests.http.support import App, Reader, Writer, ask, echo, read_message, runner, running_server

MINE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def seen(body: bytes, name: bytes) -> list[bytes]:
    return [line.partition(b": ")[2] for line in body.split(b"\n") if line.lower().startswith(name + b":")]


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        (b"traceparent: %b\r\ntracestate: a=1\r\n" % MINE, True),
        (b"", False),
        (b"traceparent: nonsense\r\ntracestate: a=1\r\n", False),
        (b"tracestate: a=1\r\n", False),
    ],
)
async def test_a_direct_call(sent: bytes, passed: bool) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        _, fields, body = await ask(h, b"POST /me/hello HTTP/1.1\r\nHost: x\r\n%b\r\n" % sent)
        request_id = uuid.UUID(fields[b"x-fal-request-id"].decode())
        (parent,) = seen(body, b"traceparent")
        assert parent == (MINE if passed else b"00-%b-%b-01" % (request_id.hex.encode(), request_id.hex[:16].encode()))
        assert seen(body, b"tracestate") == ([b"a=1"] if passed else [])


@pytest.mark.parametrize(
    ("headers", "passed"),
    [
        ((("traceparent", MINE.decode()), ("tracestate", "a=1")), True),
        ((), False),
        ((("traceparent", "nonsense"), ("tracestate", "a=1")), False),
    ],
)
async def test_a_queued_request(headers: tuple[tuple[str, str], ...], passed: bool) -> None:
    heads: list[dict[bytes, bytes]] = []

    async def answering(reader: Reader, writer: Writer) -> None:
        heads.append((await read_message(reader))[1])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    request_id = uuid.uuid4()
    request = QueuedRequest(account=LOCAL, request_id=str(request_id), app_name="a", path="/", created_at=START)
    async with runner(answering) as port:
        answer = await HttpRunnerClient(straight).send(
            RunnerAddress("127.0.0.1", port), request, Content(headers=headers, body=b"x"), 20, asyncio.Event()
        )
    assert isinstance(answer, Answer)
    trace = heads[0][b"traceparent"].split(b"-")[1].decode()
    assert trace == ("0af7651916cd43dd8448eb211c80319c" if passed else request_id.hex)
    assert heads[0].get(b"tracestate") == (b"a=1" if passed else None)


@pytest.mark.parametrize(
    ("sent", "trace", "flags"),
    [
        (b"x-traceparent: %b\r\ntraceparent: %b\r\ntracestate: a=1\r\n" % (MINE, MINE), MINE[3:35], b"01"),
        (b"traceparent: %b00\r\ntracestate: a=1\r\n" % MINE[:-2], MINE[3:35], b"00"),
        (b"", None, b"01"),
    ],
)
async def test_the_apps_parent_is_our_span_if_that_is_exported(sent: bytes, trace: bytes | None, flags: bytes) -> None:
    async with running_server(exports_spans=True) as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        _, fields, body = await ask(h, b"POST /me/hello HTTP/1.1\r\nHost: x\r\n%b\r\n" % sent)
        own = uuid.UUID(fields[b"x-fal-request-id"].decode()).hex.encode()
        assert seen(body, b"traceparent") == [b"00-%b-%b-%b" % (trace or own, own[16:], flags)]
        assert seen(body, b"tracestate") == ([b"a=1"] if sent else [])
        if b"x-traceparent" in sent:
            assert seen(body, b"x-traceparent") == [MINE]


async def test_a_queued_requests_parent_is_our_span_if_that_is_exported() -> None:
    heads: list[dict[bytes, bytes]] = []

    async def answering(reader: Reader, writer: Writer) -> None:
        heads.append((await read_message(reader))[1])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    request_id = uuid.uuid4()
    request = QueuedRequest(account=LOCAL, request_id=str(request_id), app_name="a", path="/", created_at=START)
    content = Content(headers=(("traceparent", MINE.decode()),), body=b"x")
    async with runner(answering) as port:
        client = HttpRunnerClient(straight, exports_spans=True)
        await client.send(RunnerAddress("127.0.0.1", port), request, content, 20, asyncio.Event())
    assert heads[0][b"traceparent"].decode() == f"00-{MINE[3:35].decode()}-{request_id.hex[16:]}-01"
