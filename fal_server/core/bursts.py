"""Decide how many workers wait for the next runners of each environment, by what recent bursts called for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an environment's recent starts call for.

    Attributes:
        workers: how many would have been taken at once.
        mib: the memory of one; None as long as none has been measured, and then one is enough.
    """

    workers: int
    mib: float | None


def largest_burst(starts: Sequence[float], within_seconds: float) -> int:
    """Return the most starts that came so fast that no worker could take the place of one that was taken.

    Args:
        starts: their times in seconds, in order.
        within_seconds: how long it takes until the next worker waits.
    """
    most = first = 0
    for last, at in enumerate(starts):
        while at - starts[first] > within_seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def shares(wishes: Mapping[K, Wish], budget_mib: float) -> dict[K, int]:
    """Return how many workers wait for each: one, and as many more as it calls for and the budget has room for.

    Args:
        wishes: in the order of their last use; the last one is served first.
        budget_mib: the memory for what is more than one for each.
    """
    given = dict.fromkeys(wishes, 1)
    for key, wish in reversed(list(wishes.items())):
        if wish.mib is not None and wish.workers > 1:
            more = min(wish.workers - 1, int(max(0.0, budget_mib) / max(1.0, wish.mib)))
            given[key] += more
            budget_mib -= more * wish.mib
    return given
