"""What following logs remembers: the place that a stream has reached, as its cursor tells it, and what waits for it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from fal_server.core.faults import InvalidArgument
from fal_server.core.logs import LogEntry, LogQuery

# Of so many runners, those that wrote last, a cursor names the last line. Of all others it has only a time.
_MOST_RUNNERS = 256
_MOST_WAITING = 50_000
_MOST_CHARACTERS = 32 * 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOST_MICROSECONDS = 2**53


class Position:
    """How far a stream is: of each runner the highest sequence that was sent, or passed over as not asked for.

    A runner's lines are sent in order, so this is exact. Beyond 256 runners the one that has been silent for longest is
    forgotten, and of runners that are not named only lines that are later than its last are new.

    Attributes:
        since: lines before this are not wanted; None where all are.
    """

    def __init__(self, since: datetime | None) -> None:
        self.since = since
        self.floor = since
        self._sent: dict[str, tuple[int, datetime]] = {}  # what was written to last is at the end

    def advance(self, entries: Iterable[LogEntry]) -> None:
        """These lines were sent; a runner's are in order."""
        for entry in {entry.runner_id: entry for entry in entries}.values():
            sequence, at = self._sent.pop(entry.runner_id, (0, entry.timestamp))
            self._sent[entry.runner_id] = (max(sequence, entry.sequence), max(at, entry.timestamp))
        while len(self._sent) > _MOST_RUNNERS:
            oldest = next(iter(self._sent))
            after = self._sent.pop(oldest)[1] + _MICROSECOND
            self.floor = after if self.floor is None else max(self.floor, after)

    def lacks(self, entry: LogEntry) -> bool:
        """Whether this line of the store was not sent yet."""
        sent = self._sent.get(entry.runner_id)
        if sent is None:
            return self.floor is None or entry.timestamp >= self.floor
        return entry.sequence > sent[0]

    def sent(self) -> dict[str, int]:
        """The highest sequence that was sent, of each runner that is named."""
        return {runner: sequence for runner, (sequence, _) in self._sent.items()}

    def cursor(self) -> str:
        """The text that `read` makes this place from again."""
        place = [
            None if self.since is None else _microseconds(self.since),
            None if self.floor is None else _microseconds(self.floor),
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
            since, floor, sent = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            position = cls(None if since is None else _moment(since))
            position.floor = None if floor is None else _moment(floor)
            position._sent = {str(runner): (int(number), _moment(at)) for runner, (number, at) in sent.items()}
        except (binascii.Error, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise InvalidArgument(
                "cursor", "the cursor was not given out by this controller: begin again without one"
            ) from None
        return position


class Follower:
    """One open stream: the lines that wait for it in memory, and what wakes it.

    A stream reads the store up to where it began to wait for lines here, and then has what comes from here. Lines are
    announced before they are stored, so that a read of the store that finds them leaves them to this side.

    Attributes:
        look: it should see whether its runner has ended.
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
        """Whether lines must be read from the store: it is new, or more came than may wait here."""
        return self._behind

    def begin(self) -> None:
        """From now on lines wait here; those that were stored earlier are read. Not while lines are being stored."""
        self._behind = False
        self._announced.clear()

    def announce(self, runner_id: str, sequence: int) -> None:
        """This runner's lines from this one on are stored from now on."""
        self._announced.setdefault(runner_id, sequence)

    def release(self, entries: Sequence[LogEntry]) -> None:
        """These new lines, which were announced, are stored."""
        if not self._behind:
            self._waiting.append(entries)
            self._count += len(entries)
            self._characters += sum(len(entry.message) for entry in entries)
            if self._count > _MOST_WAITING or self._characters > _MOST_CHARACTERS:
                self.fall_behind()
        self.wake.set()

    def fall_behind(self) -> None:
        """Lines must be read from the store."""
        self._behind = True
        self._waiting.clear()
        self._count = self._characters = 0
        self.wake.set()

    def earlier(self, entry: LogEntry) -> bool:
        """Whether a line in the store was there when lines began to wait here."""
        first = self._announced.get(entry.runner_id)
        return first is None or entry.sequence < first

    def take(self, most: int) -> list[LogEntry]:
        """The next lines that wait, in the order in which they were stored, at least about so many if there are.

        What is not asked for is among them: `wants` tells.
        """
        found: list[LogEntry] = []
        while self._waiting and len(found) < most:
            found += self._waiting.popleft()
        self._count -= len(found)
        self._characters -= sum(len(entry.message) for entry in found)
        return found

    def wants(self, entries: list[LogEntry]) -> list[LogEntry]:
        """Those of the lines that are asked for."""
        return [entry for entry in entries if _matches(entry, self._query)] if self._filters else entries


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
