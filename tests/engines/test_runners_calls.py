"""Runners of a node call the controller's socket over its only connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from fal_server.engines.remote.api_calls import MOST_CALLS, ApiCalls
from tests.engines.conformance.conftest import Remote

if TYPE_CHECKING:
    from fal_grpc.v1.host_pb2_grpc import HostAsyncStub

MEBIBYTE = 1024 * 1024


@pytest.fixture
async def under(tmp_path: Path) -> AsyncIterator[Remote]:
    engine = Remote(tmp_path, silent=0.5, lost=60.0)
    await engine.join()
    yield engine
    await engine.close()


async def call(under: Remote, said: bytes) -> bytes:
    """Send a line with the length and the bytes, as a runner. Return all that comes until the end."""
    reader, writer = await asyncio.open_unix_connection(under.node.root / "api.sock")
    writer.write(b"%d\n%b" % (len(said), said))
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def serve(under: Remote) -> asyncio.Server:
    """Have the controller's socket return what it gets, twice, and close."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.readexactly(int(await reader.readline()))
        writer.write(said * 2)
        writer.close()
        await writer.wait_closed()

    return await asyncio.start_unix_server(answer, under.node.api_socket)


async def test_calls_of_any_size_are_carried_and_many_at_once(under: Remote) -> None:
    async with await serve(under):
        said = [os.urandom(size) for size in (0, 1, 70_000, 4 * MEBIBYTE)] * 4
        assert await asyncio.gather(*(call(under, each) for each in said)) == [each * 2 for each in said]


async def test_a_call_waits_for_a_controller_that_is_away(under: Remote) -> None:
    async with await serve(under):
        under.way.silence()
        async with asyncio.timeout(30):
            await under.host.silent.wait()
        calls = [asyncio.ensure_future(call(under, b"waits")) for _ in range(3)]
        under.way.resume()
        assert await asyncio.gather(*calls) == [b"waitswaits"] * 3


async def test_a_call_ends_if_the_controllers_socket_does_not_answer(under: Remote) -> None:
    assert await call(under, b"nobody is there") == b""


async def test_a_runner_that_hangs_up_is_told_to_the_controller(under: Remote) -> None:
    ended: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.put(await reader.read())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(listen, under.node.api_socket):
        _, writer = await asyncio.open_unix_connection(under.node.root / "api.sock")
        writer.write(b"half a")
        writer.close()
        await writer.wait_closed()
        assert await asyncio.wait_for(ended.get(), 30) == b"half a"


async def test_a_node_has_so_many_calls_at_once_and_further_ones_wait(under: Remote) -> None:
    taken: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    here = most = 0

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal here, most
        here += 1
        most = max(most, here)
        await taken.put(writer)
        await reader.read()
        here -= 1
        writer.close()
        await writer.wait_closed()

    further = 32
    async with asyncio.timeout(60), await asyncio.start_unix_server(hold, under.node.api_socket):
        path = under.node.root / "api.sock"
        callers: list[asyncio.StreamWriter] = []
        for _ in range(MOST_CALLS):
            callers.append((await asyncio.open_unix_connection(path))[1])
            await taken.get()
        callers += [(await asyncio.open_unix_connection(path))[1] for _ in range(further)]
        for each in callers[:further]:
            each.close()
            await taken.get()
        assert most == MOST_CALLS
        for each in callers:
            each.close()


async def test_it_closes_while_the_node_goes_away(under: Remote) -> None:
    """A call that fails as it is cancelled raises its error alone."""

    class Going:
        def Accept(self) -> object:  # noqa: N802 - the name of the stub
            call = under.host._stub.Accept()
            call.add_done_callback(stop)
            return call

    def stop(_: object) -> None:
        calls._taking.cancel()

    calls = ApiCalls(cast("HostAsyncStub", Going()), under.node.api_socket, under.host.heard)
    async with asyncio.timeout(30):
        await under.host.heard.wait()
        await asyncio.sleep(0)
        await under.node.close()
        await asyncio.wait((calls._taking,))
    assert calls._taking.cancelled()
