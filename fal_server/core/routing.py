"""Chooses the runner for a request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush
from itertools import count

from fal_server.core.addresses import RunnerAddress

# Headers of an app's responses that are meant for the platform.
RUNNER_HINTS = "x-fal-runner-hints"
HEALTH_CHECK = "x-fal-runner-health-check"
# The rest of a longer header is ignored, so that no runner can fill the controller's memory.
MOST_HINT_CHARACTERS = 4096
_NOWHERE = -1
# The most stale entries of gone runners in the selection order, besides as many as there are runners.
_MOST_LEFT = 64


class Outcome(StrEnum):
    """How a request on a runner ended. It decides what happens to the runner.

    DONE, UNUSED and CLIENT_GONE: it stays. UNUSED: nothing was sent to it, so it was not in use. After CLIENT_GONE it
    may still work on the request. STOP_RUNNER: it asked to be stopped. It is killed after RUNNER_FAILED (its connection
    broke), UNAVAILABLE (it answered 503) and TIMED_OUT (the request took longer than request_timeout).
    """

    DONE = "done"
    UNUSED = "unused"
    STOP_RUNNER = "stop_runner"
    RUNNER_FAILED = "runner_failed"
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"
    CLIENT_GONE = "client_gone"


def error_type_of(status: int) -> str:
    """Return the published error type for an app's response that names none. The response's status is 400 or above."""
    if status < 500:
        return "bad_request"
    return "request_timeout" if status == 504 else "runner_server_error"


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class Slot:
    """A runner in the router's view. It is mutable, because it changes with every request.

    Attributes:
        host, port, gate_key: see RunnerAddress.
        open: whether it may get requests; closed once it is to stop.
        hints: its latest hints.
        answered: whether the first byte of any of its responses has arrived.
        shared: whether several requests were on it when it failed, so that none of them can be blamed.
        places: the orders that it is in, and its number there; none while it is closed.
    """

    runner_id: str
    revision_id: str = ""
    host: str
    port: int
    gate_key: str = field(default="", repr=False)
    in_flight: int = 0
    open: bool = True
    hints: frozenset[str] = field(default_factory=frozenset[str])
    answered: bool = False
    shared: bool = False
    places: OpenSlots | None = field(default=None, repr=False)
    number: int = _NOWHERE

    @property
    def address(self) -> RunnerAddress:
        """The address of its app."""
        return RunnerAddress(self.host, self.port, self.gate_key)

    def take(self) -> None:
        """Count a request that is sent to it."""
        self.in_flight += 1
        if self.places is not None:
            self.places.moved(self, 1)

    def give_back(self) -> None:
        """Uncount a request that has left it."""
        self.in_flight -= 1
        if self.places is not None:
            self.places.moved(self, -1)

    def warm_for(self, hints: frozenset[str]) -> None:
        """Replace its hints."""
        before, self.hints = self.hints, hints
        if self.places is not None:
            self.places.warmed(self, before)


class OpenSlots:
    """Chooses the runner with the fewest requests among those with room. Of equals, it takes the oldest.

    So idle runners stay idle while others have room, and eventually end. The cost of a choice does not grow with the
    number of runners.
    """

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self._numbers = count(_NOWHERE + 1)
        self._removed = 0
        self._all = _ByLoad()
        self._warm: dict[str, _ByLoad] = {}
        self.in_flight = 0

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, slot: Slot) -> None:
        """Let a runner get requests; it comes last in the order."""
        slot.places, slot.number = self, next(self._numbers)
        self._slots[slot.runner_id] = slot
        self.in_flight += slot.in_flight
        self._all.put(slot)
        self.warmed(slot, frozenset())

    def remove(self, slot: Slot) -> None:
        """Stop a runner from getting further requests."""
        del self._slots[slot.runner_id]
        slot.places, slot.number = None, _NOWHERE
        self.in_flight -= slot.in_flight
        self._cool(slot.hints)
        self._removed += 1
        if self._removed > len(self._slots) + _MOST_LEFT:
            self._removed = 0
            self._all, self._warm = _ByLoad(), {}
            for left in self._slots.values():
                self._all.put(left)
                self.warmed(left, frozenset())

    def moved(self, slot: Slot, by: int) -> None:
        """Record that a runner has more or fewer requests."""
        self.in_flight += by
        self._all.put(slot)
        for hint in slot.hints:
            self._warm[hint].put(slot)

    def warmed(self, slot: Slot, before: frozenset[str]) -> None:
        """Record a runner's new hints, which replace `before`."""
        for hint in slot.hints - before:
            warm = self._warm.get(hint)
            if warm is None:
                warm = self._warm[hint] = _ByLoad(hint)
            warm.runners += 1
            warm.put(slot)
        self._cool(before - slot.hints)

    def _cool(self, hints: frozenset[str]) -> None:
        """Drop a runner's old hints. An app may name new ones with each response."""
        for hint in hints:
            warm = self._warm[hint]
            warm.runners -= 1
            if not warm.runners:
                del self._warm[hint]

    def choose(self, max_multiplexing: int, hint: str | None = None) -> Slot | None:
        """Return the runner for the next request, preferring a matching hint.

        Returns:
            None if every runner is full. A hint is only a preference: no request waits for it.
        """
        if hint is not None and (warm := self._warm.get(hint)) is not None:
            found = warm.first(max_multiplexing)
            if found is not None:
                return found
        return self._all.first(max_multiplexing)


class _ByLoad:
    """Runners by their number of requests, oldest first.

    An entry whose number has changed is dropped when it is reached. Each runner is listed at most once for each number.

    Attributes:
        runners: for the order of a hint, how many runners have that hint.
    """

    __slots__ = ("_heaps", "_hint", "_least", "_there", "runners")

    def __init__(self, hint: str | None = None) -> None:
        self._hint = hint
        self._heaps: list[list[tuple[int, Slot]]] = []
        self._there: list[set[int]] = []
        self._least = 0  # there are no runners with fewer
        self.runners = 0

    def put(self, slot: Slot) -> None:
        load = slot.in_flight
        while load >= len(self._heaps):
            self._heaps.append([])
            self._there.append(set())
        there = self._there[load]
        if slot.number not in there:
            there.add(slot.number)
            heappush(self._heaps[load], (slot.number, slot))
        if load < self._least:
            self._least = load

    def first(self, max_multiplexing: int) -> Slot | None:
        hint, load = self._hint, self._least
        while load < max_multiplexing and load < len(self._heaps):
            heap = self._heaps[load]
            while heap:
                number, slot = heap[0]
                if slot.number == number and slot.in_flight == load and (hint is None or hint in slot.hints):
                    return slot
                heappop(heap)
                self._there[load].discard(number)
            load += 1
            self._least = load
        return None


def parse_hints(value: str) -> frozenset[str]:
    """Return the values of an X-Fal-Runner-Hints header. They replace those of earlier responses."""
    hints = (hint.strip() for hint in value[:MOST_HINT_CHARACTERS].split(","))
    return frozenset(hint for hint in hints if hint)
