"""Measure requests of the queue, beside inserts into bare SQLite.

The store is a SQLite file, the runner answers at once, and nothing uses HTTP. Bare SQLite inserts one row in each
transaction. Both sync each commit. The table has rates and the CPU time of a request, with 1 and with 32 at once, and
the rate of acceptance alone.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import tempfile
import time
from itertools import chain
from pathlib import Path

from fal_server.core.identity import LOCAL
from fal_server.services.environments import Environments
from fal_server.store import AesVault, open_store
from fal_server.store.sql.dialect import set_pragmas
from tests.fakes.platform import KEY, Platform, running
from tests.fakes.queueing import Queueing, queueing

REQUESTS = 600
AT_ONCE = (1, 32)


def alone(directory: Path) -> tuple[float, float]:
    """Return rows a second, and a row's CPU milliseconds, of bare SQLite."""
    connection = sqlite3.connect(directory / "alone.db", isolation_level=None)
    set_pragmas(connection)
    connection.execute("CREATE TABLE requests (id TEXT PRIMARY KEY, body BLOB)")
    started, cpu = time.perf_counter(), time.process_time()
    for number in range(REQUESTS):
        connection.execute("INSERT INTO requests VALUES (?, ?)", (str(number), b"x" * 200))
    found = REQUESTS / (time.perf_counter() - started), (time.process_time() - cpu) / REQUESTS * 1000
    connection.close()
    return found


async def requests(q: Queueing, at_once: int) -> tuple[float, float]:
    """Return requests a second, and the CPU milliseconds of a request."""
    turns = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with turns:
            await q.queue.finished(await q.submit())

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(REQUESTS)))
    return REQUESTS / (time.perf_counter() - started), (time.process_time() - cpu) / REQUESTS * 1000


async def accepted(q: Queueing, at_once: int) -> float:
    """Return how many requests are accepted a second. Nobody waits for their ends."""

    async def some() -> list[str]:
        return [await q.submit() for _ in range(REQUESTS // at_once)]

    started = time.perf_counter()
    made = await asyncio.gather(*(some() for _ in range(at_once)))
    rate = sum(map(len, made)) / (time.perf_counter() - started)
    for request_id in chain(*made):
        await q.queue.finished(request_id)
    return rate


async def measure(directory: Path) -> None:
    """Print both side by side."""
    rows, row_cpu = alone(directory)
    print(f"  {'SQLite alone':24} {rows:8.0f}/s  {row_cpu:6.2f} ms of CPU a row")
    store = await open_store(directory / "fal.db", AesVault(KEY))
    try:
        platform = Platform(store, directory)
        await Environments(store, platform.clock).bootstrap(LOCAL)
        async with running(platform):
            await platform.deploy("a", scaling={"max_concurrency": 1, "min_concurrency": 1, "max_multiplexing": 64})
            async with queueing(platform) as q:
                await q.completed(await q.submit())
                for at_once in AT_ONCE:
                    rate, cpu = await requests(q, at_once)
                    print(f"  {f'queue, {at_once} at once':24} {rate:8.0f}/s  {cpu:6.2f} ms of CPU a request", end="")
                    print(f"  {rate / rows:5.2f} of SQLite alone")
                print(f"  {f'accepted, {AT_ONCE[-1]} at once':24} {await accepted(q, AT_ONCE[-1]):8.0f}/s")
    finally:
        await store.close()


def main() -> None:
    """Run the benchmark."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(Path(directory)))


if __name__ == "__main__":
    main()
