"""Streams changes of rows in memory: a snapshot, then later changes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fal_server.aio.slices import in_slices
from fal_server.core.cursors import read_cursor, write_cursor
from fal_server.core.faults import InvalidArgument
from fal_server.live.events import ChangeNotifier

Key = TypeVar("Key", bound=Hashable)
Row = TypeVar("Row")
HEARTBEAT_SECONDS = 2.0
# Not every change is announced, for example the start or end of a request. So look again after this time.
_LOOK_SECONDS = 1.0
_LEAST_REST_SECONDS = 0.2
# Looking takes at most this share of the event loop's time, however many rows there are.
_MOST_LOAD = 0.05
MOST_GONE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes(Generic[Row]):
    """The changes since a version.

    Value: a copy for one reader.

    Attributes:
        snapshot: whether `rows` are all rows rather than the changed ones.
        removed: the last state of removed rows.
        version: the version to resume from.
    """

    snapshot: bool
    rows: Sequence[Row]
    removed: Sequence[Row]
    version: str


class Feed(Generic[Key, Row]):
    """Numbers every change of some rows. Any reader can ask for the changes since a number.

    It looks only while there are readers, once for all of them. It keeps each row's latest state and nothing for a
    reader: a slow one gets the newest state in fewer messages.

    Cache: a restart starts with new numbers.

    Args:
        look: returns all rows, in order, by permanent keys.
        alike: whether two states of a row look the same to readers.
        changed: notified when a look may find something.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Mapping[Key, Row]]],
        alike: Callable[[Row, Row], bool],
        changed: ChangeNotifier,
    ) -> None:
        self._look = look
        self._alike = alike
        self._changed = changed
        self._looking = asyncio.Lock()
        self._looks = 0  # the number of started looks
        self._seen = 0  # the count of changes when the last look started
        self._life = secrets.token_hex(8)
        self._version = 0
        # The latest changes are at the end of both.
        self._rows: dict[Key, tuple[int, Row]] = {}
        self._gone: dict[Key, tuple[int, Row]] = {}
        self._order: dict[Key, int] = {}
        self._forgotten = 0
        self._rested_at = 0.0

    async def follow(self, version: str, mine: Callable[[Row], bool]) -> AsyncGenerator[Changes[Row]]:
        """Yield a snapshot, or the changes since a version. Then yield changes, at least every two seconds.

        Args:
            version: of the last changes that the reader has; "" means none.
            mine: which rows the reader may see.

        Raises:
            InvalidArgument: it is not a version.
        """
        position = self._position(version)
        async with self._looking:
            await self._take()
        loop = asyncio.get_running_loop()
        while True:
            # Compute this before the yield: another reader may find more while this one's caller takes its time.
            if position is None or position < self._forgotten:
                position = self._version
                yield await self._snapshot(mine)
            else:
                changes, position = self._since(position, mine), self._version
                yield changes
            until = loop.time() + HEARTBEAT_SECONDS
            while self._version == position and loop.time() < until:
                await self._advance()

    def _position(self, version: str) -> int | None:
        """Return the number of a version. None if this feed does not know it."""
        if not version:
            return None
        try:
            match read_cursor(version):
                case [str(life), int(number)]:
                    return number if life == self._life and number <= self._version else None
                case _:
                    raise ValueError(version)
        except ValueError:
            raise InvalidArgument(
                "version", "this controller did not make that version: start again without it"
            ) from None

    async def _snapshot(self, mine: Callable[[Row], bool]) -> Changes[Row]:
        # Compute this before the first await: changes made by other tasks then belong to the next version.
        version, order = write_cursor([self._life, self._version]), self._order
        every = sorted(self._rows.items(), key=lambda item: order.get(item[0], 0))
        rows = [row async for _, (_, row) in in_slices(every) if mine(row)]
        return Changes(snapshot=True, rows=rows, removed=(), version=version)

    def _since(self, position: int, mine: Callable[[Row], bool]) -> Changes[Row]:
        version = write_cursor([self._life, self._version])
        rows = [row for row in _later(self._rows, position) if mine(row)]
        removed = [row for row in _later(self._gone, position) if mine(row)]
        return Changes(snapshot=False, rows=rows[::-1], removed=removed[::-1], version=version)

    async def _advance(self) -> None:
        """Wait for a change, or for some time. The first reader to wake up looks for all."""
        looks, loop = self._looks, asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._rested_at - loop.time()))
        await self._changed.wait(self._seen, _LOOK_SECONDS)
        async with self._looking:
            if self._looks == looks:
                await self._take()

    async def _take(self) -> None:
        """Look, and number the differences."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._looks += 1
        self._seen = self._changed.count
        found = await self._look()
        self._order = {key: number for number, key in enumerate(found)}
        async for key, row in in_slices(found.items()):
            before = self._rows.get(key)
            if before is None or not self._alike(before[1], row):
                self._version += 1
                self._rows.pop(key, None)
                self._gone.pop(key, None)
                self._rows[key] = (self._version, row)
        # The found rows are complete: without an await, no removed key returns in between.
        for key in [key for key in self._rows if key not in found]:
            self._version += 1
            self._gone[key] = (self._version, self._rows.pop(key)[1])
        while len(self._gone) > MOST_GONE:
            self._forgotten = self._gone.pop(next(iter(self._gone)))[0]
        ended = loop.time()
        self._rested_at = ended + max(_LEAST_REST_SECONDS, (ended - started) / _MOST_LOAD)


def _later(rows: dict[Key, tuple[int, Row]], position: int) -> Iterator[Row]:
    """Yield the rows with a higher number, latest first."""
    for number, row in reversed(rows.values()):
        if number <= position:
            return
        yield row
