"""Connections that a waiting controller passes on to the owner, or refuses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from fal_server.http.server.forwarder import Forwarder


class Owner:
    """A server that answers each line with itself."""

    def __init__(self) -> None:
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> tuple[str, int]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        while line := await reader.readline():
            writer.write(line)

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()


class Place:
    """A forwarder on a port, and who the owner is."""

    def __init__(self, patience_seconds: float) -> None:
        self.owner: tuple[str, int] | None = None
        self.bound = socket.create_server(("127.0.0.1", 0))
        self.forwarder = Forwarder(lambda: self.owner, lambda: "box1 has it", patience_seconds=patience_seconds)
        self.forwarder.start([self.bound])
        self.port = self.bound.getsockname()[1]

    async def close(self) -> None:
        await self.forwarder.close()
        self.bound.close()


@pytest_asyncio.fixture
async def patient() -> AsyncIterator[Place]:
    place = Place(60)
    yield place
    await place.close()


@pytest_asyncio.fixture
async def hasty() -> AsyncIterator[Place]:
    place = Place(0)
    yield place
    await place.close()


@pytest_asyncio.fixture
async def owner() -> AsyncIterator[Owner]:
    made = Owner()
    yield made
    await made.close()


async def test_a_connection_waits_for_an_owner_and_is_joined(patient: Place, owner: Owner) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", patient.port)
    writer.write(b"early\n")
    patient.owner = await owner.start()
    assert await reader.readline() == b"early\n"
    writer.write(b"late\n")
    assert await reader.readline() == b"late\n"
    patient.forwarder.stop_accepting()
    writer.write(b"still\n")
    assert await reader.readline() == b"still\n"
    writer.transport.abort()


async def test_a_connection_to_a_former_owner_is_cut(patient: Place, owner: Owner) -> None:
    patient.owner = await owner.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", patient.port)
    writer.write(b"x\n")
    assert await reader.readline() == b"x\n"
    patient.forwarder.cut_off()
    writer.write(b"y\n")
    assert await reader.readline() == b"y\n", "it is the owner still"
    patient.owner = None
    patient.forwarder.cut_off()
    try:
        rest = await reader.read()
    except ConnectionError:
        rest = b""
    assert rest == b""
    writer.transport.abort()


async def test_who_comes_while_nobody_answers_is_told(hasty: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert answer.endswith(b'{"detail": "box1 has it"}')
    writer.transport.abort()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{hasty.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/fal.v1.Runners/ListRunners")(b"")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refused.value.details() == "box1 has it"
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port)
    writer.write(b"\x16\x03\x01")
    assert await reader.read() == b"", "a client of TLS is disconnected"
    writer.transport.abort()
