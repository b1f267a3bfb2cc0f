"""Measure choosing a runner for a request and freeing the slot. One app has 10 to 10,000 runners.

Half of the runners already have a request. The baseline is a look at each runner.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fal_server.core.routing import Outcome
from fal_server.core.runners import RunnerState
from tests.fakes.domain import app_id, make_runner
from tests.fakes.platform import Platform, opened

RUNNERS = (10, 100, 1_000, 10_000)
REQUESTS = 2_000
ROUNDS = 7


def microseconds(work: Callable[[], object], times: int) -> float:
    """Return the least CPU time of one call."""
    found: list[float] = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(times):
            work()
        found.append((time.process_time() - started) / times * 1e6)
    return min(found)


async def measured(runners: int) -> tuple[float, float]:
    """Return the microseconds of a request's slot. Return those of a look at each runner, too."""
    with tempfile.TemporaryDirectory() as directory:
        async with opened(Path(directory)) as platform:
            scaling = {"max_concurrency": 10_000, "max_multiplexing": 2}
            revision_id = (await platform.deploy("a", scaling=scaling)).revision_id
            await platform.fleet.add(
                [
                    make_runner(f"x{number:05}", RunnerState.IDLE, revision_id=revision_id, port=1000)
                    for number in range(runners)
                ]
            )
            for _ in range(runners // 2):
                place(platform)
            looks = max(1, REQUESTS // runners)
            return (
                microseconds(lambda: place(platform)(), REQUESTS),
                microseconds(lambda: sum(slot.in_flight < 2 for slot in platform.fleet.slots(app_id())), looks),
            )


def place(platform: Platform) -> Callable[[], None]:
    """Give a request a slot; return the function that frees it."""
    lease = platform.dispatcher.try_acquire(app_id(), request_id="q", caller=None, hint=None)
    assert lease is not None
    return lambda: platform.dispatcher.release(lease, Outcome.DONE)


def main() -> None:
    """Print the figures."""
    print(f"{'runners':>8}  {'us of CPU a request':>20}  {'a look at each':>16}")
    for runners in RUNNERS:
        request, looks = asyncio.run(measured(runners))
        print(f"{runners:8,}  {request:20.2f}  {looks:16.2f}")


if __name__ == "__main__":
    main()
