"""A WebSocket to an HTTP path of an app. Each message is a request, with a `start`, its parts and an `end`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fal_server.core.faults import Unavailable
from fal_server.core.openapi import cancel_path, takes_post
from fal_server.core.routing import Outcome
from tests.http.support import App, Reader, Server, Writer, read_head, runner, running_server

POSTS = {
    "openapi": {
        "paths": {
            "/": {"post": {}},
            "/items/{item}": {"post": {}},
            "/items/live": {"post": {}, "x-fal-protocol": {"type": "realtime"}},
            "/seen": {"get": {}},
        }
    }
}


async def answering(reader: Reader, writer: Writer) -> None:
    """Echo the request in two parts. An empty body breaks the connection, and "busy" gets a 503."""
    first, fields = await read_head(reader)
    body = await reader.readexactly(int(fields[b"content-length"]))
    if not body:
        return
    status = b"503 Busy" if body == b"busy" else b"200 OK"
    said = b"%b %b %b" % (first, fields[b"content-type"], body)
    writer.write(b"HTTP/1.1 %b\r\nx-mine: 1\r\nx-fal-stop-runner: 0\r\ntransfer-encoding: chunked\r\n\r\n" % status)
    for part in (said[:5], said[5:]):
        writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


@asynccontextmanager
async def served(script=answering, **settings) -> AsyncIterator[Server]:
    async with running_server() as h, runner(script) as port:
        h.ledger.add(App("a", **settings), port)
        h.ledger.described["a"] = POSTS
        yield h


def address(h: Server, path: str = "") -> str:
    return f"ws://127.0.0.1:{h.port}/me/a{path}"


async def answer(ws: ClientConnection) -> tuple[dict[str, Any], bytes, dict[str, Any]]:
    start = json.loads(await ws.recv(decode=True))
    body = b""
    while isinstance(part := await ws.recv(), bytes):
        body += part
    return start, body, json.loads(part)


async def test_each_message_is_a_request_and_they_are_answered_in_order() -> None:
    async with served() as h, connect(address(h, "/items/7?x=1"), additional_headers={"x-hello": "1"}) as ws:
        for number in range(3):
            await ws.send(json.dumps(number))
        ids = set()
        for number in range(3):
            start, body, end = await answer(ws)
            assert (start["type"], start["status"], start["headers"]) == ("start", 200, {"x-mine": "1"})
            assert end == {"type": "end", "request_id": start["request_id"], "status": 200}
            assert body == b"POST /items/7?x=1 HTTP/1.1 application/json %d" % number
            ids.add(start["request_id"])
        assert ids == {asked["request_id"] for asked in h.ledger.asked}
        assert await h.ledger.ended(3) == [Outcome.DONE] * 3


async def test_a_host_for_it_carries_requests_to_any_path() -> None:
    async with served() as h, connect("ws://ws.localhost/me/a/none", host="127.0.0.1", port=h.port) as ws:
        await ws.send(b"1")
        assert (await answer(ws))[1].startswith(b"POST /none ")


async def test_a_path_that_takes_no_post_is_left_to_the_app() -> None:
    async def refusing(reader: Reader, writer: Writer) -> None:
        first, fields = await read_head(reader)
        assert (first, fields[b"upgrade"]) == (b"GET /seen HTTP/1.1", b"websocket")
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with served(refusing) as h:
        with pytest.raises(InvalidStatus, match="403"):
            await connect(address(h, "/seen"))


async def test_a_private_app_asks_for_a_key() -> None:
    async with served(public=False) as h:
        with pytest.raises(InvalidStatus, match="401"):
            await connect(address(h))
        async with connect(address(h), additional_headers={"Authorization": "Key good:secret"}) as ws:
            await ws.send(b"1")
            assert (await answer(ws))[0]["status"] == 200
        assert [asked["caller"] for asked in h.ledger.asked] == ["good"]


async def test_a_runner_that_breaks_or_is_broken_is_said_and_reported() -> None:
    async with served() as h, connect(address(h)) as ws:
        await ws.send("")
        start, body, end = await answer(ws)
        assert (start["status"], start["headers"]["x-fal-error-type"], end["type"]) == (
            503,
            "runner_disconnected",
            "end",
        )
        assert "closed the connection" in json.loads(body)["detail"]
        await ws.send("busy")
        assert (await answer(ws))[0]["status"] == 503
        h.ledger.fault = Unavailable("no runner starts")
        await ws.send("1")
        start, body, _ = await answer(ws)
        assert (start["status"], json.loads(body)) == (503, {"detail": "no runner starts"})
        assert await h.ledger.ended(2) == [Outcome.RUNNER_FAILED, Outcome.UNAVAILABLE]


async def test_a_request_is_cut_off_at_its_timeout() -> None:
    async def silent(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        await reader.read()

    async with served(silent, request_timeout=0.05) as h, connect(address(h)) as ws:
        await ws.send("1")
        start, body, _ = await answer(ws)
        assert (start["status"], start["headers"]["x-fal-error-type"]) == (504, "request_timeout")
        assert "0.05 s" in json.loads(body)["detail"]
        assert await h.ledger.ended() == [Outcome.TIMED_OUT]


async def test_a_caller_who_leaves_ends_the_request() -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    async def patient(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        entered.set()
        await reader.read()
        left.set()

    async with served(patient) as h:
        async with connect(address(h, "/items/7?x=1")) as ws:
            await ws.send("1")
            await entered.wait()
            ws.transport.abort()
        await left.wait()
        assert await h.ledger.ended() == [Outcome.CLIENT_GONE]
        await h.ledger.until(lambda: h.ledger.told)
        assert h.ledger.told == [(h.ledger.asked[0]["request_id"], "/items/7?x=1")]


async def test_a_listener_that_closes_says_so() -> None:
    async with served() as h, connect(address(h)) as ws:
        await ws.send("1")
        await answer(ws)
        await h.listener.close(1)
        with pytest.raises(ConnectionClosed, match="1001"):
            await ws.recv()


def test_what_a_description_says() -> None:
    for path, wanted in (
        ("/", True), ("/items/7", True), ("/items/", False), ("/items", False), ("/items/7/8", False), ("/seen", False),
        ("/items/live", False),
    ):  # fmt: skip
        assert takes_post(POSTS, path) is wanted, path
    assert takes_post({}, "/") is None
    assert takes_post({"openapi": "no mapping"}, "/") is None
    assert [cancel_path(path) for path in ("/", "/a/?x=1", "/a")] == ["/cancel", "/a/cancel", "/a/cancel"]
