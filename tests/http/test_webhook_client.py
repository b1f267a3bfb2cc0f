"""Calls to the receivers of webhooks: what is sent, and that redirects are not followed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from fal_server.core.webhooks import SignedCall
from fal_server.http.outbound.webhook_client import HttpWebhookClient


@asynccontextmanager
async def receiver(answer: bytes):
    """Run a server that reads a request and answers with these bytes; yield its port and the request."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        came.append(head + await reader.readexactly(2))
        writer.write(answer)
        if not answer:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], came


async def post(port: int, **options: float) -> int:
    client = HttpWebhookClient(**options)
    try:
        call = SignedCall(url=f"http://127.0.0.1:{port}/hook?a=1", headers=(("x-mine", "1"),), body=b"{}")
        return await client.post(call)
    finally:
        await client.close()


async def test_a_call_and_its_answer():
    async with receiver(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, came):
        assert await post(port) == 204
    (request,) = came
    assert request.startswith(b"POST /hook?a=1 HTTP/1.1\r\n")
    assert b"x-mine: 1\r\n" in request
    assert request.endswith(b"\r\n\r\n{}")


async def test_a_redirect_is_an_answer():
    reply = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    async with receiver(reply) as (port, came):
        assert await post(port) == 302
    assert len(came) == 1


async def test_a_receiver_that_does_not_answer():
    async with receiver(b"") as (port, _):
        with pytest.raises(OSError, match="ReadTimeout"):
            await post(port, timeout_seconds=0.05)
    with pytest.raises(OSError, match="ConnectError"):
        await post(port)


async def test_closing_before_the_first_call():
    await HttpWebhookClient().close()
