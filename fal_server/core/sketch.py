"""A mergeable sketch of durations: quantiles over any span come from the sums of its parts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

RELATIVE_ERROR = 0.01
"""How far a quantile may be from a duration that was added at its rank, as a share of it."""
LEAST_SECONDS = 1e-6
"""What is shorter counts as this."""
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / math.log(_GAMMA)


@dataclass(slots=True)
class DurationSketch:
    """Counts durations in buckets whose bounds grow by a fixed factor, so that each has the same relative error.

    Attributes:
        counts: how many durations each bucket has, by its number.
        seconds: the sum of all durations.
    """

    counts: dict[int, int] = field(default_factory=dict[int, int])
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """How many durations were added."""
        return sum(self.counts.values())

    def add(self, seconds: float) -> None:
        """Count one duration."""
        bucket = math.ceil(math.log(max(seconds, LEAST_SECONDS)) * _PER_LOG)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.seconds += max(seconds, 0.0)

    def merge(self, other: DurationSketch) -> None:
        """Count what another sketch has."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.seconds += other.seconds

    def quantile(self, share: float) -> float | None:
        """Return the duration that this share of all does not exceed, in seconds; None if there is none.

        Args:
            share: from 0, the shortest, to 1, the longest.
        """
        left = max(1, math.ceil(share * self.count))
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return 2 * _GAMMA**bucket / (_GAMMA + 1)
        return None

    def up_to(self, bounds: Iterable[float]) -> list[int]:
        """Return how many durations are not above each bound, in seconds; a bound inside a bucket leaves it out."""
        return [
            sum(count for bucket, count in self.counts.items() if _GAMMA**bucket <= bound * (1 + 1e-9))
            for bound in bounds
        ]
