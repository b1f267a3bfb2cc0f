"""Stores lines of all runners together. Those that arrive within milliseconds share one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from fal_server.core.faults import Fault
from fal_server.core.logs import LogEntry

# A transaction costs the same for one line as for a few hundred: a disk sync and a writer's turn. So small
# transactions are separated by a pause; lines after a silence, and many lines, are stored at once.
_PAUSE_SECONDS = 0.005
_ENOUGH_LINES = 500
_MOST_LINES = 5_000  # so that other writers get their turn


class _Batch(NamedTuple):
    entries: Sequence[LogEntry]
    stored: asyncio.Future[None]


class Intake:
    """Stores batches of lines in the order of their arrival.

    Owned: by the process that follows their runners; what is not stored yet is sent again to the next one.

    Args:
        store: stores lines, all or none; never called concurrently.
        pause_seconds: between small transactions.
    """

    def __init__(
        self, store: Callable[[Sequence[LogEntry]], Awaitable[None]], *, pause_seconds: float = _PAUSE_SECONDS
    ) -> None:
        self._store = store
        self._pause_seconds = pause_seconds
        self._waiting: list[_Batch] = []
        self._lines = 0
        self._enough = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    async def put(self, entries: Sequence[LogEntry]) -> None:
        """Store lines durably. If this is cancelled, they may or may not be stored.

        If a batch cannot be stored, the waiting ones fail, too, because no line may be stored without the earlier lines
        of its runner.

        Raises:
            Fault: the lines could not be stored.
        """
        batch = _Batch(entries, asyncio.get_running_loop().create_future())
        self._waiting.append(batch)
        self._count(len(entries))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._store_all())
        await batch.stored

    async def _store_all(self) -> None:
        """Store waiting batches until none is left. It also waits for the pause after the last one."""
        while self._waiting:
            batches = self._next()
            try:
                await self._store([entry for batch in batches for entry in batch.entries])
            except Fault as fault:
                self._fail(batches, fault)
            except Exception as error:  # noqa: BLE001 - raised to the waiting callers
                # One batch may be the cause: do not fail the others with it.
                await self._store_each(batches, error)
            else:
                for batch in batches:
                    if not batch.stored.done():
                        batch.stored.set_result(None)
            try:
                async with asyncio.timeout(self._pause_seconds):
                    await self._enough.wait()
            except TimeoutError:
                continue

    async def _store_each(self, batches: Sequence[_Batch], error: Exception) -> None:
        if len(batches) == 1:
            self._fail(batches, error)
            return
        failed: set[str] = set()
        for number, batch in enumerate(batches):
            runners = {entry.runner_id for entry in batch.entries}
            try:
                if failed & runners:
                    raise error
                await self._store(batch.entries)
            except Fault as fault:
                self._fail(batches[number:], fault)
                return
            except Exception as own:  # noqa: BLE001 - raised to the waiting callers
                failed |= runners
                self._fail([batch], own)
            else:
                if not batch.stored.done():
                    batch.stored.set_result(None)

    def _fail(self, batches: Sequence[_Batch], error: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        self._count(-self._lines)
        for batch in (*batches, *waiting):
            if not batch.stored.done():
                batch.stored.set_exception(error)

    def _next(self) -> list[_Batch]:
        """Take as many waiting batches as one transaction holds, at least one."""
        lines, count = 0, 0
        for batch in self._waiting:
            lines += len(batch.entries)
            if count and lines > _MOST_LINES:
                break
            count += 1
        batches, self._waiting = self._waiting[:count], self._waiting[count:]
        self._count(-sum(len(batch.entries) for batch in batches))
        return batches

    def _count(self, lines: int) -> None:
        self._lines += lines
        (self._enough.set if self._lines >= _ENOUGH_LINES else self._enough.clear)()
