"""Many deadlines with few timers. Requests with equal timeouts are due in the order of their start."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Timed(Protocol):
    """Something with a deadline."""

    def time_out(self) -> None:
        """Handle the timeout; the deadline is already removed."""
        ...


class Deadlines:
    """One queue and one timer for each timeout."""

    __slots__ = ("_loop", "_queues", "_timers")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queues: dict[float, dict[Timed, float]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def add(self, member: Timed, seconds: float) -> None:
        """Call `member.time_out` after this many seconds."""
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = {}
        queue[member] = due = self._loop.time() + seconds
        if seconds not in self._timers:
            self._timers[seconds] = self._loop.call_at(due, self._sweep, seconds)

    def discard(self, member: Timed, seconds: float) -> None:
        """Remove a deadline. The timer keeps running and checks what is due when it fires."""
        queue = self._queues.get(seconds)
        if queue is not None:
            queue.pop(member, None)

    def close(self) -> None:
        """Remove all deadlines."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._queues.clear()

    def _sweep(self, seconds: float) -> None:
        del self._timers[seconds]
        queue = self._queues[seconds]
        now = self._loop.time()
        while queue:
            member, due = next(iter(queue.items()))
            if due > now:
                if (
                    seconds not in self._timers
                ):  # time_out may have freed a runner for the next request, which called `add`
                    self._timers[seconds] = self._loop.call_at(due, self._sweep, seconds)
                return
            del queue[member]
            member.time_out()
        del self._queues[seconds]
