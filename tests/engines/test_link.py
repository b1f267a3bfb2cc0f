"""A runner's end is reported. That holds even if the machine cannot end its remaining processes at once."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fal_grpc.v1 import log_pb2
from fal_server.core.identity import LOCAL
from fal_server.core.lifecycle import Event
from fal_server.core.logs import LogEntry
from fal_server.engines.shim.link import RunnerLink
from fal_server.ports.engine import Observation


class DeadShim:
    """The process of a dead shim. Its machine lacks descriptors for a while."""

    handle = "1"
    ending = ""

    def __init__(self, failures: int) -> None:
        self.died = asyncio.Event()
        self.died.set()
        self.failures = failures

    def watch(self) -> None:
        """Do nothing, because it is dead."""

    def alive(self) -> bool:
        return False

    async def sweep(self) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files", "/proc")

    async def leftover(self, after: int) -> AsyncIterator[Sequence[log_pb2.LogEntry]]:
        for nothing in ():
            yield nothing

    def close(self) -> None:
        """Do nothing: nothing is open."""


class NoClient:
    """A client of a shim that does not exist."""

    async def close(self) -> None:
        """Do nothing: nothing is open."""


async def test_what_cannot_be_ended_now_is_ended_later() -> None:
    seen: list[Observation] = []
    gone, process = asyncio.Event(), DeadShim(3)

    def emit(observation: Observation) -> None:
        seen.append(observation)
        if observation.event is Event.GONE:
            gone.set()

    async def sink(_lines: Sequence[LogEntry]) -> None:
        raise AssertionError("it left no lines")

    async def stored(_runner_id: str) -> int:
        return 0

    client: Any = NoClient()
    link = RunnerLink(
        client,
        process,
        "token",
        (LOCAL, "runner", "app", "revision"),
        node="local",
        sink=sink,
        last_sequence=stored,
        emit=emit,
        silent_seconds=60,
    )
    link.follow()
    await gone.wait()
    assert process.failures == 0
    assert [observation.event for observation in seen] == [Event.LAUNCHED, Event.GONE]
    await link.close()
