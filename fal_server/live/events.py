"""Notifications of changes."""

from __future__ import annotations

import asyncio


class ChangeNotifier:
    """Counts changes. A waiter that has seen count N waits until it is higher, so it misses no change.

    Stateless: it only wakes waiters in this process.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Count a change and wake every waiter."""
        self.count += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, seen: int, timeout_seconds: float | None = None) -> int:
        """Wait until the count exceeds `seen`, or until the timeout. Return the current count.

        Args:
            seen: the count that the caller knows.
            timeout_seconds: None waits forever.
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
