"""The jobs of both sides of `queue_peers`.

This imports the standard library alone, because it runs in two environments."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

BODY = "x" * 200
# How many jobs each side runs at once, and how many connections it keeps.
CONCURRENCY, CONNECTIONS = 32, 10
# With faults: how long a job takes, and how many run at once.
JOB_SECONDS, SLOTS = 0.02, 8


async def measured(submit: Callable[[], Awaitable[asyncio.Event]], *, jobs: int, at_once: int) -> None:
    """Print figures as a line of JSON.

    First `at_once` producers submit jobs without waiting, which gives rates; then each waits for the end of its job
    before it submits another, which gives times.

    Args:
        submit: submits a job durably; returns an event that is set when its end is stored.
    """
    for _ in range(2 * at_once):
        await (await submit()).wait()  # warm up connections, statements and caches
    started, cpu = time.perf_counter(), time.process_time()
    accepted: list[asyncio.Event] = []

    async def hand_in(count: int) -> None:
        accepted.extend([await submit() for _ in range(count)])

    await asyncio.gather(*(hand_in(jobs // at_once) for _ in range(at_once)))
    all_accepted = time.perf_counter() - started
    for ended in accepted:
        await ended.wait()
    all_completed, cpu = time.perf_counter() - started, time.process_time() - cpu
    took: list[float] = []

    async def wait_for_each(count: int) -> None:
        for _ in range(count):
            handed_in = time.perf_counter()
            await (await submit()).wait()
            took.append(time.perf_counter() - handed_in)

    await asyncio.gather(*(wait_for_each(jobs // at_once) for _ in range(at_once)))
    took.sort()
    print(
        json.dumps(
            {
                "jobs": len(accepted),
                "accepted": len(accepted) / all_accepted,
                "completed": len(accepted) / all_completed,
                "cpu": cpu / len(accepted) * 1000,
                "p50": took[len(took) // 2] * 1000,
                "p99": took[len(took) * 99 // 100] * 1000,
            }
        ),
        flush=True,
    )
