"""Writes transactions in groups. Those that arrive during a write form the next group, and share its commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.aio.tasks import TaskSet
from fal_server.core.sketch import DurationSketch

T = TypeVar("T")
Work: TypeAlias = "Callable[[AsyncConnection], Awaitable[T]]"
# The first of a group waits for the last, so a group is limited.
_MOST = 100


class WorkFailed(Exception):
    """A part of a group raised, so its transaction was rolled back.

    Attributes:
        error: its exception.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True, eq=False)
class _Waiting:
    work: Work[object]
    done: asyncio.Future[object]


class GroupedWrites:
    """Writes one group after another; callers get their result after the commit.

    If a part raises, the group is rolled back and each part is written alone, so that it affects no other. A part may
    therefore run twice: it must change nothing but the database.

    Args:
        transact: runs parts in one transaction, and returns each part's result. It raises WorkFailed if one of them
            raised, and anything else if the transaction could not begin or be committed.
        tasks: run the writes.

    Attributes:
        durations: how long groups took to write.
    """

    def __init__(
        self, transact: Callable[[Sequence[Work[object]]], Awaitable[Sequence[object]]], tasks: TaskSet
    ) -> None:
        self._transact = transact
        self._tasks = tasks
        self.durations = DurationSketch()
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def run(self, work: Work[T]) -> T:
        """Write one part durably; if this raises, nothing is changed."""
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(work, done))
        if self._writing is None or self._writing.done():
            self._writing = self._tasks.spawn(self._write_all())
        return cast("T", await done)

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            started = time.monotonic()
            await self._write(group)
            self.durations.add(time.monotonic() - started)

    async def _write(self, group: Sequence[_Waiting]) -> None:
        try:
            results = await self._transact([one.work for one in group])
        except WorkFailed as failed:
            if len(group) == 1:
                _fail(group, failed.error)
                return
            for one in group:
                await self._write([one])
        except Exception as error:  # noqa: BLE001 - raised to those who wait
            _fail(group, error)
        else:
            for one, result in zip(group, results, strict=True):
                if not one.done.done():
                    one.done.set_result(result)


def _fail(group: Sequence[_Waiting], error: Exception) -> None:
    for one in group:
        if not one.done.done():
            one.done.set_exception(error)


async def run_each(works: Sequence[Work[object]], connection: AsyncConnection) -> list[object]:
    """Run the parts of a group in order. Return each part's result.

    Raises:
        WorkFailed: one raised; the rest did not run.
    """
    results: list[object] = []
    for work in works:
        try:
            results.append(await work(connection))
        except Exception as error:
            raise WorkFailed(error) from error
    return results
