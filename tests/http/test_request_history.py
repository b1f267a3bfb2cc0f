"""Each admitted request to an app is recorded once, with its outcome."""

from __future__ import annotations

import asyncio
import json

from websockets.asyncio.client import connect

from fal_server.core.faults import Unavailable
from fal_server.core.identity import LOCAL
from fal_server.core.payloads import MOST_BYTES, EndedPayload
from fal_server.core.requests import CALLER_LEFT, DirectRequest
from fal_server.live.ended_payloads import EndedPayloads
from tests.http.support import (
    KEY,
    App,
    Reader,
    Server,
    Writer,
    answering,
    ask,
    echo,
    read_head,
    read_message,
    runner,
    running_server,
)

CALL = b"POST /me/hello/x?secret=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"


async def only(h: Server) -> DirectRequest:
    """Return the only ended request. Wait for it, because the caller may see the end first."""
    async with asyncio.timeout(20):
        await h.ended.told.wait()
    (ended,) = h.ended.take()
    assert isinstance(ended, DirectRequest)
    assert ended.received <= (ended.started or ended.received) <= ended.ended
    return ended


async def test_an_answer() -> None:
    script = answering(b"HTTP/1.1 201 Made\r\nContent-Length: 2\r\n\r\nok")
    async with running_server() as h, runner(script) as port:
        h.ledger.add(App("hello", public=False), port)
        _, fields, _ = await ask(h, CALL.replace(b"\r\n\r\n", b"\r\n" + KEY + b"\r\n"))
        ended = await only(h)
        assert ended.request_id.encode() == fields[b"x-fal-request-id"]
        assert (ended.app_id, ended.key_id) == (App("hello").app_id, "good")
        assert (ended.runner_id, ended.revision_id) == (f"runner-{port}", "rev")
        assert (ended.method, ended.path) == (b"POST", b"/x?secret=1")
        assert (ended.code, ended.error_type, ended.bytes_in, ended.bytes_out) == (201, None, 4, 2)


async def test_what_an_app_says_of_its_failure() -> None:
    for head, error_type in [
        (b"404 No\r\n", "bad_request"),
        (b"500 No\r\n", "runner_server_error"),
        (b"500 No\r\nX-Fal-Error-Type: mine\r\n", "mine"),
    ]:
        script = answering(b"HTTP/1.1 " + head + b"Content-Length: 2\r\n\r\nok")
        async with running_server() as h, runner(script) as port:
            h.ledger.add(App("hello"), port)
            await ask(h, CALL)
            ended = await only(h)
            assert (ended.code, ended.error_type) == (int(head[:3]), error_type)


async def test_requests_of_one_connection_are_one_each() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        for _ in range(3):
            writer.write(CALL)
            await read_message(reader)
        assert [(each.code, each.bytes_in) for each in h.ended.take()] == [(200, 4)] * 3  # type: ignore[union-attr]
        assert h.ended.added == 3


async def test_no_runner_can_be_had() -> None:
    async with running_server() as h:
        h.ledger.add(App("hello"), None)
        h.ledger.fault = Unavailable("no runner can start")
        assert (await ask(h, CALL))[0] == 503
        ended = await only(h)
        assert (ended.code, ended.error_type) == (503, "runner_scheduling_failure")
        assert (ended.runner_id, ended.started) == (None, None)


async def test_the_caller_leaves_the_line() -> None:
    async with running_server() as h:
        h.ledger.add(App("hello"), None)
        _, writer = await h.connect()
        writer.write(CALL)
        await h.ledger.until(lambda: h.ledger.waiting)
        writer.close()
        ended = await only(h)
        assert (ended.code, ended.error_type, ended.started) == (None, CALLER_LEFT, None)


async def test_the_caller_leaves_the_runner() -> None:
    asked = asyncio.Event()

    async def silent(reader: Reader, writer: Writer) -> None:
        await read_message(reader)
        asked.set()
        await reader.read()

    async with running_server() as h, runner(silent) as port:
        h.ledger.add(App("hello"), port)
        _, writer = await h.connect()
        writer.write(CALL)
        await asked.wait()
        writer.close()
        ended = await only(h)
        assert (ended.code, ended.error_type) == (None, CALLER_LEFT)
        assert ended.runner_id == f"runner-{port}"


async def test_a_runner_that_breaks_off() -> None:
    for sent, word in [(b"", "runner_disconnected"), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", None)]:
        script = answering(sent, close=True)
        async with running_server() as h, runner(script) as port:
            h.ledger.add(App("hello"), port)
            reader, writer = await h.connect()
            writer.write(CALL)
            await asyncio.gather(reader.read(1), return_exceptions=True)
            ended = await only(h)
            assert (ended.code, ended.error_type) == (503, word or "runner_incomplete_response")


async def test_who_is_not_admitted_leaves_no_trace() -> None:
    async with running_server() as h, runner(echo) as port:
        h.ledger.add(App("hello", public=False), port)
        assert (await ask(h, CALL))[0] == 401
        wrong = CALL.replace(b"\r\n\r\n", b"\r\nAuthorization: Key good:wrong\r\n\r\n")
        assert (await ask(h, wrong))[0] == 401
        assert (await ask(h, CALL.replace(b"hello", b"none")))[0] == 401
        assert h.ended.added == 0


async def test_a_websocket_ends_once_with_its_connection() -> None:
    async def upgrading(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.read()

    async with running_server() as h, runner(upgrading) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(
            b"GET /me/hello/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await read_head(reader)
        assert h.ended.added == 0
        writer.close()
        ended = await only(h)
        assert (ended.code, ended.error_type, ended.path) == (101, None, b"/realtime")


async def test_each_message_of_a_socket_is_a_request() -> None:
    async def failing(reader: Reader, writer: Writer) -> None:
        _, fields = await read_head(reader)
        body = await reader.readexactly(int(fields[b"content-length"]))
        code = b"500 No" if body == b"bad" else b"200 OK"
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nok" % code)
        await writer.drain()

    async with running_server() as h, runner(failing) as port:
        h.ledger.add(App("hello"), port)
        h.ledger.described["hello"] = {"openapi": {"paths": {"/": {"post": {}}}}}
        ids = []
        async with connect(f"ws://127.0.0.1:{h.port}/me/hello") as ws:
            for body in ("good", "bad"):
                await ws.send(body)
                ids.append(json.loads(await ws.recv(decode=True))["request_id"])
                while isinstance(await ws.recv(), bytes):
                    continue
        ended = [each for each in h.ended.take() if isinstance(each, DirectRequest)]
        assert [each.request_id for each in ended] == ids
        assert [(each.code, each.error_type) for each in ended] == [(200, None), (500, "runner_server_error")]
        assert [(each.bytes_in, each.bytes_out) for each in ended] == [(4, 2), (3, 2)]


async def test_bodies_are_kept_only_by_a_gateway_that_was_asked_to() -> None:
    kept = EndedPayloads()
    script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    async with running_server(payloads=kept) as h, runner(script) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        sizes = [4, MOST_BYTES, MOST_BYTES + 1]
        for size in sizes:
            writer.write(b"POST /me/hello/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"b" * size)
            await read_message(reader)
        ended, found = h.ended.take(), kept.take()
        assert [each.request_id for each in found] == [each.request_id for each in ended]  # type: ignore[union-attr]
        assert [each.input and len(each.input) for each in found] == [4, MOST_BYTES, None]
        assert [each.output for each in found] == [b"ok"] * 3
        assert all(each.succeeded and each.account == App("hello").app_id.account for each in found)


async def test_the_parts_of_a_chunked_answer_are_kept_once_and_a_failure_is_none() -> None:
    kept = EndedPayloads()
    parts = b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"

    async def script(reader: Reader, writer: Writer) -> None:
        await read_message(reader)
        writer.write(parts)
        await writer.drain()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    async with running_server(payloads=kept) as h, runner(script) as port:
        h.ledger.add(App("hello"), port)
        await ask(h, CALL)
        await only(h)
        (found,) = kept.take()
        assert (found.input, found.output, found.succeeded) == (b"body", b"onetwo", False)


def test_what_finds_no_room_is_counted() -> None:
    kept = EndedPayloads(most_bytes=3000)
    for number in range(3):
        kept.add(EndedPayload(LOCAL, f"{number}", 0.0, True, b"1" * 800, None))
    assert ([each.request_id for each in kept.take()], kept.dropped) == (["0", "1"], 1)
    for number in range(100):  # one without bodies takes memory, too
        kept.add(EndedPayload(LOCAL, f"{number}", 0.0, True, None, None))
    assert 0 < len(kept.take()) < 10
