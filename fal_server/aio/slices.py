"""Long loops in slices, so that the event loop serves others in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import TypeVar

T = TypeVar("T")
_SLICE = 200


async def in_slices(items: Iterable[T]) -> AsyncGenerator[T]:
    """Yield the items; let other tasks run after some hundred."""
    for number, item in enumerate(items, 1):
        yield item
        if not number % _SLICE:
            await asyncio.sleep(0)
