"""Long loops yield to other tasks."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from fal_server.aio.slices import SLICE_SECONDS, in_slices


async def test_others_run_between_two_slices_which_are_bounded_by_time() -> None:
    turns: list[float] = []
    clock = [0.0]

    async def other() -> None:
        while True:
            turns.append(clock[0])
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    seen: list[int] = []
    async for number in in_slices(range(1000), clock=lambda: clock[0]):
        seen.append(number)
        clock[0] += SLICE_SECONDS / (50 if number < 500 else 2)  # the time spent on an item counts
    task.cancel()
    assert seen == list(range(1000))
    assert len(turns) > 100
    assert max(later - earlier for earlier, later in pairwise(turns)) <= SLICE_SECONDS * 1.5
