"""Shims that were started ahead, and wait to be told which runner is theirs: Python and gRPC are loaded by then."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

# So long after one was given out: its runner's start has the processor for itself first.
_REFILL_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """A shim's process, still our child, and the socket by which it gets its directory and token; it ends with that."""

    pid: int
    handshake: socket.socket


class Spares:
    """Keeps some ready. To be made and used in one event loop.

    Args:
        count: how many; 0 keeps none.
        start: starts a process that waits on the socket's other end; its pid.
    """

    def __init__(self, count: int, start: Callable[[socket.socket], int]) -> None:
        self._count = count
        self._start = start
        self._waiting: deque[Spare] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._fill()

    def take(self) -> Spare | None:
        """One that waits, or None; it may have died meanwhile."""
        spare = self._waiting.popleft() if self._waiting else None
        if self._count and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_REFILL_SECONDS, self._fill)
        return spare

    async def close(self) -> None:
        """End those that wait."""
        self._count = 0
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            await end(self._waiting.popleft())

    def _fill(self) -> None:
        self._timer = None
        while len(self._waiting) < self._count:
            ours, theirs = socket.socketpair()
            with theirs:
                ours.setblocking(False)
                try:
                    self._waiting.append(Spare(pid=self._start(theirs), handshake=ours))
                except OSError:  # no room for a process: the next runner is started without
                    ours.close()
                    return


async def end(spare: Spare) -> None:
    """Kill a shim that has started nothing, and take in its end."""
    spare.handshake.close()
    os.kill(spare.pid, signal.SIGKILL)  # still our child: the number cannot be another's
    await asyncio.to_thread(os.waitpid, spare.pid, 0)
