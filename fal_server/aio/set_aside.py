"""Skips items for a while after they fail unexpectedly. So they do not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from fal_grpc.backoff import Backoff

Key = TypeVar("Key", bound=Hashable)
_PAUSES = Backoff(first_seconds=1.0, longest_seconds=60.0)


class SetAside(Generic[Key]):
    """Records items' failures in a row, and until when to skip them.

    Args:
        now: returns the current time.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._items: dict[Key, tuple[int, datetime]] = {}

    def __contains__(self, key: Key) -> bool:
        known = self._items.get(key)
        return known is not None and self._now() < known[1]

    def add(self, key: Key) -> float:
        """Count one more failure. Return for how many seconds to skip the item."""
        failures = self._items.get(key, (0, None))[0] + 1
        seconds = _PAUSES.pause(failures)
        self._items[key] = failures, self._now() + timedelta(seconds=seconds)
        return seconds

    def keep_only(self, keys: Collection[Key]) -> None:
        """Drop all other items."""
        for gone in self._items.keys() - set(keys):
            del self._items[gone]

    def remove(self, key: Key) -> None:
        """Reset the failures of an item that succeeded or is gone."""
        self._items.pop(key, None)
