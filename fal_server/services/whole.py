"""Work that a caller who leaves in its middle must not leave half done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")

_under_way: set[asyncio.Task[object]] = set()


async def whole(work: Coroutine[object, None, T]) -> T:
    """Run `work` to its end, also where the caller is cancelled meanwhile (the caller then learns nothing of it).

    A change is written to the store first and to memory second; a hang-up between the two would part them.
    """
    task = asyncio.get_running_loop().create_task(work)
    _under_way.add(task)
    task.add_done_callback(_done)
    return await asyncio.shield(task)


def _done(task: asyncio.Task[object]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # whoever was there has got it; it must not be reported as lost
