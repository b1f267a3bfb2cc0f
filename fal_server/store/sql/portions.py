"""Splits rows into portions, each of which one statement inserts into SQLite.

The driver releases the interpreter's lock for each step of a statement and takes it again. With a statement for each
row that is a switch of threads for each row while the event loop is busy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
SIZES: Final = (256, 64, 16, 4, 1)
"""The sizes of portions: only a few, so that SQLite keeps the statements prepared."""


def portions(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield all rows in order."""
    start = 0
    for size in SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size
