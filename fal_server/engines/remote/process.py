"""A shim's process on another machine, as its node tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from fal_grpc.v1 import log_pb2


class NodeShimProcess:
    """Implements ShimProcess. While the node does not answer, the process counts as alive.

    Args:
        runner_id: its runner.
        handle: which process it is; empty if that is not known yet.
        version: from which state of the node on it is among the shims that live.
        sweep: kills everything of the runner.
        leftover: reads the log that it left.
        forget: called when nobody watches it any more.

    Attributes:
        ending: why it counts as dead, if its node was given up.
    """

    def __init__(
        self,
        runner_id: str,
        handle: str,
        version: int,
        *,
        sweep: Callable[[], Awaitable[None]],
        leftover: Callable[[int], AsyncIterator[Sequence[log_pb2.LogEntry]]],
        forget: Callable[[NodeShimProcess], None],
    ) -> None:
        self.runner_id = runner_id
        self.handle = handle
        self.version = version
        self.died = asyncio.Event()
        self.ending = ""
        self._sweep = sweep
        self._leftover = leftover
        self._forget = forget

    def watch(self) -> None:
        """Do nothing: its node is watched."""

    def alive(self) -> bool:
        return not self.died.is_set()

    async def sweep(self) -> None:
        if not self.ending:
            await self._sweep()

    async def leftover(self, after: int) -> AsyncIterator[Sequence[log_pb2.LogEntry]]:
        if not self.ending:
            async for entries in self._leftover(after):
                yield entries

    def close(self) -> None:
        self._forget(self)

    def seen(self, version: int, living: dict[str, str]) -> None:
        """Note which shims live on the node, by their runners."""
        handle = living.get(self.runner_id)
        if handle is not None and not self.handle:
            self.handle = handle
        if handle != self.handle and version >= self.version:
            self.died.set()

    def lose(self, reason: str) -> None:
        """Note that its node was given up, and the runner with it."""
        self.ending = reason
        self.died.set()
