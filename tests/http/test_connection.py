"""HTTP/1.1 of the server: framing, order, limits, and what it rejects."""

from __future__ import annotations

import asyncio
import json
import uuid
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fal_server.http.server.connection import HttpConnection
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.registry import Registry
from fal_server.http.server.rules import Limits
from tests.http.support import App, echo, read_head, read_message, runner, running_server

HEAD = b"POST /x HTTP/1.1\r\nHost: here\r\n"
QUICK = Limits(head_seconds=0.1, idle_seconds=0.1, linger_seconds=0.1)


async def test_keep_alive() -> None:
    async with running_server() as h:
        reader, writer = await h.connect()
        for body in (b"one", b"two"):
            writer.write(HEAD + b"Content-Length: 3\r\n\r\n" + body)
            first, fields, got = await read_message(reader)
            assert (first, got) == (b"HTTP/1.1 200 OK", b"/x|" + body)
            assert b"connection" not in fields


@pytest.mark.parametrize("close", [b"Connection: close\r\n", b"connection: Keep-Alive, Close\r\n"])
async def test_connection_close(close: bytes) -> None:
    async with running_server() as h:
        reader, writer = await h.connect()
        writer.write(HEAD + close + b"Content-Length: 1\r\n\r\naGET /ignored HTTP/1.1\r\nHost: x\r\n\r\n")
        _, fields, body = await read_message(reader)
        assert fields[b"connection"] == b"close"
        assert body == b"/x|a"
        assert await reader.read() == b""


@pytest.mark.parametrize("keep", [False, True])
async def test_http_1_0(keep: bool) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        for target in (b"/x", b"/me/hello"):
            reader, writer = await h.connect()
            writer.write(
                b"GET " + target + b" HTTP/1.0\r\n" + (b"Connection: keep-alive\r\n" if keep else b"") + b"\r\n"
            )
            _, fields = await read_head(reader)
            assert b"transfer-encoding" not in fields
            if b"content-length" in fields and keep:
                assert fields[b"connection"] == b"keep-alive"
            else:
                assert fields[b"connection"] == b"close"
                assert await reader.read()


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def slow_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, _, _ = await read_message(reader)
        await others.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(first), first))
        await echo(reader, writer)

    others = asyncio.Event()
    async with running_server() as h, runner(slow_first) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        others.set()
        writer.write(
            b"POST /me/hello/1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
            b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
            b"POST /me/hello/3 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\ncd"
            b"GET /y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        bodies = [(await read_message(reader))[2] for _ in range(4)]
        assert bodies[0].startswith(b"POST /1 ")
        assert bodies[1] == b"/x|"
        assert bodies[2].startswith(b"POST /3 ")
        assert bodies[2].endswith(b"\n\ncd")
        assert bodies[3] == b"/y|"
        assert await reader.read() == b""


async def test_thousands_of_pipelined_requests() -> None:
    async with running_server() as h:
        reader, writer = await h.connect()
        writer.write(b"GET /me/none HTTP/1.1\r\nHost: x\r\n\r\n" * 5000)
        for _ in range(5000):
            assert (await read_message(reader))[0] == b"HTTP/1.1 401 Unauthorized"


@pytest.mark.parametrize("target", [b"/x", b"/me/hello"])
async def test_expect_continue(target: bytes) -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        for _ in range(2):
            writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n" % target)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"body")
            first, _, body = await read_message(reader)
            assert first == b"HTTP/1.1 200 OK"
            assert body.endswith(b"body")
            assert b"expect" not in body


async def test_a_body_that_is_not_needed_is_not_asked_for() -> None:
    async with running_server() as h:
        reader, writer = await h.connect()
        writer.write(b"POST /me/none HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        first, fields, _ = await read_message(reader)
        assert first == b"HTTP/1.1 401 Unauthorized"
        assert fields[b"connection"] == b"close"
        assert await reader.read() == b""


async def test_head() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        for target in (b"/me/hello", b"/x", b"/me/none", b"/me/hello"):
            writer.write(b"HEAD " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            _, fields = await read_head(reader)
            assert b"transfer-encoding" not in fields
        writer.write(b"GET /y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await read_message(reader))[2] == b"/y|"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        # Framing that two servers could read in two ways.
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (HEAD + b"Content-Length: +3\r\n\r\nabc", 400),
        (HEAD + b"Content-Length: 0x3\r\n\r\nabc", 400),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400),
        (HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello", 501),
        (HEAD + b"Expect: tea\r\nContent-Length: 5\r\n\r\nhello", 417),
        # Sizes.
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 900_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 12_000 + b"\r\n", 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 400_000, 431),
    ],
)
async def test_what_is_rejected(request_bytes: bytes, status: int) -> None:
    async with running_server(limits=Limits(linger_seconds=0.2)) as h:
        reader, writer = await h.connect()
        # A valid request before it is still answered.
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" + request_bytes)
        assert (await read_message(reader))[2] == b"/x|"
        first, fields, body = await read_message(reader)
        assert int(first.split()[1]) == status
        assert fields[b"connection"] == b"close"
        assert uuid.UUID(fields[b"x-fal-request-id"].decode())
        assert json.loads(body)["detail"]
        assert await reader.read() == b""


async def test_a_head_of_just_the_allowed_size() -> None:
    async with running_server() as h:
        reader, writer = await h.connect()
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 65_000 + b"\r\n\r\n")
        assert (await read_message(reader))[2] == b"/x|"


async def test_a_body_broken_while_it_is_relayed() -> None:
    gone = asyncio.Event()

    async def waiting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        assert await reader.readexactly(8) == b"3\r\nabc\r\n"
        got.set()
        assert await reader.read() == b""
        gone.set()

    got = asyncio.Event()
    async with running_server() as h, runner(waiting) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await got.wait()
        writer.write(b"nonsense\r\n")
        assert (await read_message(reader))[0] == b"HTTP/1.1 400 Bad Request"
        await gone.wait()
        await h.ledger.ended()


async def test_an_upgrade_that_is_not_offered_is_a_plain_request() -> None:
    async with running_server() as h:
        reader, writer = await h.connect()
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n" + upgrade + b"GET /y HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_message(reader))[2] == b"/x|"
        assert (await read_message(reader))[2] == b"/y|"


# Timeouts.


@pytest.mark.parametrize("started", [b"GET /x HT", b"GET /x HTTP/1.1\r\nHost: x\r\nX: y"])
async def test_a_head_that_does_not_end(started: bytes) -> None:
    async with running_server(limits=QUICK) as h:
        reader, writer = await h.connect()
        writer.write(started)
        assert (await read_message(reader))[0] == b"HTTP/1.1 408 Request Timeout"
        assert await reader.read() == b""


@pytest.mark.parametrize("after", [b"", b"\r\n", b"GET /x HT"])
async def test_an_idle_connection_is_closed(after: bytes) -> None:
    async with running_server(limits=QUICK) as h:
        reader, writer = await h.connect()
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" + after)
        assert (await read_message(reader))[2] == b"/x|"
        rest = await reader.read()
        assert rest.startswith(b"HTTP/1.1 408 ") if after.startswith(b"G") else rest == b""


async def test_a_head_that_starts_during_another_response_and_does_not_end() -> None:
    async with running_server(limits=QUICK) as h, runner(echo) as port:
        h.ledger.add(App("hello"), None)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\nGET /x HT")
        await h.ledger.until(lambda: h.ledger.waiting)
        other, other_writer = await h.connect()
        other_writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await other.read()
        h.ledger.place("hello", port)
        assert (await read_message(reader))[0] == b"HTTP/1.1 200 OK"
        assert (await read_message(reader))[0] == b"HTTP/1.1 408 Request Timeout"
        assert await reader.read() == b""


async def test_a_slow_request_is_not_cut_off_by_the_limits() -> None:
    async with running_server(limits=QUICK) as h, runner(echo) as port:
        h.ledger.add(App("hello"), None)
        reader, writer = await h.connect()
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await h.ledger.until(lambda: h.ledger.waiting)
        other, other_writer = await h.connect()
        other_writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await other.read()  # until its idle time is over, which is longer than the time for a head
        h.ledger.place("hello", port)
        writer.write(b"1\r\nb\r\n0\r\n\r\n")
        assert (await read_message(reader))[2].endswith(b"\n\nab")


async def test_a_response_before_the_body_has_arrived() -> None:
    async with running_server(limits=Limits(linger_seconds=0.2)) as h:
        reader, writer = await h.connect()
        writer.write(b"POST /me/none HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        first, fields, _ = await read_message(reader)
        assert first == b"HTTP/1.1 401 Unauthorized"
        assert fields[b"connection"] == b"close"
        assert await reader.read() == b""
        writer.write(b"x" * 1000)  # dropped, without a reset that would have lost the response


# Any split, and any bytes.


class Transport(asyncio.Transport):
    """Records what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Recorder:
    """Answers each request with its body, once that is complete."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]] = []

    def drain(self) -> None: ...

    def handle(self, exchange: Exchange) -> None:
        exchange.driver = _Collect(self, exchange)
        exchange.driver.on_body()


class _Collect:
    def __init__(self, recorder: Recorder, exchange: Exchange) -> None:
        self.recorder, self.exchange, self.body = recorder, exchange, b""

    def on_body(self) -> None:
        exchange = self.exchange
        self.body += exchange.take_body()
        if exchange.complete:
            self.recorder.seen.append((exchange.method, exchange.target, exchange.headers, self.body))
            exchange.respond(200, b"", self.body)

    def on_client_gone(self) -> None: ...

    on_client_slow = on_client_ready = on_client_gone


def speak(parts: list[bytes]) -> tuple[list[Any], bytes]:
    """Feed these parts to a connection."""

    async def run() -> tuple[list[Any], bytes]:
        recorder, transport = Recorder(), Transport()
        connection = HttpConnection(recorder, Registry(), Limits())
        connection.connection_made(transport)
        for part in parts:
            connection.data_received(part)
        connection.connection_lost(None)
        return list(recorder.seen), transport.written

    return asyncio.run(run())


STREAM = (
    b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX-Long: " + b"v" * 40 + b"\r\n\r\nhello"
    b"\r\nGET /second HTTP/1.1\r\nHost: x\r\nX-Empty:\r\n\r\n"
    b"PUT /third HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4;ext=1\r\nwiki\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
    b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_however_a_request_is_split_it_is_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    parts = [STREAM[a:b] for a, b in pairwise(edges) if a < b]
    assert speak(parts) == speak([STREAM])
    assert [target for _, target, _, _ in speak(parts)[0]] == [b"/a?b=c", b"/second", b"/third", b"/last"]


def test_byte_by_byte() -> None:
    assert speak([STREAM[i : i + 1] for i in range(len(STREAM))]) == speak([STREAM])


tokens = st.sampled_from(
    [
        *(b"GET ", b"POST ", b"/x", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"Host: x\r\n", b"abc", b"\0"),
        *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n"),
        *(b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n"),
        b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(tokens | st.binary(max_size=30), max_size=30))
def test_no_bytes_crash_it(parts: list[bytes]) -> None:
    _, written = speak([part for part in parts if part])
    assert not written or written.startswith(b"HTTP/1.1 ")
    assert b" 500 " not in written
