"""The state of followed logs: each stream's position and waiting lines."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from fal_server.core.cursors import read_cursor, write_cursor
from fal_server.core.faults import InvalidArgument
from fal_server.core.logs import LogEntry, LogQuery

# A cursor has the last line of this many runners, the most recent writers; all others share one time.
_MOST_RUNNERS = 256
_MOST_WAITING = 50_000
_MOST_CHARACTERS = 32 * 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOST_MICROSECONDS = 2**53


class Position:
    """A stream's position: the highest sequence sent or skipped, by runner.

    A runner's lines are sent in order, so this is exact. Beyond 256 runners the longest silent one is dropped; for a
    runner without an entry, only lines after the dropped runner's last one count as new.

    Attributes:
        since: skip lines before this; None skips none.
    """

    def __init__(self, since: datetime | None) -> None:
        self.since = since
        self.floor = since
        self._sent: dict[str, tuple[int, datetime]] = {}  # the most recent writer is at the end

    def advance(self, entries: Iterable[LogEntry]) -> None:
        """Record that these lines were sent, each runner's in order."""
        for entry in {entry.runner_id: entry for entry in entries}.values():
            sequence, at = self._sent.pop(entry.runner_id, (0, entry.timestamp))
            self._sent[entry.runner_id] = (max(sequence, entry.sequence), max(at, entry.timestamp))
        while len(self._sent) > _MOST_RUNNERS:
            oldest = next(iter(self._sent))
            after = self._sent.pop(oldest)[1] + _MICROSECOND
            self.floor = after if self.floor is None else max(self.floor, after)

    def lacks(self, entry: LogEntry) -> bool:
        """Return whether a stored line was not sent yet."""
        sent = self._sent.get(entry.runner_id)
        if sent is None:
            return self.floor is None or entry.timestamp >= self.floor
        return entry.sequence > sent[0]

    def sent(self) -> dict[str, int]:
        """Return the highest sequence that was sent, by runner."""
        return {runner: sequence for runner, (sequence, _) in self._sent.items()}

    def cursor(self) -> str:
        """Return this position as text for `read`."""
        position = [
            None if self.since is None else _microseconds(self.since),
            None if self.floor is None else _microseconds(self.floor),
            {runner: [sequence, _microseconds(at)] for runner, (sequence, at) in self._sent.items()},
        ]
        return write_cursor(position)

    @classmethod
    def read(cls, cursor: str) -> Position:
        """Return the position of a cursor.

        Raises:
            InvalidArgument: it is not a cursor.
        """
        try:
            match read_cursor(cursor):
                case [None | int() as since, None | int() as floor, dict(sent)]:
                    position = cls(None if since is None else _time(since))
                    position.floor = None if floor is None else _time(floor)
                    position._sent = {str(runner): (int(number), _time(at)) for runner, (number, at) in sent.items()}
                case _:
                    raise ValueError(cursor)
        except (ValueError, TypeError, OverflowError):
            raise InvalidArgument(
                "cursor", "this controller did not make that cursor: start again without one"
            ) from None
        return position


class Follower:
    """The lines in memory that wait for one open stream.

    A stream reads the store up to the time at which lines started to wait here, and then takes them from here. Lines
    are announced before they are stored, so that the stream knows which ones it must not read from the store.

    Attributes:
        wake: set when there is work for the stream.
        look: whether the stream should check that its runner has ended.
    """

    def __init__(self, query: LogQuery) -> None:
        self.wake = asyncio.Event()
        self.look = True
        self._behind = True
        self._query = query
        self._filters = bool(query.since or query.sources or query.request_id is not None or query.search)
        self._announced: dict[str, int] = {}
        self._waiting: deque[Sequence[LogEntry]] = deque()
        self._count = 0
        self._characters = 0

    def is_behind(self) -> bool:
        """Return whether the store must be read. The stream is new, or too many lines waited."""
        return self._behind

    def begin(self) -> None:
        """Let lines wait here from now on. Do not call it while lines are being stored."""
        self._behind = False
        self._announced.clear()

    def announce(self, runner_id: str, sequence: int) -> None:
        """Record a runner's first line that is about to be stored."""
        self._announced.setdefault(runner_id, sequence)

    def release(self, entries: Sequence[LogEntry]) -> None:
        """Add announced lines, which are now stored."""
        if not self._behind:
            self._waiting.append(entries)
            self._count += len(entries)
            self._characters += sum(len(entry.message) for entry in entries)
            if self._count > _MOST_WAITING or self._characters > _MOST_CHARACTERS:
                self.fall_behind()
        self.wake.set()

    def fall_behind(self) -> None:
        """Drop the waiting lines, so that the stream reads the store."""
        self._behind = True
        self._waiting.clear()
        self._count = self._characters = 0
        self.wake.set()

    def earlier(self, entry: LogEntry) -> bool:
        """Return whether a line was stored before lines started to wait here."""
        first = self._announced.get(entry.runner_id)
        return first is None or entry.sequence < first

    def take(self, most: int) -> list[LogEntry]:
        """Take about this many waiting lines, in the order of their storage. `wants` filters them."""
        found: list[LogEntry] = []
        while self._waiting and len(found) < most:
            found += self._waiting.popleft()
        self._count -= len(found)
        self._characters -= sum(len(entry.message) for entry in found)
        return found

    def wants(self, entries: list[LogEntry]) -> list[LogEntry]:
        """Return the lines that match the query."""
        return [entry for entry in entries if _matches(entry, self._query)] if self._filters else entries


def _matches(entry: LogEntry, query: LogQuery) -> bool:
    """Return whether the store would find this line for the query."""
    return (
        (query.since is None or entry.timestamp >= query.since)
        and (not query.sources or entry.source in query.sources)
        and (query.request_id is None or entry.request_id == query.request_id)
        and (not query.search or query.search.casefold() in entry.message.casefold())
    )


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _time(microseconds: object) -> datetime:
    if not isinstance(microseconds, int) or abs(microseconds) > _MOST_MICROSECONDS:
        raise ValueError(microseconds)
    return _EPOCH + microseconds * _MICROSECOND
