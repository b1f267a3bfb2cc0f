"""Calls a function for several items concurrently, in threads or in tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def for_each(function: Callable[[T], object], items: Iterable[T], *, at_once: int) -> None:
    """Call a function for each item, at most `at_once` at a time. Raise the first error."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=at_once) as pool:
        list(pool.map(function, items))


async def async_for_each(function: Callable[[T], Awaitable[object]], items: Iterable[T], *, at_once: int) -> None:
    """`for_each` for asyncio."""
    import asyncio

    limit = asyncio.Semaphore(at_once)

    async def call(item: T) -> None:
        async with limit:
            await function(item)

    tasks = [asyncio.ensure_future(call(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
