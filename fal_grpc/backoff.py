"""Computes the pauses between attempts: exponential backoff with a cap and jitter. Standard library only."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Pauses that grow with the number of failures, up to a cap.

    Jitter shortens each pause at random, so that clients that lost one server do not all return at the same time.

    Attributes:
        first_seconds: the pause after the first failure, before jitter.
        longest_seconds: the longest pause, before jitter.
        factor: the ratio of each pause to the one before; at least 1.
        jitter: the part of a pause that is random, from 0 (none) to 1 (all of it).
        rng: returns a number from 0 up to, not including, 1; tests and pure code pass their own.

    Raises:
        ValueError: a number is out of its range.
    """

    first_seconds: float
    longest_seconds: float
    factor: float = 2.0
    jitter: float = 0.5
    rng: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not 0 < self.first_seconds <= self.longest_seconds or self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ValueError(f"no such backoff: {self}")

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after consecutive failures; 0 after none."""
        if failures <= 0:
            return 0.0
        steps = failures - 1
        # Compare logarithms, because a power of many failures does not fit into a float.
        capped = steps * math.log(self.factor) >= math.log(self.longest_seconds / self.first_seconds)
        seconds = self.longest_seconds if capped else self.first_seconds * self.factor**steps
        return seconds * (1 - self.jitter * self.rng())
