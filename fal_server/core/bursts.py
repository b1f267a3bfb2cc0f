"""Decides how many prewarmed workers each environment gets. Its recent bursts of starts determine this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The demand of an environment's recent starts.

    Attributes:
        workers: the most workers that were needed at once.
        mib: the memory of one; None until one has been measured, and then one worker is enough.
    """

    workers: int
    mib: float | None


def largest_burst(starts: Sequence[float], within_seconds: float) -> int:
    """Return the most starts that came faster than workers could be replaced.

    Args:
        starts: their times in seconds, in order.
        within_seconds: how long it takes until the next worker is ready.
    """
    most = first = 0
    for last, at in enumerate(starts):
        while at - starts[first] > within_seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def shares(wishes: Mapping[K, Wish], budget_mib: float) -> dict[K, int]:
    """Return each environment's number of workers. It is one, and more if needed and the budget allows.

    Args:
        wishes: ordered by last use; the most recent one is served first.
        budget_mib: the memory for workers beyond one per environment.
    """
    given = dict.fromkeys(wishes, 1)
    for key, wish in reversed(list(wishes.items())):
        if wish.mib is not None and wish.workers > 1:
            more = min(wish.workers - 1, int(max(0.0, budget_mib) / max(1.0, wish.mib)))
            given[key] += more
            budget_mib -= more * wish.mib
    return given
