"""How requests to apps end, and what happens to the runner."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from fal_server.core.addresses import RunnerAddress
from fal_server.core.routing import Outcome
from fal_server.http.gateway.upstream import Pool, Upstream, straight
from tests.http.support import App, answering, ask, echo, error_of, read_head, read_message, runner, running_server


@pytest.mark.parametrize(
    ("head", "outcome"),
    [
        (b"200 OK\r\n", Outcome.DONE),
        (b"404 No\r\n", Outcome.DONE),
        (b"500 No\r\n", Outcome.DONE),
        (b"503 No\r\n", Outcome.UNAVAILABLE),
        (b"502 No\r\n", Outcome.DONE),  # the runner still accepts connections
        (b"200 OK\r\nX-Fal-Stop-Runner: 1\r\n", Outcome.STOP_RUNNER),
        (b"500 No\r\nx-fal-stop-runner: 1\r\n", Outcome.STOP_RUNNER),
    ],
)
async def test_outcomes(head: bytes, outcome: Outcome) -> None:
    async with running_server() as h, runner(answering(b"HTTP/1.1 " + head + b"Content-Length: 2\r\n\r\nok")) as port:
        h.ledger.add(App("hello"), port)
        status, fields, body = await ask(h, b"POST /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, body) == (int(head[:3]), b"ok")
        assert b"x-fal-stop-runner" not in fields
        assert await h.ledger.ended() == [outcome]


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"200 OK\r\n", None),
        (b"422 No\r\n", None),
        (b"500 No\r\n", b"runner_server_error"),
        (b"504 No\r\n", b"request_timeout"),
        (b"500 No\r\nX-Fal-Error-Type: bad_request\r\n", b"bad_request"),
    ],
)
async def test_an_apps_failure_has_an_error_type(head: bytes, word: bytes | None) -> None:
    async with running_server() as h, runner(answering(b"HTTP/1.1 " + head + b"Content-Length: 2\r\n\r\nok")) as port:
        h.ledger.add(App("hello"), port)
        _, fields, _ = await ask(h, b"POST /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert fields.get(b"x-fal-error-type") == word


async def test_a_504_of_a_runner_that_is_gone() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.get_running_loop()
    listening.setblocking(False)
    async with running_server() as h:
        h.ledger.add(App("hello"), listening.getsockname()[1])
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        connection, _ = await loop.sock_accept(listening)
        listening.close()
        await loop.sock_recv(connection, 4096)
        await loop.sock_sendall(connection, b"HTTP/1.1 504 No\r\nContent-Length: 0\r\n\r\n")
        assert (await read_head(reader))[0] == b"HTTP/1.1 504 No"
        connection.close()
        assert await h.ledger.ended() == [Outcome.RUNNER_FAILED]


async def test_a_runner_that_refuses_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    async with running_server() as h:
        h.ledger.add(App("hello"), port)
        status, fields, body = await ask(h, b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, error_of(fields, body)) == (503, "runner_connection_refused")
        assert await h.ledger.ended() == [Outcome.RUNNER_FAILED]


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "runner_disconnected"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "runner_incomplete_response"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "runner_incomplete_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "runner_incomplete_response"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "runner_incomplete_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "runner_incomplete_response"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000, "runner_incomplete_response"),
    ],
)
async def test_a_runner_that_breaks_off_before_the_body(raw: bytes, word: str) -> None:
    async with running_server() as h, runner(answering(raw, close=True)) as port:
        h.ledger.add(App("hello"), port)
        status, fields, body = await ask(h, b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, error_of(fields, body)) == (503, word)
        assert await h.ledger.ended() == [Outcome.RUNNER_FAILED]


async def test_a_connection_is_not_used_again_after_a_failure_of_the_app() -> None:
    async def fail_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()  # as a server that closes only after the next request may have come
        writer.close()

    async with running_server() as h, runner(fail_and_close) as port:
        h.ledger.add(App("hello"), port)
        for _ in range(3):
            status, _, _ = await ask(h, b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            assert status == 500
        assert await h.ledger.ended(3) == [Outcome.DONE] * 3


REQUEST = b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the first request of a connection. Break it at the second."""
    await read_message(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await read_message(reader)
    writer.transport.abort()


async def test_a_used_connection_that_breaks_does_not_end_a_runner_that_still_listens() -> None:
    async with running_server() as h, runner(answer_once) as port:
        h.ledger.add(App("hello"), port)
        assert (await ask(h, REQUEST))[0] == 200
        status, fields, body = await ask(h, REQUEST)
        assert (status, error_of(fields, body)) == (503, "runner_disconnected")
        assert await h.ledger.ended(2) == [Outcome.DONE] * 2


class _Late(Pool):
    """Returns a new connection late. The event loop then knows that the runner closed it."""

    def __init__(self) -> None:
        super().__init__(straight)
        self._told = asyncio.Event()

    def forget(self, upstream: Upstream) -> None:
        self._told.set()

    async def connect(self, key: str, address: RunnerAddress, *, seconds: float) -> Upstream:
        upstream = await super().connect(key, address, seconds=seconds)
        await self._told.wait()
        return upstream


async def test_a_runner_that_closes_before_it_is_asked() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with running_server() as h, runner(close) as port:
        h.gateway.pool = _Late()
        h.ledger.add(App("hello"), port)
        status, fields, body = await ask(h, b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, error_of(fields, body)) == (503, "runner_disconnected")
        assert await h.ledger.ended() == [Outcome.RUNNER_FAILED]


async def test_a_runner_that_ends_and_listens_a_little_longer_than_it_answers() -> None:
    """The kernel resets connections that an ending process has not accepted."""
    connected = 0

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        if connected == 1:
            await answer_once(reader, writer)
        writer.transport.abort()

    async with running_server() as h, runner(end) as port:
        h.ledger.add(App("hello"), port)
        assert (await ask(h, REQUEST))[0] == 200
        status, fields, body = await ask(h, REQUEST)
        assert (status, error_of(fields, body)) == (503, "runner_disconnected")
        assert await h.ledger.ended(2) == [Outcome.DONE, Outcome.RUNNER_FAILED]
    assert connected == 2


class _Broken(Pool):
    """Connects this many times, then raises an unexpected error."""

    def __init__(self, good: int) -> None:
        super().__init__(straight)
        self._good = good

    async def connect(self, key: str, address: RunnerAddress, *, seconds: float) -> Upstream:
        self._good -= 1
        if self._good < 0:
            raise RuntimeError("a fault of the controller")
        return await super().connect(key, address, seconds=seconds)


async def test_a_fault_of_the_controller_is_answered_and_frees_the_runner() -> None:
    async with running_server() as h, runner(answer_once) as port:
        h.gateway.pool = _Broken(1)
        h.ledger.add(App("hello"), port)
        assert (await ask(h, REQUEST))[0] == 200
        status, fields, body = await ask(h, REQUEST)
        assert (status, error_of(fields, body)) == (503, "runner_disconnected")
        status, fields, body = await ask(h, REQUEST)
        assert (status, error_of(fields, body)) == (500, "internal_error")
        assert await h.ledger.ended(3) == [Outcome.DONE, Outcome.RUNNER_FAILED, Outcome.DONE]


async def test_a_request_that_takes_too_long() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        assert await reader.read() == b""
        left.set()

    left = asyncio.Event()
    async with running_server() as h, runner(silent) as port:
        h.ledger.add(App("hello", request_timeout=0.1), port)
        status, fields, body = await ask(h, b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, error_of(fields, body)) == (504, "request_timeout")
        assert b"x-fal-request-timeout-type" not in fields
        assert await h.ledger.ended() == [Outcome.TIMED_OUT]
        await left.wait()


async def _reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_head(reader)
    await reader.read()


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (b"Content-Length: 100000", bytes(99_999)),
        (b"Transfer-Encoding: chunked", b""),
        (b"Transfer-Encoding: chunked", b"1\r\nx\r\n"),
    ],
)
@pytest.mark.parametrize("limits", [{"request_timeout": 0.1}, {}])
async def test_a_caller_who_does_not_send_its_body_costs_no_runner(framing: bytes, sent: bytes, limits) -> None:
    async with running_server(body_seconds=60 if limits else 0.05) as h, runner(_reads) as port:
        h.ledger.add(App("hello", **limits), port)
        head = b"POST /me/hello HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n"
        status, fields, body = await ask(h, head + sent)
        assert (status, error_of(fields, body)) == (408, "request_timeout")
        assert await h.ledger.ended() == [Outcome.CLIENT_GONE]


@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_half_of_a_body_takes_no_slot(size: int) -> None:
    async with running_server(body_seconds=0.05) as h, runner(_reads) as port:
        h.ledger.add(App("hello"), port)
        head = b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
        status, fields, body = await ask(h, head + b"half")
        assert (status, error_of(fields, body)) == (408, "request_timeout")
        assert h.ledger.asked == []


async def test_many_half_bodies_leave_the_slot_to_who_sends_his() -> None:
    """Anonymous callers attack a public app. Their heads announce bodies which never come."""
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        for size in (b"2", b"70000"):
            for _ in range(20):
                _, writer = await h.connect()
                writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: " + size + b"\r\n\r\n{")
        assert (await ask(h, b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200
        assert len(h.ledger.asked) == 1


async def test_a_body_that_comes_late_and_whole_is_relayed() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        head = b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        for byte in (b"b", b"o", b"d", b"y"):
            assert h.ledger.asked == []
            writer.write(byte)
            await writer.drain()
        status, _, body = await read_message(reader)
        assert (status, body[-4:]) == (b"HTTP/1.1 200 OK", b"body")


async def test_an_app_that_has_begun_to_answer_waits_for_its_caller() -> None:
    """A dialogue may pause. The caller sends after it has read something to answer."""
    seconds = 0.02

    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"x\r\n0\r\n\r\n")
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await writer.drain()

    async with running_server(body_seconds=seconds) as h, runner(talks) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await reader.readuntil(b"one\r\n")).startswith(b"HTTP/1.1 200")
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(5 * seconds, later.set)  # five times the body's time limit passes
        await later.wait()
        writer.write(b"1\r\nx\r\n0\r\n\r\n")
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"3\r\ntwo")


async def test_a_caller_who_does_not_read_costs_no_runner() -> None:
    async def gives(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            writer.write(bytes(100_000))
            await writer.drain()

    async with running_server() as h, runner(gives) as port:
        h.ledger.add(App("hello", request_timeout=0.5), port)
        _, writer = await h.connect(limit=1000)
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await h.ledger.ended() == [Outcome.CLIENT_GONE]


async def test_a_runner_that_does_not_read_is_ended() -> None:
    async def sits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport: Any = writer.transport
        transport.pause_reading()
        await asyncio.Event().wait()

    async with running_server() as h, runner(sits) as port:
        h.ledger.add(App("hello", request_timeout=0.5), port)
        _, writer = await h.connect()
        writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + bytes(30_000_000))
        assert await h.ledger.ended() == [Outcome.TIMED_OUT]


async def test_two_pipelined_requests_that_take_too_long() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        assert await reader.read() == b""

    async with running_server() as h, runner(silent) as port:
        h.ledger.add(App("hello", request_timeout=0.1), port)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        for _ in range(3):
            assert (await read_message(reader))[0] == b"HTTP/1.1 504 Gateway Timeout"
        assert await h.ledger.ended(3) == [Outcome.TIMED_OUT] * 3


async def test_deadlines_are_kept_while_other_requests_go_on() -> None:
    async def some(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            first, _, _ = await read_message(reader)
            if b"/slow" not in first:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with running_server() as h, runner(some) as port:
        h.ledger.add(App("hello", request_timeout=0.5), port)
        slow = asyncio.create_task(ask(h, b"GET /me/hello/slow HTTP/1.1\r\nHost: x\r\n\r\n"))
        answered = 0
        while not slow.done():
            assert (await ask(h, b"GET /me/hello/x HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200
            answered += 1
        assert (await slow)[0] == 504
        assert answered
        outcomes = await h.ledger.ended(answered + 1)
        assert outcomes.count(Outcome.TIMED_OUT) == 1


async def test_a_kept_connection_that_was_closed_is_not_used() -> None:
    served = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await read_message(reader)
        served += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with running_server() as h, runner(once) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        for count in range(1, 21):
            writer.write(b"POST /me/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
            first, _, _ = await read_message(reader)
            assert first == b"HTTP/1.1 200 OK"
            assert served == count
        assert set(await h.ledger.ended(20)) == {Outcome.DONE}


@pytest.mark.parametrize(("method", "status"), [(b"GET", 200), (b"POST", 503)])
async def test_only_what_may_be_repeated_is_sent_again(method: bytes, status: int) -> None:
    seen: list[bytes] = []

    async def fickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, _, _ = await read_message(reader)
        seen.append(first)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        if len(seen) == 1:  # reads the second request, and closes without a response
            first, _, _ = await read_message(reader)
            seen.append(first)
        else:
            await reader.read()

    async with running_server() as h, runner(fickle) as port:
        h.ledger.add(App("hello"), port)
        assert (await ask(h, method + b" /me/hello HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200
        got, _, _ = await ask(h, method + b" /me/hello/2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert got == status
        assert len(seen) == (3 if status == 200 else 2)
        await h.ledger.ended(2)
