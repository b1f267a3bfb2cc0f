"""Choose the runner that gets a request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush
from itertools import count

from fal_server.core.addresses import RunnerAddress

# Headers of an app's answers that are meant for the platform.
RUNNER_HINTS = "x-fal-runner-hints"
HEALTH_CHECK = "x-fal-runner-health-check"
# The rest of a longer header is ignored, so that no runner can fill the controller's memory.
MOST_HINT_CHARACTERS = 4096
_NOWHERE = -1
# So many runners that are gone may be left in the order from which runners are chosen, beside as many as are there.
_MOST_LEFT = 64


class Outcome(StrEnum):
    """How a request on a runner ended, which decides what happens to the runner.

    DONE and CLIENT_GONE: it stays; after CLIENT_GONE it may still work on the request. STOP_RUNNER: it asked to be
    stopped. It is killed after RUNNER_FAILED (its connection broke), UNAVAILABLE (it answered 503) and TIMED_OUT (the
    request took longer than request_timeout).
    """

    DONE = "done"
    STOP_RUNNER = "stop_runner"
    RUNNER_FAILED = "runner_failed"
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"
    CLIENT_GONE = "client_gone"


def error_type_of(status: int) -> str:
    """Return the published error type for an app's answer of 400 or above that names none."""
    if status < 500:
        return "bad_request"
    return "request_timeout" if status == 504 else "runner_server_error"


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class Slot:
    """A runner as the router sees it; mutable, because it changes with every request.

    Attributes:
        host, port, gate_key: see RunnerAddress.
        open: whether requests may be sent to it; closed once it is to stop.
        hints: what it last said that it is warm for.
        answered: whether the first byte of any of its answers has come.
        shared: whether several requests were on it when it failed, so that none of them can be blamed.
        places: what it is chosen from, and its number there; while it is closed, none.
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
        """Where its app is reached."""
        return RunnerAddress(self.host, self.port, self.gate_key)

    def take(self) -> None:
        """Count a request that is sent to it."""
        self.in_flight += 1
        if self.places is not None:
            self.places.moved(self, 1)

    def give_back(self) -> None:
        """Count a request that has left it."""
        self.in_flight -= 1
        if self.places is not None:
            self.places.moved(self, -1)

    def warm_for(self, hints: frozenset[str]) -> None:
        """Replace what it is warm for."""
        before, self.hints = self.hints, hints
        if self.places is not None:
            self.places.warmed(self, before)


class OpenSlots:
    """Choose among runners: of those with room the one with the fewest requests, of these the first that came.

    So idle runners stay idle while others have room, and end in time. A choice costs no more with many runners than
    with few.
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
        """Let requests be sent to a runner, which comes behind the others."""
        slot.places, slot.number = self, next(self._numbers)
        self._slots[slot.runner_id] = slot
        self.in_flight += slot.in_flight
        self._all.put(slot)
        self.warmed(slot, frozenset())

    def remove(self, slot: Slot) -> None:
        """Let no further request be sent to a runner."""
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
        """Note that a runner has more or fewer requests."""
        self.in_flight += by
        self._all.put(slot)
        for hint in slot.hints:
            self._warm[hint].put(slot)

    def warmed(self, slot: Slot, before: frozenset[str]) -> None:
        """Note what a runner is warm for, which was warm for something else before."""
        for hint in slot.hints - before:
            warm = self._warm.get(hint)
            if warm is None:
                warm = self._warm[hint] = _ByLoad(hint)
            warm.runners += 1
            warm.put(slot)
        self._cool(before - slot.hints)

    def _cool(self, hints: frozenset[str]) -> None:
        """Note that a runner is no longer warm for these: an app may name new ones with each answer."""
        for hint in hints:
            warm = self._warm[hint]
            warm.runners -= 1
            if not warm.runners:
                del self._warm[hint]

    def choose(self, max_multiplexing: int, hint: str | None = None) -> Slot | None:
        """Return the runner that gets the next request; one with a matching hint goes first.

        Returns:
            None if every runner is full. A hint is a preference: no request waits for it.
        """
        if hint is not None and (warm := self._warm.get(hint)) is not None:
            found = warm.first(max_multiplexing)
            if found is not None:
                return found
        return self._all.first(max_multiplexing)


class _ByLoad:
    """Runners by the number of their requests, the first that came first.

    One that has another number by now is dropped when it comes up. Each is at a number once at most.

    Attributes:
        runners: how many are warm for the hint, if it is of one.
    """

    __slots__ = ("_heaps", "_hint", "_least", "_there", "runners")

    def __init__(self, hint: str | None = None) -> None:
        self._hint = hint
        self._heaps: list[list[tuple[int, Slot]]] = []
        self._there: list[set[int]] = []
        self._least = 0  # below it there is none
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
    """Return the values of an X-Fal-Runner-Hints header, which replace those of earlier answers."""
    hints = (hint.strip() for hint in value[:MOST_HINT_CHARACTERS].split(","))
    return frozenset(hint for hint in hints if hint)
