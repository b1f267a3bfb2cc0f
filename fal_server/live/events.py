"""Notices of changes, and changes that a cancelled caller must not cut in half."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")

_under_way: set[asyncio.Task[object]] = set()


class ChangeNotifier:
    """Counts changes; who has seen count N waits until it is more."""

    def __init__(self) -> None:
        self.count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Something changed: wake every waiter."""
        self.count += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, seen: int, timeout_seconds: float | None = None) -> int:
        """Wait until the count is beyond `seen`, or the time is over.

        Args:
            seen: the count that the caller knows.
            timeout_seconds: None waits for ever.

        Returns:
            The count now.
        """
        if self.count == seen:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                async with asyncio.timeout(timeout_seconds):
                    await waiter
            except TimeoutError:
                pass  # the count says what happened
            finally:
                self._waiters.discard(waiter)
        return self.count


async def run_to_completion(work: Coroutine[object, None, T]) -> T:
    """Run `work` to its end, also where the caller is cancelled meanwhile (the caller then learns nothing of it).

    A change is written to the store first and to memory second; a hang-up between the two would part them.
    """
    task = asyncio.get_running_loop().create_task(work)
    _under_way.add(task)
    task.add_done_callback(_done)
    return await asyncio.shield(task)


def _done(task: asyncio.Task[object]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # whoever was there has got it; it must not be reported as lost
