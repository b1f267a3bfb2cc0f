"""Generates the ids of requests."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import Final

_BATCH: Final = 256


class RequestIds:
    """Generates ids in the form of version 4 UUIDs, in order.

    An id begins with the second of its batch and a count, so that the rows of neighbors share pages of an index; random
    ids change a page each. The count and 48 random bits make both halves differ, which are ids of spans. They only
    identify requests, so they need not be unguessable.

    Args:
        seconds: returns the time since 1970.
    """

    __slots__ = ("_count", "_left", "_seconds")

    def __init__(self, seconds: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._count = 0
        self._left: list[str] = []

    def next(self) -> str:
        """Return a new id."""
        if not self._left:
            self._make()
        return self._left.pop()

    def _make(self) -> None:
        """Make the ids of a batch, the next one last."""
        second = f"{int(self._seconds()) & 0xFFFFFFFF:08x}"
        middle = str(uuid.UUID(bytes=os.urandom(16), version=4))[13:24]
        digits = os.urandom(6 * _BATCH).hex()
        first, self._count = self._count, self._count + _BATCH
        self._left = [
            f"{second}-{first + number & 0xFFFF:04x}{middle}{digits[12 * number : 12 * number + 12]}"
            for number in reversed(range(_BATCH))
        ]
