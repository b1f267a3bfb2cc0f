"""The way to a node's apps past its door."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from fal_server.engines.remote.straight_way import StraightWay

HOST = "127.0.0.2"


class Runners:
    """The ports of a node's runners.

    Attributes:
        ports: those that they should have open; None while the node is silent.
        looks: how often they were asked for.
    """

    def __init__(self) -> None:
        self.ports: Sequence[int] | None = ()
        self.looks = 0

    def __call__(self) -> Sequence[int] | None:
        self.looks += 1
        return self.ports

    async def looked(self, times: int = 2) -> None:
        """Wait until they were asked for so often again."""
        wanted = self.looks + times
        await until(lambda: self.looks >= wanted)


@pytest.fixture
def runners() -> Runners:
    return Runners()


@pytest.fixture
async def way(runners: Runners) -> AsyncIterator[StraightWay]:
    way = StraightWay("box-1", HOST, runners, look_seconds=0.01)
    yield way
    await way.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - it notifies nobody
            await asyncio.sleep(0)


def refused() -> OSError:
    return ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


async def test_a_refusal_by_a_runner_that_ends_changes_nothing(way: StraightWay, runners: Runners) -> None:
    with socket.create_server((HOST, 0)) as other:
        runners.ports = [other.getsockname()[1]]
        way.failed(refused())
        assert not way.trouble
        await until(lambda: runners.looks > 0)
        assert not way.trouble


async def test_without_an_answer_the_door_is_taken_at_once_and_until_there_is_one(
    way: StraightWay, runners: Runners
) -> None:
    with socket.create_server((HOST, 0)) as runner:
        port = runner.getsockname()[1]
    runners.ports = None
    way.failed(TimeoutError())
    assert "requests take its door since" in way.trouble
    assert "(no answer)" in way.trouble
    await runners.looked()
    assert way.trouble, "a node that does not answer says nothing about the way to its runners"
    runners.ports = [port]
    await runners.looked()
    assert way.trouble
    with socket.create_server((HOST, port)):
        await until(lambda: not way.trouble)


async def test_ports_that_refuse_although_their_runners_serve_are_a_closed_way(
    way: StraightWay, runners: Runners
) -> None:
    with socket.create_server((HOST, 0)) as runner:
        runners.ports = [runner.getsockname()[1]]
    way.failed(refused())
    await until(lambda: bool(way.trouble))
    assert "the ports of its runners cannot be reached (Connection refused)" in way.trouble
    runners.ports = []
    await until(lambda: not way.trouble)


async def listens() -> bool:
    return True


async def listens_no_more() -> bool:
    return False


async def test_who_listens_no_more_is_not_excused(way: StraightWay) -> None:
    with socket.create_server((HOST, 0)) as runner:
        port = runner.getsockname()[1]
        assert await way.is_open(port, listens)
    assert await way.is_open(port, listens_no_more), "its machine refuses, so packets get there"
    assert not way.trouble


async def test_a_firewall_that_refuses_is_a_closed_way(way: StraightWay, runners: Runners) -> None:
    runners.ports = None
    with socket.create_server((HOST, 0)) as runner:
        port = runner.getsockname()[1]
    assert not await way.is_open(port, listens), "its door leads to it, so something between refuses"
    assert "(Connection refused)" in way.trouble


async def test_a_connection_that_fails_after_the_end_leaves_no_task(way: StraightWay, runners: Runners) -> None:
    runners.ports = None
    await way.close()
    before = asyncio.all_tasks()
    way.failed(TimeoutError())
    assert asyncio.all_tasks() == before


def fill(connection: socket.socket) -> int:
    """Send until the other end has no more room; return how much."""
    connection.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += connection.send(bytes(65536))
    return sent


async def test_a_runner_that_reads_nothing_for_long_keeps_its_connection(runners: Runners) -> None:
    way = StraightWay("box-1", HOST, runners, silent_seconds=3)
    with (
        socket.create_server((HOST, 0)) as runner,
        socket.create_connection(runner.getsockname()) as connection,
        socket.create_connection(runner.getsockname()) as other,
    ):
        reading, _ = runner.accept()
        ignored, _ = runner.accept()
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000)
        way.opened(connection)
        sent = fill(connection)
        fill(other)
        broken = errno.ETIMEDOUT
        await until(lambda: other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == broken)
        connection.shutdown(socket.SHUT_WR)
        with reading, ignored:
            got = 0
            while data := await asyncio.to_thread(reading.recv, 1 << 20):
                got += len(data)
        assert got == sent
    await way.close()
