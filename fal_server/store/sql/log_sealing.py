"""Seals log lines: adds segments that make searches quick. Lines stay rows; a segment says where to look.

An app's segments follow one another in time without a gap, so a search reads the rows of no range that is sealed. A
line that comes late is stored together with the deletion of its segment, and the range is sealed again.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeAlias, cast

from sqlalchemy import Executable, delete, func, insert, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry
from fal_server.store.sql.columns import to_microseconds
from fal_server.store.sql.database import Database
from fal_server.store.sql.log_pages import APP_ORDER
from fal_server.store.sql.log_segments import seal
from fal_server.store.sql.tables import ACCOUNTS, LOG_LINES, LOG_SEGMENTS, owned_by

AppKey: TypeAlias = "tuple[AccountId, str]"
_Line: TypeAlias = "tuple[int, str, int, str]"  # microseconds, runner, sequence, message
_Range: TypeAlias = "tuple[int | None, int | None]"  # from the first to before the second
# Filters of larger ones are less selective: 4,000 random ids have most grams of hexadecimal digits.
SEGMENT_LINES = 1024
# A segment of long lines has fewer.
_SEGMENT_CHARACTERS = 256 * 1024
# So many are read first. A line has up to a million characters, and their length is not known before.
_FIRST_LINES = 16
# A runner whose clock was set back gives all of its lines one time until the clock is there again.
_MOST_OF_ONE_TIME = 16
_SEGMENTS_AT_ONCE = 500


class Sealing:
    """Seals the lines of one database, whose only writer is this process.

    Attributes:
        until: no segment reaches beyond this time, in microseconds; a line before it may be late. It changes only in
            a write transaction, and is None until `begin`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unsealed: dict[AppKey, None] | None = None  # an ordered set: whose turn is next
        self.until: int | None = None

    async def begin(self) -> None:
        """Read how far lines are sealed."""

        async def last(connection: AsyncConnection) -> int:
            return (await connection.execute(select(func.max(LOG_SEGMENTS.c.until_at)))).scalar() or 0

        until = await self._database.read(last)
        self.until = max(until, self.until or 0)

    def appended(self, apps: set[AppKey]) -> None:
        """Look at these apps in the next round."""
        if self._unsealed is not None:
            self._unsealed |= dict.fromkeys(apps)

    async def seal(self, before: int, most: int) -> int:
        """Seal full segments of lines before a time; return how many segments.

        Args:
            before: in microseconds. Later lines may still come.
            most: stop after about this many segments.
        """
        if self.until is None:
            await self.begin()
        if self._unsealed is None:
            self._unsealed = await self._apps()
        done = 0
        for account, app_name in list(self._unsealed):
            if done >= most:
                break
            del self._unsealed[account, app_name]
            complete = False
            try:
                async with aclosing(self._seal_app(account, app_name, before)) as sealed:
                    async for whole in sealed:
                        done += whole
                        if not whole or done >= most:
                            break
                    else:
                        complete = True
            finally:
                if not complete:  # at the end, so that neither a busy app nor one that fails holds up the others
                    self._unsealed[account, app_name] = None
        return done

    async def _seal_app(self, account: AccountId, app_name: str, before: int) -> AsyncGenerator[bool]:
        """Yield True after each new segment, and False if lines remain."""
        for begin, end in await self._gaps(account, app_name):
            start = begin
            while True:
                lines, whole = await self._lines(account, app_name, start, end, before)
                if whole and (end is None or (start is None and not lines)):
                    break  # too few yet, or no line is older than the first segment
                until = end if whole and end is not None else lines[-1][0]
                if until > before:
                    yield False
                    break
                if not whole and until == lines[0][0]:  # too many for a segment: searches read their rows
                    start = until + 1
                    if start == end:
                        break
                    continue
                within = [line for line in lines if line[0] < until]
                first = start if start is not None else within[0][0]
                if not await self._store(account, app_name, first, until, within):
                    yield False
                    break
                yield True
                start = until
                if until == end:
                    break

    async def _store(self, account: AccountId, app_name: str, begin: int, until: int, lines: list[_Line]) -> bool:
        """Store a segment, unless its lines have changed since they were read."""
        segment = await asyncio.to_thread(seal, [line[1:] for line in lines])
        values: dict[str, object] = {
            "account": account,
            "app_name": app_name,
            "until_at": until,
            "begin_at": begin,
            "lines": segment.lines,
            "grams": segment.grams,
            "text": segment.text,
            "places": segment.places,
        }
        row = LOG_LINES.c
        its = (owned_by(LOG_LINES, account), row.app_name == app_name, row.timestamp >= begin, row.timestamp < until)
        count = select(func.count()).select_from(LOG_LINES).where(*its)
        # The oldest lines are deleted first. If the first one is there, so are the others, and the count tells of more.
        oldest = [(row.runner_id == line[1], row.sequence == line[2]) for line in lines[:1]]
        # Its segments may have been erased already, and its lines are about to be.
        deleted = select(ACCOUNTS.c.account).where(owned_by(ACCOUNTS, account), ACCOUNTS.c.deleted_at.is_not(None))

        async def store(connection: AsyncConnection) -> bool:
            if (await connection.execute(deleted)).first() is not None:
                return False
            if (await connection.execute(count)).scalar_one() != segment.lines:
                return False
            for its_key in oldest:
                if (await connection.execute(select(row.sequence).where(*its_key))).first() is None:
                    return False
            # Lines that are stored from now on are compared with this.
            self.until = max(until, self.until or 0)
            await connection.execute(insert(LOG_SEGMENTS), values)
            return True

        return await self._database.write(store)

    async def _lines(
        self, account: AccountId, app_name: str, begin: int | None, end: int | None, before: int
    ) -> tuple[list[_Line], bool]:
        """Return lines for a segment, and whether these are all.

        If not, the last is of a later time than the first, unless too many are of one time or it is after `before`.
        """
        columns = LOG_LINES.c
        query = select(*APP_ORDER, columns.message).where(owned_by(LOG_LINES, account), columns.app_name == app_name)
        query = query.order_by(*APP_ORDER)
        if begin is not None:
            query = query.where(columns.timestamp >= begin)
        if end is not None:
            query = query.where(columns.timestamp < end)
        found: list[_Line] = []
        size, count = 0, min(_FIRST_LINES, SEGMENT_LINES + 1)
        while True:
            rest = query if not found else query.where(tuple_(*APP_ORDER) > found[-1][:3])
            lines = await self._database.read(partial(_read_lines, query=rest.limit(count)))
            found += lines
            size += sum([len(line[3]) for line in lines])
            segments = max(len(found) / (SEGMENT_LINES + 1), size / _SEGMENT_CHARACTERS)
            if segments >= 1 and (found[-1][0] != found[0][0] or segments >= _MOST_OF_ONE_TIME):
                return found, False
            if len(lines) < count:
                return found, True
            if found[-1][0] > before:
                return found, False
            of_this_size = max(1, _SEGMENT_CHARACTERS * len(found) // (size + 1))
            missing = SEGMENT_LINES + 1 - len(found)
            count = min(of_this_size, missing if missing > 0 else SEGMENT_LINES)

    async def _gaps(self, account: AccountId, app_name: str) -> list[_Range]:
        """Return the ranges before, between and after an app's segments."""
        columns = LOG_SEGMENTS.c
        its = (owned_by(LOG_SEGMENTS, account), columns.app_name == app_name)
        first = select(columns.begin_at).where(*its).order_by(columns.until_at).limit(1)
        following = func.lead(columns.begin_at).over(order_by=columns.until_at)
        each = select(columns.until_at.label("begin"), following.label("end")).where(*its).subquery()
        gaps = select(each).where(or_(each.c.end.is_(None), each.c.begin < each.c.end)).order_by(each.c.begin)

        async def read(connection: AsyncConnection) -> list[_Range]:
            return [
                (None, (await connection.execute(first)).scalar()),
                *((begin, end) for begin, end in await connection.execute(gaps)),
            ]

        return await self._database.read(read)

    async def _apps(self) -> dict[AppKey, None]:
        """Return all apps with lines. Each is found by its own query, because a grouped one reads every line."""
        columns = LOG_LINES.c
        order = (columns.app_name, columns.account)
        found: list[tuple[str, str]] = []
        while True:
            after = select(*order).order_by(*order).limit(1)
            if found:
                after = after.where(tuple_(*order) > found[-1])
            app = await self._database.read(partial(_read_app, query=after))
            if app is None:
                return dict.fromkeys((AccountId(account), app_name) for app_name, account in found)
            found.append(app)


async def _read_lines(connection: AsyncConnection, query: Executable) -> list[_Line]:
    rows = cast("Iterable[_Line]", await connection.execute(query))
    return [(at, runner_id, sequence, message) for at, runner_id, sequence, message in rows]


async def _read_app(connection: AsyncConnection, query: Executable) -> tuple[str, str] | None:
    return cast("tuple[str, str] | None", (await connection.execute(query)).one_or_none())


async def unseal_late(connection: AsyncConnection, entries: Sequence[LogEntry]) -> None:
    """Delete the segments whose ranges get these lines."""
    times: dict[AppKey, list[int]] = {}
    for entry in entries:
        times.setdefault((entry.account, entry.app_name), []).append(to_microseconds(entry.timestamp))
    columns = LOG_SEGMENTS.c
    for (account, app_name), at in times.items():
        at.sort()
        its = (owned_by(LOG_SEGMENTS, account), columns.app_name == app_name)
        near = select(columns.begin_at, columns.until_at).where(
            *its, columns.until_at > at[0], columns.begin_at <= at[-1]
        )
        late = [
            until for begin, until in await connection.execute(near) if bisect_left(at, begin) < bisect_left(at, until)
        ]
        for start in range(0, len(late), _SEGMENTS_AT_ONCE):
            some = columns.until_at.in_(late[start : start + _SEGMENTS_AT_ONCE])
            await connection.execute(delete(LOG_SEGMENTS).where(*its, some))


async def unseal_up_to(connection: AsyncConnection, last: int) -> None:
    """Delete all segments that begin up to a time. Their lines are deleted."""
    await connection.execute(delete(LOG_SEGMENTS).where(LOG_SEGMENTS.c.begin_at <= last))
