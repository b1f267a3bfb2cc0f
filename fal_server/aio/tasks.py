"""Background tasks, and work that a cancelled caller must not interrupt."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


class TaskSet:
    """Keeps background tasks alive until they end, and reports those that fail.

    asyncio itself only holds weak references to tasks, and reports an unawaited failure late or never.

    Args:
        log: where a failed task is reported; None if somebody awaits every task.
    """

    __slots__ = ("_log", "_tasks")

    def __init__(self, log: logging.Logger | None) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[object]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[object, None, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Run `work` in the background. The log names a failed task by `name`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def cancel(self) -> None:
        """Cancel every task, without waiting for the ends."""
        for task in tuple(self._tasks):
            task.cancel()

    async def wait(self) -> None:
        """Wait until every task has ended, including those added meanwhile."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cancel every task and wait for the ends."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._log is not None:
            self._log.error("%s failed", task.get_name(), exc_info=error)


# The awaiting caller gets the failure, unless it was cancelled; nobody else needs to know it.
_shielded = TaskSet(None)


async def run_to_completion(work: Coroutine[object, None, T]) -> T:
    """Run `work` to its end even if the caller is cancelled.

    A change is written to the store first and to memory second; cancelling it between the two would make them differ.
    """
    return await asyncio.shield(_shielded.spawn(work))
