"""Measure the list of runners after a busy day: 1, 10 and 100 thousand that ended.

The store is a SQLite file. It prints the CPU time of the whole list and of its newest hundred, and the longest time for
which the event loop did nothing else.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from fal_server.core.identity import LOCAL
from fal_server.core.runners import RunnerState
from fal_server.store import AesVault, SqlStore, open_store
from tests.fakes.domain import at, make_runner
from tests.fakes.platform import KEY

COUNTS = (1_000, 10_000, 100_000)
NEWEST = 100
_TOGETHER = 1_000


@asynccontextmanager
async def holds() -> AsyncGenerator[list[float]]:
    """Collect the CPU times of the event loop's rounds, in milliseconds."""
    found: list[float] = []

    async def watch() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            found.append((time.thread_time() - before) * 1000)

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def fill(store: SqlStore, count: int) -> None:
    """Store runners, of which one ended each second."""
    ended = replace(make_runner(), state=RunnerState.TERMINATED)
    for first in range(0, count, _TOGETHER):
        numbers = range(first, min(count, first + _TOGETHER))
        await store.save_runners(
            [replace(ended, runner_id=f"r{n:06}", created_at=at(n), ended_at=at(n)) for n in numbers]
        )


async def show(store: SqlStore, since: datetime, expected: int, of: int) -> None:
    """List once, and print what it took."""
    async with holds() as found:
        started = time.process_time()
        listed = await store.list_runners(LOCAL, since)
        seconds = time.process_time() - started
    assert len(listed) == expected, len(listed)
    found.sort()
    high = found[int(len(found) * 0.99)]
    print(
        f"list {expected:7,} of {of:7,} ended runners  {seconds:7.3f} s CPU  event loop held {high:.1f} ms (99th "
        f"percentile), {found[-1]:.1f} ms (most)",
        flush=True,
    )


async def measure(directory: Path) -> None:
    """Print the figures."""
    for count in COUNTS:
        store = await open_store(directory / f"{count}.db", AesVault(KEY))
        await fill(store, count)
        await show(store, at(0), count, count)
        await show(store, at(count - NEWEST), NEWEST, count)
        await store.close()


def main() -> None:
    """Measure in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(Path(directory)))


if __name__ == "__main__":
    main()
