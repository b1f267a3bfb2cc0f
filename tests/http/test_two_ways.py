"""A way to an app that is closed, and the other one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace

from fal_server.core.addresses import RunnerAddress
from fal_server.http.gateway.upstream import AppWay, Fallback, Pool

ADDRESS = RunnerAddress("runner--network.http.box.fal-node", 1)


async def test_the_other_way_is_taken_for_a_short_time() -> None:
    opened: list[socket.socket] = []
    why: list[OSError] = []
    with socket.create_server(("127.0.0.1", 0)) as closed:
        closed_port = closed.getsockname()[1]
    ended = asyncio.Semaphore(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        ended.release()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        door = AppWay("127.0.0.1", server.sockets[0].getsockname()[1], None, "", opened.append, seconds=-1)
        first = AppWay("127.0.0.1", closed_port, None, "", opened.append, fallback=Fallback(door, why.append))
        pool = Pool(lambda _address: first)
        upstream = await pool.connect("runner", ADDRESS, seconds=30)
        assert [type(error) for error in why] == [ConnectionRefusedError]
        assert [sock.getpeername()[1] for sock in opened] == [door.port]
        pool.put(upstream)
        assert pool.get("runner") is None, "the next request tries the first way again"
        first = replace(first, port=door.port)
        upstream = await pool.connect("runner", ADDRESS, seconds=30)
        assert len(why) == 1
        pool.put(upstream)
        assert pool.get("runner") is upstream
        upstream.transport.abort()
        for _ in opened:
            await ended.acquire()
