"""What a link asks of a shim's process; the engine that started it answers, wherever it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from fal_grpc.v1 import log_pb2


class ShimProcess(Protocol):
    """One shim's process, and everything else that its runner has on its machine."""

    @property
    def handle(self) -> str:
        """What a later controller finds this very process again by; only the engine reads it."""
        ...

    @property
    def died(self) -> asyncio.Event:
        """Set once the process has ended; not before `watch` was called."""
        ...

    def watch(self) -> None:
        """Start to wait for the end of the process."""
        ...

    def alive(self) -> bool:
        """Whether the process is alive now."""
        ...

    async def sweep(self) -> None:
        """Kill everything of the runner; return once nothing of it is alive."""
        ...

    def leftover(self, after: int) -> AsyncIterator[Sequence[log_pb2.LogEntry]]:
        """Read the log that a dead shim left.

        Args:
            after: the sequence of the last entry that is not wanted.
        """
        ...

    def close(self) -> None:
        """Stop waiting for its end; the process goes on."""
        ...
