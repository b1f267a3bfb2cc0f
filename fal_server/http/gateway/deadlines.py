"""Many deadlines for few timers: requests that may take equally long are due in the order of their start."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Timed(Protocol):
    """What has a deadline."""

    def time_out(self) -> None:
        """The time is over; the deadline is forgotten."""
        ...


class Deadlines:
    """One queue and one timer for each length of time."""

    __slots__ = ("_loop", "_queues", "_timers")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queues: dict[float, dict[Timed, float]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def add(self, member: Timed, seconds: float) -> None:
        """Call `member.time_out` after so many seconds."""
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = {}
        queue[member] = due = self._loop.time() + seconds
        if seconds not in self._timers:
            self._timers[seconds] = self._loop.call_at(due, self._sweep, seconds)

    def discard(self, member: Timed, seconds: float) -> None:
        """Forget it; the timer is left alone, and looks what is due when it fires."""
        queue = self._queues.get(seconds)
        if queue is not None:
            queue.pop(member, None)

    def close(self) -> None:
        """Forget all."""
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
                if seconds not in self._timers:  # a member that ended may have made room for the next, and so an `add`
                    self._timers[seconds] = self._loop.call_at(due, self._sweep, seconds)
                return
            del queue[member]
            member.time_out()
        del self._queues[seconds]
