"""A shim's process on any machine, as a port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from fal_grpc.v1 import log_pb2


class ShimProcess(Protocol):
    """A shim's process, and the other processes and files of its runner."""

    @property
    def handle(self) -> str:
        """Identifies this process to a later controller; only the engine parses it."""
        ...

    @property
    def died(self) -> asyncio.Event:
        """Set once the process has ended, after a call of `watch`."""
        ...

    @property
    def ending(self) -> str:
        """Why its machine was given up, and it with it. Empty as long as that is not so."""
        ...

    def watch(self) -> None:
        """Start to wait for the end of the process."""
        ...

    def alive(self) -> bool:
        """Return whether the process is alive now."""
        ...

    async def sweep(self) -> None:
        """Kill the runner's processes; return once none is alive."""
        ...

    def leftover(self, after: int) -> AsyncIterator[Sequence[log_pb2.LogEntry]]:
        """Read the log that a dead shim left.

        Args:
            after: the sequence of the entry before the first wanted one.
        """
        ...

    def close(self) -> None:
        """Stop waiting for its end; the process goes on."""
        ...
