"""The queue of one app's waiting requests. It is normal before low, fair between callers, and oldest first."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from fal_server.core.queue import Priority

_Rank: TypeAlias = "tuple[int, int]"
_ORDER = (Priority.NORMAL, Priority.LOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """The queue's data about a waiting request.

    Attributes:
        number: counts accepted requests; a retried request keeps its number, and so its position.
    """

    request_id: str
    number: int
    caller: str | None
    priority: Priority
    created_at: datetime
    not_before: datetime | None = None
    start_deadline: datetime | None = None


class FairQueue:
    """Picks the next request. Callers take turns: the one served last goes behind all others.

    A resting request (`not_before`) counts, but is not picked before that time.
    """

    def __init__(self) -> None:
        self._entries: dict[str, QueueEntry] = {}
        self._ids: dict[int, str] = {}
        # priority -> caller -> numbers, lowest first.
        self._lanes: dict[Priority, dict[str | None, list[int]]] = {p: {} for p in _ORDER}
        self._served: dict[Priority, dict[str | None, int]] = {p: {} for p in _ORDER}
        self._turn = 0
        self._resting: list[tuple[datetime, str]] = []
        self._deadlines: list[tuple[datetime, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._entries

    def __iter__(self) -> Iterator[QueueEntry]:
        return iter(self._entries.values())

    def add(self, entry: QueueEntry, now: datetime) -> None:
        """Add or replace a request."""
        self.remove(entry.request_id)
        self._entries[entry.request_id] = entry
        self._ids[entry.number] = entry.request_id
        if entry.start_deadline is not None:
            heapq.heappush(self._deadlines, (entry.start_deadline, entry.request_id))
        if entry.not_before is not None and entry.not_before > now:
            heapq.heappush(self._resting, (entry.not_before, entry.request_id))
        else:
            insort(self._lanes[entry.priority].setdefault(entry.caller, []), entry.number)

    def remove(self, request_id: str) -> QueueEntry | None:
        """Remove and return a request. None if it is not in the queue."""
        entry = self._entries.pop(request_id, None)
        if entry is None:
            return None
        del self._ids[entry.number]
        lanes = self._lanes[entry.priority]
        numbers = lanes.get(entry.caller, [])
        at = bisect_left(numbers, entry.number)
        if at < len(numbers) and numbers[at] == entry.number:
            del numbers[at]
            if not numbers:
                del lanes[entry.caller]
        # Its items in the heaps are skipped when they reach the top.
        if not self._entries:
            self._resting.clear()
            self._deadlines.clear()
            for served in self._served.values():
                served.clear()
        return entry

    def take(self, now: datetime) -> QueueEntry | None:
        """Remove and return the next request. None if there is none, or if all rest."""
        self._wake(now)
        for priority in _ORDER:
            lanes = self._lanes[priority]
            if lanes:
                caller = min(lanes, key=lambda who: self._rank(priority, who, lanes[who][0]))
                self._turn += 1
                self._served[priority][caller] = self._turn
                return self.remove(self._ids[lanes[caller][0]])
        return None

    def overdue(self, now: datetime) -> list[QueueEntry]:
        """Remove and return the requests whose start deadline has passed."""
        found: list[QueueEntry] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, request_id = heapq.heappop(self._deadlines)
            entry = self._entries.get(request_id)
            if entry is not None and entry.start_deadline == deadline:
                self.remove(request_id)
                found.append(entry)
        return found

    def next_change_at(self) -> datetime | None:
        """Return when the next rest ends or deadline passes. None if there is neither."""
        return min((heap[0][0] for heap in (self._resting, self._deadlines) if heap), default=None)

    def position(self, request_id: str) -> int:
        """Return how many requests are ahead of this one. It is 0 if this one is not in the queue.

        For each other caller, as many requests are ahead as this caller has before this one, and one more if that
        caller's turn comes first.
        """
        entry = self._entries.get(request_id)
        if entry is None:
            return 0
        lanes = self._lanes[entry.priority]
        own = bisect_left(lanes.get(entry.caller, []), entry.number)
        mine = self._rank(entry.priority, entry.caller, (lanes.get(entry.caller) or [entry.number])[0])
        ahead = own
        if entry.priority is Priority.LOW:
            ahead += sum(len(numbers) for numbers in self._lanes[Priority.NORMAL].values())
        for caller, numbers in lanes.items():
            if caller != entry.caller:
                first = self._rank(entry.priority, caller, numbers[0]) < mine
                ahead += min(len(numbers), own + 1 if first else own)
        return ahead

    def eligible(self, created_before: datetime) -> int:
        """Return how many were created at or before a time."""
        return sum(entry.created_at <= created_before for entry in self._entries.values())

    def _rank(self, priority: Priority, caller: str | None, first: int) -> _Rank:
        """Rank a caller: served longest ago first. Callers never served rank by their first request's number."""
        return self._served[priority].get(caller, 0), first

    def _wake(self, now: datetime) -> None:
        """Move requests whose rest has ended to their lanes."""
        while self._resting and self._resting[0][0] <= now:
            not_before, request_id = heapq.heappop(self._resting)
            entry = self._entries.get(request_id)
            if entry is not None and entry.not_before == not_before:
                numbers = self._lanes[entry.priority].setdefault(entry.caller, [])
                at = bisect_left(numbers, entry.number)
                if at == len(numbers) or numbers[at] != entry.number:
                    numbers.insert(at, entry.number)
