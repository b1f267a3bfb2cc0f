"""Runs long loops in slices. The event loop serves other tasks in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
SLICE_SECONDS = 0.002


class Turns:
    """Yields to other tasks whenever a loop has run for some time."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._until = clock() + SLICE_SECONDS

    @property
    def over(self) -> bool:
        """Return whether other tasks should run; then await `give`."""
        return self._clock() >= self._until

    async def give(self) -> None:
        """Let other tasks run."""
        await asyncio.sleep(0)
        self._until = self._clock() + SLICE_SECONDS


async def in_slices(items: Iterable[T], *, clock: Callable[[], float] = time.perf_counter) -> AsyncGenerator[T]:
    """Yield the items, letting other tasks run after some time. Processing an item counts, too."""
    turns = Turns(clock)
    for item in items:
        yield item
        if turns.over:
            await turns.give()
