"""Chooses faults. Each is drawn once before any is drawn again."""

from __future__ import annotations

import random


class Deck:
    """Names in shuffled order, shuffled again after all were drawn."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._left: list[str] = []

    def draw(self, chance: random.Random) -> str:
        """Take the next name."""
        if not self._left:
            self._left = chance.sample(self._names, len(self._names))
        return self._left.pop()

    def put_back(self, name: str) -> None:
        """Put a name back behind the others, because it had no effect."""
        self._left.insert(0, name)
