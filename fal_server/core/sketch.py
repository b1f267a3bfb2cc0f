"""A mergeable sketch of durations. Merging the parts of a span gives the quantiles of the whole."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

RELATIVE_ERROR = 0.01
"""The largest relative difference between a quantile and the duration at its rank."""
LEAST_SECONDS = 1e-6
"""Shorter durations count as this."""
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / math.log(_GAMMA)


@dataclass(slots=True)
class DurationSketch:
    """Counts durations in buckets whose bounds grow by a fixed factor. So each has the same relative error.

    Attributes:
        counts: the number of durations in each bucket, by its number.
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
        # Without max(): every request is counted three times, and a call takes as long as the logarithm.
        bucket = math.ceil(math.log(max(LEAST_SECONDS, seconds)) * _PER_LOG)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        if seconds > 0:
            self.seconds += seconds

    def merge(self, other: DurationSketch) -> None:
        """Add another sketch's counts."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.seconds += other.seconds

    def quantile(self, share: float) -> float | None:
        """Return the duration that this share of all does not exceed. It is in seconds; None if there are none.

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
        """Return the number of durations at or below each bound, in seconds. A bound's own bucket does not count."""
        return [
            sum(count for bucket, count in self.counts.items() if _GAMMA**bucket <= bound * (1 + 1e-9))
            for bound in bounds
        ]
