"""Long loops give others their turn."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from fal_server.aio.slices import in_slices


async def test_others_run_between_two_slices() -> None:
    turns: list[int] = []
    seen: list[int] = []

    async def other() -> None:
        while True:
            turns.append(len(seen))
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async for number in in_slices(range(1000)):
        seen.append(number)  # noqa: PERF401 - the other task looks at it meanwhile
    task.cancel()
    assert seen == list(range(1000))
    assert len(turns) >= 4
    assert max(later - earlier for earlier, later in pairwise(turns)) <= 200
