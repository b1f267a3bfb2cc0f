"""Chooses faults so that each comes once before any comes again."""

from __future__ import annotations

import random


class Deck:
    """Names in the order of a shuffle, and shuffled again when all were drawn."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._left: list[str] = []

    def draw(self, chance: random.Random) -> str:
        """Take the next name."""
        if not self._left:
            self._left = chance.sample(self._names, len(self._names))
        return self._left.pop()

    def put_back(self, name: str) -> None:
        """Have a name come again soon, after the others, because nothing came of it."""
        self._left.insert(0, name)
