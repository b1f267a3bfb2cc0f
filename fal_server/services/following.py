"""What following logs remembers: the place that a stream has reached, as its cursor tells it, and what waits for it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from fal_server.core.faults import Invalid
from fal_server.core.logs import LogEntry, LogQuery

# Runners push their lines on their own, so the lines of an app do not arrive in the order of their times. A line may
# come so much later than younger ones of other runners, and a stream that is resumed still gets it once.
LATENESS = timedelta(seconds=60)
_MOST_WAITING = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOST_MICROSECONDS = 2**53


class Position:
    """How far a stream is: the highest sequence sent of each runner that wrote lately, and the latest time.

    Attributes:
        floor: lines before this are not wanted; None where all are.
    """

    def __init__(self, floor: datetime | None) -> None:
        self.floor = floor
        self._latest: datetime | None = None
        self._sent: dict[str, tuple[int, datetime]] = {}

    def advance(self, entries: Iterable[LogEntry]) -> None:
        """These lines were sent."""
        for entry in entries:
            sequence, at = self._sent.get(entry.runner_id, (0, entry.timestamp))
            self._sent[entry.runner_id] = (max(sequence, entry.sequence), max(at, entry.timestamp))
            self._latest = entry.timestamp if self._latest is None else max(self._latest, entry.timestamp)
        start = self._window()
        if start is not None:
            self._sent = {runner: sent for runner, sent in self._sent.items() if sent[1] >= start}

    def resume(self) -> datetime | None:
        """From which time on lines must be read again; `sent` says which of them are known."""
        starts = [moment for moment in (self.floor, self._window()) if moment is not None]
        return max(starts, default=None)

    def sent(self) -> dict[str, int]:
        """The highest sequence that was sent of each runner that wrote lately."""
        return {runner: sequence for runner, (sequence, _) in self._sent.items()}

    def cursor(self) -> str:
        """The text that `read` makes this place from again."""
        place = [
            None if self.floor is None else _microseconds(self.floor),
            None if self._latest is None else _microseconds(self._latest),
            {runner: [sequence, _microseconds(at)] for runner, (sequence, at) in self._sent.items()},
        ]
        text = json.dumps(place, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, cursor: str) -> Position:
        """The place that a cursor names.

        Raises:
            Invalid: it is not a cursor.
        """
        try:
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            floor, latest, sent = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            position = cls(None if floor is None else _moment(floor))
            position._latest = None if latest is None else _moment(latest)
            position._sent = {str(runner): (int(number), _moment(at)) for runner, (number, at) in sent.items()}
        except (binascii.Error, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise Invalid(
                "cursor", "the cursor was not given out by this controller: begin again without one"
            ) from None
        return position

    def _window(self) -> datetime | None:
        return None if self._latest is None else self._latest - LATENESS


class Follower:
    """One open stream: the lines that wait for it, and what wakes it.

    A line is announced before it is stored and released after, so that a read of the store in between that finds the
    line can say so, and it is sent once: with that read, or from here.

    Attributes:
        look: it should see whether its runner has ended.
    """

    def __init__(self, query: LogQuery) -> None:
        self.wake = asyncio.Event()
        self.look = True
        self._behind = True  # lines must be read from the store: it is new, or more came than may wait here
        self._query = query
        self._overflowed = False
        self._announced: dict[tuple[str, int], LogEntry] = {}
        self._released: dict[tuple[str, int], LogEntry] = {}

    def announce(self, entries: Iterable[LogEntry]) -> None:
        """These new lines are about to be stored."""
        for entry in entries:
            if _matches(entry, self._query):
                self._announced[entry.runner_id, entry.sequence] = entry
        if len(self._announced) + len(self._released) > _MOST_WAITING:
            self._announced.clear()
            self._released.clear()
            self._overflowed = True

    def release(self, entries: Iterable[LogEntry]) -> None:
        """These lines are stored."""
        for entry in entries:
            announced = self._announced.pop((entry.runner_id, entry.sequence), None)
            if announced is not None:
                self._released[entry.runner_id, entry.sequence] = announced
        # Not earlier: a read before the lines were stored would miss them.
        self._behind = self._behind or self._overflowed
        self._overflowed = False
        self.wake.set()

    def doubt(self, entries: Iterable[LogEntry]) -> None:
        """Whether these lines were stored is not known: the store must be asked."""
        self.was_read(entries)
        self._overflowed = False
        self.fall_behind()

    def fall_behind(self) -> None:
        """Lines must be read from the store."""
        self._behind = True
        self.wake.set()

    def must_read(self) -> bool:
        """Whether lines must be read from the store; who asks does so."""
        behind, self._behind = self._behind, False
        return behind

    def was_read(self, entries: Iterable[LogEntry]) -> None:
        """These lines were found in the store, and are sent from there."""
        for entry in entries:
            self._announced.pop((entry.runner_id, entry.sequence), None)
            self._released.pop((entry.runner_id, entry.sequence), None)

    def overtaken(self, entries: Iterable[LogEntry]) -> tuple[LogEntry, ...]:
        """Lines that wait here though later ones of the same runners were found in the store.

        They came too late for the place in time at which the store is read. A runner's lines are stored in order, so
        they are stored, and must be sent first: the position says of a runner how far its lines were sent.
        """
        highest: dict[str, int] = {}
        for entry in entries:
            highest[entry.runner_id] = max(entry.sequence, highest.get(entry.runner_id, 0))
        waiting = [*self._released.values(), *self._announced.values()]
        found = tuple(entry for entry in waiting if entry.sequence < highest.get(entry.runner_id, 0))
        self.was_read(found)
        return found

    def take(self, most: int) -> tuple[LogEntry, ...]:
        """The next stored lines that wait, in the order in which they came; none where none waits."""
        keys = [key for key, _ in zip(self._released, range(most), strict=False)]
        return tuple(self._released.pop(key) for key in keys)


def _matches(entry: LogEntry, query: LogQuery) -> bool:
    """Whether the store would give this line as an answer to the query, whose subject it is known to have."""
    return (
        (query.since is None or entry.timestamp >= query.since)
        and (not query.sources or entry.source in query.sources)
        and (query.request_id is None or entry.request_id == query.request_id)
        and (not query.search or query.search.casefold() in entry.message.casefold())
    )


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(microseconds: object) -> datetime:
    if not isinstance(microseconds, int) or abs(microseconds) > _MOST_MICROSECONDS:
        raise ValueError(microseconds)
    return _EPOCH + microseconds * _MICROSECOND
