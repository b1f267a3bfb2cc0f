"""Calls are admitted by their metadata. A refused call takes no memory for its messages."""

from __future__ import annotations

import asyncio
import gzip
import re
import struct
from pathlib import Path

import grpc
import pytest

from fal_grpc.v1.environment_pb2 import ListEnvironmentsRequest
from fal_grpc.v1.environment_pb2_grpc import EnvironmentsStub
from fal_server.access.permissions import PRESETS, covers
from fal_server.grpc.permissions import METHOD_PERMISSIONS
from tests.grpc.conftest import Stack

ZEROS = bytes(55 * 1024 * 1024)
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, payload: bytes = b"", stream: int = 1) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name: bytes, value: bytes) -> bytes:
    """Return a header field of HTTP/2, neither indexed nor compressed."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Stream:
    """A call in bytes. No client sends the input of these tests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int, path: str, *more: tuple[bytes, bytes]) -> Stream:
        stream = cls(*await asyncio.open_connection("127.0.0.1", port))
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"x")]
        fields += [(b"te", b"trailers"), (b"content-type", b"application/grpc"), *more]
        head = b"".join(field(name, value) for name, value in fields)
        stream.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, stream=0))
        stream.write(frame(HEADERS, END_HEADERS, head))
        return stream

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def send_message(self, message: bytes, *, compressed: bool) -> None:
        data = bytes([compressed]) + struct.pack(">I", len(message)) + message
        while data:
            self.write(frame(DATA, END_STREAM if len(data) <= 16384 else 0, data[:16384]))
            data = data[16384:]

    async def answer(self) -> bytes:
        """Return the bytes up to the end of the answer's headers. The headers contain the status."""
        got = b""
        async with asyncio.timeout(30):
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
                got += payload
                if head[3] == HEADERS and head[4] & END_STREAM:
                    return got

    async def close(self) -> None:
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)


def peak_bytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.parametrize("path", ["/fal.v1.Runners/ListRunners", "/controller.IsolateController/ShellRunner"])
async def test_a_call_without_a_key_is_refused_before_it_has_sent_a_message(stack: Stack, path) -> None:
    stream = await Stream.open(stack.port, path)
    assert b"the call has no key" in await stream.answer()
    await stream.close()


async def test_a_call_without_the_permission_is_refused_before_it_has_sent_a_message(stack: Stack) -> None:
    key = [(b"auth-key-id", stack.api[0].encode()), (b"auth-key", stack.api[1].encode())]
    stream = await Stream.open(stack.port, "/fal.v1.Runners/ListRunners", *key)
    assert b"serverless:runners:read" in await stream.answer()
    await stream.close()


@pytest.mark.parametrize(
    "path",
    ["/fal.v1.Runners/ListRunners", "/fal.v1.Runners/ShellRunner", "/grpc.health.v1.Health/Check",
     "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"],
)  # fmt: skip
async def test_six_calls_of_zeros_take_no_memory(stack: Stack, path) -> None:
    bomb = gzip.compress(ZEROS)
    forget_peak()
    before = peak_bytes()
    streams = [await Stream.open(stack.port, path, (b"grpc-encoding", b"gzip")) for _ in range(6)]
    for stream in streams:
        stream.send_message(bomb, compressed=True)
    for stream in streams:
        await stream.answer()
        await stream.close()
    assert peak_bytes() - before < len(ZEROS) / 2


async def test_a_key_does_not_allow_compression_either(stack: Stack) -> None:
    key = [(name.encode(), value.encode()) for name, value in stack.metadata]
    stream = await Stream.open(stack.port, "/fal.v1.Runners/ListRunners", *key, (b"grpc-encoding", b"gzip"))
    stream.send_message(gzip.compress(b""), compressed=True)
    assert b"gzip" in await stream.answer()
    await stream.close()


async def test_metadata_has_a_limit(stack: Stack) -> None:
    call = EnvironmentsStub(stack.channel).ListEnvironments
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(ListEnvironmentsRequest(), metadata=(*stack.metadata, ("x-long", "v" * 40_000)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await call(ListEnvironmentsRequest(), metadata=(*stack.metadata, ("x-long", "v" * 10_000)))


@pytest.mark.parametrize("method", ["Revisions.BuildEnvironment", "Apps.ListAliases", "Revisions.RegisterApplication"])
def test_the_deploy_preset_can_deploy(method: str) -> None:
    needed = METHOD_PERMISSIONS[f"fal.v1.{method}"]
    assert any(covers(held, needed) for held in PRESETS["DEPLOY"])
