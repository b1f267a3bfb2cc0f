"""Measure baselines for benchmarks/logs.py. They are the store alone, and many runners that print single lines."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.services.logs import Logs
from fal_server.store import AesVault, open_store

_RUNNERS = 50
_LINES_EACH = 40


class _Clock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def wall(self) -> datetime:
        return self.now()


def _lines(runner: int, first: int, count: int, width: int) -> list[LogEntry]:
    now = datetime.now(UTC)
    return [
        LogEntry(
            account=LOCAL,
            runner_id=f"3f0c1c52-7d8e-4d52-9f2e-{runner:012}",
            sequence=number,
            timestamp=now,
            level=LogLevel.INFO,
            source=LogSource.STDOUT,
            message=f"{number:0{width}}",
            app_name="bench",
            revision_id="8a1f2f0e-6f7b-4b30-a9e8-5a4f6f0f6a11",
        )
        for number in range(first, first + count)
    ]


def store_lines_per_second(count: int, batch: int, width: int) -> float:
    """Measure how many ready lines the store alone makes durable."""

    async def measure() -> float:
        with tempfile.TemporaryDirectory() as place:
            store = await open_store(Path(place) / "db", AesVault(bytes(32)))
            batches = [_lines(0, first, batch, width) for first in range(1, count + 1, batch)]
            started = time.perf_counter()
            for entries in batches:
                await store.logs.append(entries)
            rate = len(batches) * batch / (time.perf_counter() - started)
            await store.close()
            return rate

    return asyncio.run(measure())


def cost_of_little() -> tuple[float, float]:
    """Measure a line's CPU microseconds, batched and one by one. Many runners print single lines."""

    async def measure() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as place:
            store = await open_store(Path(place) / "db", AesVault(bytes(32)))
            logs = Logs(store.logs, store, _Clock())
            together = await _cost(logs.ingest, 0)
            alone = await _cost(store.logs.append, _RUNNERS)
            await store.close()
            return together, alone

    return asyncio.run(measure())


async def _cost(keep: Callable[[Sequence[LogEntry]], Awaitable[None]], first_runner: int) -> float:
    async def runner(number: int) -> None:
        for sequence in itertools.islice(itertools.count(1), _LINES_EACH):
            await keep(_lines(number, sequence, 1, 100))

    started = time.process_time()
    async with asyncio.TaskGroup() as group:
        for number in range(_RUNNERS):
            group.create_task(runner(first_runner + number))
    return (time.process_time() - started) / (_RUNNERS * _LINES_EACH) * 1e6
