"""The way to a node's apps past its door."""

from __future__ import annotations

import asyncio
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


async def test_who_listens_no_more_is_not_excused(way: StraightWay) -> None:
    with socket.create_server((HOST, 0)) as runner:
        port = runner.getsockname()[1]
        assert await way.is_open(port)
    assert await way.is_open(port), "its machine refuses, so packets get there"
    assert not way.trouble
