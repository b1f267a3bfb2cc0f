"""Messages over a socket are complete and in order, with backpressure. An end is not a break."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_runner.exec.message_socket import OK, ConnectionBroken, MessageSocket, Status


@pytest.fixture
def ends() -> Iterator[tuple[MessageSocket, MessageSocket]]:
    ours, theirs = map(MessageSocket, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


@given(st.lists(st.lists(st.binary(max_size=300_000), max_size=4), max_size=8))
def test_messages_arrive_whole_and_in_order_and_the_status_last(messages: list[list[bytes]]) -> None:
    async def main() -> None:
        ours, theirs = map(MessageSocket, socket.socketpair())

        async def send() -> None:
            for parts in messages:
                await ours.send(*parts)
            await ours.end(Status("NOT_FOUND", "there is none: Ä"))
            ours.close()

        sending = asyncio.create_task(send())
        for parts in messages:
            assert await theirs.receive() == b"".join(parts)
        assert await theirs.receive() == Status("NOT_FOUND", "there is none: Ä")
        assert await theirs.receive() is None
        await sending
        theirs.close()

    asyncio.run(main())


async def test_a_sender_waits_while_nobody_receives(ends: tuple[MessageSocket, MessageSocket]) -> None:
    ours, theirs = ends
    block = b"x" * 2**20
    sending = asyncio.create_task(ours.send(*[block] * 16))
    for _ in range(1000):  # iterations of the loop without a receiver
        await asyncio.sleep(0)
    assert not sending.done()
    async with asyncio.timeout(30):
        assert await theirs.receive() == block * 16
        await sending


async def test_an_end_is_none_and_a_break_within_a_message_an_error(ends: tuple[MessageSocket, MessageSocket]) -> None:
    ours, theirs = ends
    await ours.end(Status(OK))
    ours.end_sending()
    assert await theirs.receive() == Status(OK)
    assert await theirs.receive() is None
    raw, reading = socket.socketpair()
    raw.sendall(b"\0\5\0\0\0abc")
    raw.close()
    broken = MessageSocket(reading)
    with pytest.raises(ConnectionBroken, match="within a message"):
        await broken.receive()
    broken.close()


async def test_what_is_no_message_is_refused() -> None:
    raw, reading = socket.socketpair()
    raw.sendall(b"PRI * HTTP/2.0\r\n")
    stranger = MessageSocket(reading)
    with pytest.raises(ConnectionBroken, match="not our protocol"):
        await stranger.receive()
    raw.close()
    with pytest.raises(ConnectionBroken):
        await stranger.send(b"x")
    stranger.close()
