"""Carries a connection's bytes over a call, with each direction's end."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

_CHUNK_BYTES = 128 * 1024
_LOOK_SECONDS = 0.25


async def splice_socket(
    connection: socket.socket,
    *,
    incoming: AsyncIterator[bytes],
    send: Callable[[bytes], Awaitable[None]],
    end: Callable[[], Awaitable[None]],
    until_incoming_ends: bool = True,
) -> None:
    """Carry bytes both ways until the other side or connection ends. Then close the connection.

    Args:
        connection: a connected stream socket, which is closed.
        incoming: what comes over the call.
        send: sends over the call.
        end: says over the call that nothing more is sent.
        until_incoming_ends: whether nothing more is sent once nothing more comes.
    """
    connection.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=connection)

    async def outwards() -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await send(data)
        await end()
        # The connection may be open for what comes: an end of its reading is no event.
        poll = select.poll()
        poll.register(connection, 0)
        while not poll.poll(0):  # noqa: ASYNC110  # the kernel tells of a close only who asks
            await asyncio.sleep(_LOOK_SECONDS)

    async def inwards() -> None:
        async for data in incoming:
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    both = [asyncio.ensure_future(outwards()), asyncio.ensure_future(inwards())]
    try:
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if not both[0].done() and not until_incoming_ends:
            await both[0]
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
