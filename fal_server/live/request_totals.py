"""How many requests ended since the controller's start, and last minute."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fal_server.core.identity import AccountId
from fal_server.core.requests import RequestStats
from fal_server.core.sketch import DurationSketch

WINDOW = timedelta(minutes=1)


@dataclass(slots=True)
class AppTotals:
    """Statistics of an app's requests; mutable, because they grow with each request.

    Owned: by the process that answered them.

    Attributes:
        ended: the number that ended, by method and status code; 0 stands for callers who left.
        durations: from arrival to end.
        waits: the waiting times for a runner.
        cold_starts: how many waited for a runner to start.
    """

    ended: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    durations: DurationSketch = field(default_factory=DurationSketch)
    waits: DurationSketch = field(default_factory=DurationSketch)
    cold_starts: int = 0

    def add(self, minute: RequestStats) -> None:
        """Add the statistics of requests, without `ended`."""
        self.durations.merge(minute.total)
        self.waits.merge(minute.wait)
        self.cold_starts += minute.cold.count

    def merge(self, other: AppTotals) -> None:
        """Add other statistics."""
        self.ended.update(other.ended)
        self.durations.merge(other.durations)
        self.waits.merge(other.waits)
        self.cold_starts += other.cold_starts


class RequestTotals:
    """Counts ended requests by app.

    Owned: by the process that answered them. Counters start at 0 with each controller, as Prometheus expects.
    """

    def __init__(self) -> None:
        self._all: dict[tuple[AccountId, str], AppTotals] = {}
        self._recent: deque[tuple[datetime, dict[tuple[AccountId, str], AppTotals]]] = deque()

    def add(self, totals: dict[tuple[AccountId, str], AppTotals], at: datetime) -> None:
        """Count requests that ended just before a time."""
        for key, numbers in totals.items():
            self._all.setdefault(key, AppTotals()).merge(numbers)
        self._recent.append((at, totals))
        self._prune(at)

    def of_account(self, account: AccountId) -> dict[str, AppTotals]:
        """Return the statistics of an account's apps since the controller started."""
        return {app: numbers for (owner, app), numbers in sorted(self._all.items()) if owner == account}

    def last_minute(self, account: AccountId, now: datetime) -> dict[str, AppTotals]:
        """Return statistics of an account's apps in the minute before a time."""
        self._prune(now)
        found: dict[str, AppTotals] = {}
        for _, totals in self._recent:
            for (owner, app), numbers in totals.items():
                if owner == account:
                    found.setdefault(app, AppTotals()).merge(numbers)
        return dict(sorted(found.items()))

    def _prune(self, now: datetime) -> None:
        while self._recent and self._recent[0][0] <= now - WINDOW:
            self._recent.popleft()
