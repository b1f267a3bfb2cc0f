"""Generates the ids of requests."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import Final

_BATCH: Final = 256
_RANDOM_DIGITS: Final = 12


class RequestIds:
    """Generates ids in the form of version 4 UUIDs, in order.

    An id begins with the second of its batch and a count, so that the rows of neighbors share pages of an index; random
    ids change a page each. The count and 48 random bits make both halves differ, which are ids of spans. They only
    identify requests, so they need not be unguessable.

    Args:
        seconds: returns the time since 1970.
    """

    __slots__ = ("_at", "_count", "_hex", "_middle", "_second", "_seconds")

    def __init__(self, seconds: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._second = self._middle = self._hex = ""
        self._at = self._count = 0

    def next(self) -> str:
        """Return a new id."""
        at = self._at
        if at >= len(self._hex):
            self._second = f"{int(self._seconds()) & 0xFFFFFFFF:08x}"
            self._middle = str(uuid.UUID(bytes=os.urandom(16), version=4))[13:24]
            self._hex = os.urandom(_RANDOM_DIGITS // 2 * _BATCH).hex()
            at = 0
        self._at = end = at + _RANDOM_DIGITS
        self._count = count = (self._count + 1) & 0xFFFF
        return f"{self._second}-{count:04x}{self._middle}{self._hex[at:end]}"
