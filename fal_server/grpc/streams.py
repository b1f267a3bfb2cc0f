"""Streams of responses. They close their source at the end, and split long lists into messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from fal_server.live.feed import Changes

T = TypeVar("T")
# A message of this many rows takes a millisecond or two, during which the event loop does nothing else, and stays far
# below the 4 MB that clients accept by default.
_MOST_ROWS = 100


@asynccontextmanager
async def closing(iterator: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T]]:
    """Close the iterator at the end. A build, a run or a session ends with it."""
    try:
        yield iterator
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


def pages(changes: Changes[T]) -> Iterator[Changes[T]]:
    """Split changes into messages. Only the last has the version, and the first says whether it is a snapshot."""
    last = max(0, len(changes.rows) - 1) // _MOST_ROWS
    for number in range(last + 1):
        yield replace(
            changes,
            snapshot=changes.snapshot and number == 0,
            rows=changes.rows[number * _MOST_ROWS : (number + 1) * _MOST_ROWS],
            removed=changes.removed if number == last else (),
            version=changes.version if number == last else "",
        )
