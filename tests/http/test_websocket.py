"""WebSockets connect client and app, and occupy the runner's slot meanwhile."""

from __future__ import annotations

import asyncio

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from fal_server.core.routing import Outcome
from tests.http.support import KEY, App, Reader, Writer, answering, read_head, read_message, runner, running_server

UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"


async def test_messages_go_both_ways() -> None:
    async def mirror(connection) -> None:
        assert connection.request.path == "/realtime?x=1"
        async for message in connection:
            await connection.send(message)

    async with running_server() as h, serve(mirror, "127.0.0.1", 0, max_size=2**25) as server:
        h.ledger.add(App("hello", public=False), server.sockets[0].getsockname()[1])
        url = f"ws://127.0.0.1:{h.port}/me/hello/realtime?x=1"
        with pytest.raises(websockets.InvalidStatus, match="401"):
            async with connect(url):
                pass
        headers = {"Authorization": "Key good:secret"}
        async with connect(url, additional_headers=headers, max_size=2**25) as client:
            assert client.response is not None
            assert client.response.headers["x-fal-request-id"]
            for message in ("text", b"bytes", b"x" * 2**24):
                await client.send(message)
                assert await client.recv() == message
            assert h.ledger.held == 1
        assert await h.ledger.ended() == [Outcome.DONE]


async def test_bytes_after_the_heads_are_not_lost() -> None:
    async def greeting(reader: Reader, writer: Writer) -> None:
        first, fields = await read_head(reader)
        assert first == b"GET /x HTTP/1.1"
        assert (fields[b"connection"], fields[b"upgrade"]) == (b"upgrade", b"websocket")
        head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-App: 1\r\n\r\n"
        writer.write(head + b"hello")
        assert await reader.readexactly(5) == b"early"
        writer.write(b"bye")

    async with running_server() as h, runner(greeting) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello/x HTTP/1.1\r\nHost: x\r\n" + KEY + UPGRADE + b"early")
        first, fields = await read_head(reader)
        assert first == b"HTTP/1.1 101 Switching Protocols"
        assert fields[b"x-app"] == b"1"
        assert (fields[b"connection"], fields[b"upgrade"]) == (b"upgrade", b"websocket")
        assert await reader.read() == b"hellobye"
        assert await h.ledger.ended() == [Outcome.DONE]


async def test_a_client_that_leaves() -> None:
    left = asyncio.Event()

    async def waiting(reader: Reader, writer: Writer) -> None:
        _, fields = await read_head(reader)
        if b"upgrade" in fields:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert await reader.read() == b""
        if b"upgrade" in fields:
            left.set()

    async with running_server() as h, runner(waiting) as port:
        h.ledger.add(App("hello", request_timeout=1), port)  # the upgrade itself must be answered within it
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n" + UPGRADE)
        await read_head(reader)
        other, other_writer = await h.connect()
        other_writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_message(other))[0] == b"HTTP/1.1 504 Gateway Timeout"
        assert h.ledger.held == 1  # a session may last longer than a request
        writer.close()
        await left.wait()
        assert await h.ledger.ended(2) == [Outcome.TIMED_OUT, Outcome.DONE]


async def test_an_app_that_does_not_upgrade() -> None:
    refusing = answering(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")
    async with running_server() as h, runner(refusing) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n" + UPGRADE)
        first, fields, body = await read_message(reader)
        assert (first, body) == (b"HTTP/1.1 426 Upgrade Required", b"no")
        assert fields[b"connection"] == b"close"
        assert await reader.read() == b""
        assert await h.ledger.ended() == [Outcome.DONE]


async def test_an_app_that_switches_unasked() -> None:
    raw = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes"
    async with running_server() as h, runner(answering(raw)) as port:
        h.ledger.add(App("hello"), port)
        reader, writer = await h.connect()
        writer.write(b"GET /me/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_message(reader))[0] == b"HTTP/1.1 503 Service Unavailable"
        assert await h.ledger.ended() == [Outcome.RUNNER_FAILED]
