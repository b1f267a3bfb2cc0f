"""Searches lines of an app or a runner by segments. Where there are none, it reads rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.cursors import write_cursor
from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.store.sql.columns import from_microseconds, to_microseconds
from fal_server.store.sql.log_pages import (
    COLUMNS,
    MOST_LINES,
    Place,
    conditions_of,
    cursor_after,
    page_of_rows,
    position_of,
)
from fal_server.store.sql.log_rows import LogRow, from_rows
from fal_server.store.sql.log_segments import fold, grams_of, lines_with, may_contain, places_of
from fal_server.store.sql.tables import LOG_LINES, LOG_SEGMENTS, owned_by

_FIRST, _LAST = -(2**62), 2**62
# The first group of segments is small, because a frequent text fills a page at once.
_FIRST_GROUP, _LARGEST_GROUP = 4, 512
_ROWS_AT_ONCE = 500
_TEXTS_AT_ONCE = 32
# How many lines of a segment take as long as one row: if its filter leaves it out, and if its text is read.
_LEFT_OUT, _READ = 128, 4
# A runner's lines are searched by its app's segments if it has many, and in its time its app has less than twice as
# many. Its rows lie together, and take two to ten times as long as segments.
MANY_LINES = 10_000
_TIMES_AS_MANY = 2
_Bounds: TypeAlias = "tuple[int, int]"


@dataclass(frozen=True, slots=True)
class _Sealed:
    begin: int
    until: int
    lines: int
    grams: bytes


class SegmentSearch:
    """One page of a search.

    Args:
        app_name: of the lines, even if the query names their runner alone.
        query: with `search`; a runner's lines are in the order of their times.
    """

    def __init__(self, connection: AsyncConnection, account: AccountId, app_name: str, query: LogQuery) -> None:
        self._connection = connection
        self._account = account
        self._app_name = app_name
        self._query = query
        self._limit = max(1, min(query.limit, MOST_LINES))
        self._needle = fold(query.search or "")
        self._grams = grams_of(self._needle)
        self._after: Place | None = position_of(query.after) if query.after else None
        self._first = _FIRST if query.since is None else to_microseconds(query.since)
        self._end = _LAST if query.until is None else to_microseconds(query.until)
        if self._after is not None:
            at, runner_id, _ = self._after
            if query.newest_first:
                self._end = min(self._end, at + 1 if runner_id else at)
            else:
                self._first = max(self._first, at)
            if not runner_id:  # between two segments
                self._after = None
        self._found: list[LogEntry] = []
        self._reads = query.reads

    async def page(self) -> LogPage:
        """Return the page, by (timestamp, runner, sequence)."""
        size = _FIRST_GROUP
        while True:
            group = await self._segments(size)
            for start in range(0, len(group), _TEXTS_AT_ONCE):
                page = await self._search(group[start : start + _TEXTS_AT_ONCE])
                if page is not None:
                    return page
            if len(group) < size:
                break
            size = min(2 * size, _LARGEST_GROUP)
        page = await self._rows(self._first, self._end)
        if page is not None:
            return page
        last = self._found[-1] if self._found else None
        return LogPage(
            entries=tuple(self._found),
            cursor=self._query.after or "" if last is None else cursor_after(last),
            more=False,
            reached=None if last is None else last.timestamp,
        )

    async def _search(self, segments: Sequence[_Sealed]) -> LogPage | None:
        """Search segments and the rows between; return a page ending there."""
        candidates = [one for one in segments if may_contain(one.grams, self._grams)]
        matches = await self._matches(candidates)
        for one in segments:
            places = matches.get((one.begin, one.until))
            page = await self._rows_before(one) or await self._take(one, one in candidates, places)
            if page is not None:
                return page
            if self._query.newest_first:
                self._end = min(self._end, one.begin)
            else:
                self._first = max(self._first, one.until)
            if self._spent(one.lines // (_READ if one in candidates else _LEFT_OUT)):
                return self._paused()
        return None

    async def _segments(self, count: int) -> list[_Sealed]:
        """Return the next segments of the range, in the query's order."""
        columns = LOG_SEGMENTS.c
        query = (
            select(columns.begin_at, columns.until_at, columns.lines, columns.grams)
            .where(owned_by(LOG_SEGMENTS, self._account), columns.app_name == self._app_name)
            .where(columns.until_at > self._first, columns.begin_at < self._end)
            .order_by(columns.until_at.desc() if self._query.newest_first else columns.until_at)
            .limit(count)
        )
        return [_Sealed(*row) for row in await self._connection.execute(query)]

    async def _matches(self, segments: Sequence[_Sealed]) -> dict[_Bounds, list[tuple[str, int]]]:
        """Return the places of lines that may match, by their segment's bounds."""
        if not segments:
            return {}
        columns = LOG_SEGMENTS.c
        query = select(columns.begin_at, columns.until_at, columns.text, columns.places).where(
            owned_by(LOG_SEGMENTS, self._account),
            columns.app_name == self._app_name,
            columns.until_at.in_([one.until for one in segments]),
        )
        read = [(begin, until, text, places) for begin, until, text, places in await self._connection.execute(query)]

        def search() -> dict[_Bounds, list[tuple[str, int]]]:
            return {(begin, until): self._places(text, places) for begin, until, text, places in read}

        return await asyncio.to_thread(search)

    def _places(self, text: bytes, places: bytes) -> list[tuple[str, int]]:
        found = places_of(places, lines_with(text, self._needle))
        runner_id = self._query.runner_id
        return found if runner_id is None else [place for place in found if place[0] == runner_id]

    async def _rows_before(self, segment: _Sealed) -> LogPage | None:
        """Read the lines between two segments. They are not sealed."""
        if self._query.newest_first:
            page = await self._rows(max(self._first, segment.until), self._end)
            self._end = min(self._end, segment.until)
        else:
            page = await self._rows(self._first, min(self._end, segment.begin))
            self._first = max(self._first, segment.begin)
        return page

    async def _take(self, segment: _Sealed, candidate: bool, places: list[tuple[str, int]] | None) -> LogPage | None:
        """Add a segment's matching rows; return a full page or None."""
        if not candidate:
            return None
        if places is None:  # a late line has unsealed it meanwhile
            return await self._rows(max(self._first, segment.begin), min(self._end, segment.until))
        newest_first = self._query.newest_first
        places = places[::-1] if newest_first else places
        for start in range(0, len(places), _ROWS_AT_ONCE):
            lines = await self._lines(places[start : start + _ROWS_AT_ONCE])
            self._found += sorted(filter(self._within, lines), key=_place, reverse=newest_first)
            if len(self._found) > self._limit:
                return self._full()
        return None

    async def _lines(self, places: Sequence[tuple[str, int]]) -> list[LogEntry]:
        """Return the matching lines at some places. Each runner's are found by the primary key."""
        of_runners: dict[str, list[int]] = {}
        for runner_id, sequence in places:
            of_runners.setdefault(runner_id, []).append(sequence)
        # Conditions on the app or the time would lead the database to an index of many more rows.
        query = replace(self._query, app_name=None, since=None, until=None)
        conditions = [owned_by(LOG_LINES, self._account), *conditions_of(self._connection, query)]
        found: list[LogEntry] = []
        for runner_id, sequences in of_runners.items():
            its = (LOG_LINES.c.runner_id == runner_id, LOG_LINES.c.sequence.in_(sequences))
            rows = await self._connection.execute(select(*COLUMNS).where(*its, *conditions))
            found += from_rows(cast("Iterable[LogRow]", rows))
        return found

    def _within(self, entry: LogEntry) -> bool:
        place = _place(entry)
        if not self._first <= place[0] < self._end:
            return False
        if self._after is None:
            return True
        return place < self._after if self._query.newest_first else place > self._after

    async def _rows(self, first: int, end: int) -> LogPage | None:
        """Read a range without segments; return a page ending there, or None."""
        if first >= end:
            return None
        after = self._after
        query = replace(
            self._query,
            app_name=self._query.app_name if self._query.runner_id is None else None,
            since=None if first == _FIRST else from_microseconds(first),
            until=None if end == _LAST else from_microseconds(end),
            after=self._query.after if after is not None and first <= after[0] < end else None,
            limit=self._limit + 1 - len(self._found),
            reads=self._reads,
        )
        page = await page_of_rows(self._connection, self._account, query)
        self._found += page.entries
        if len(self._found) > self._limit:
            return self._full()
        return replace(page, entries=tuple(self._found)) if page.more else None

    def _spent(self, reads: int) -> bool:
        """Count read lines; return whether the query allows no more."""
        if self._reads is None:
            return False
        self._reads -= reads
        return self._reads <= 0

    def _full(self) -> LogPage:
        entries = tuple(self._found[: self._limit])
        return LogPage(entries=entries, cursor=cursor_after(entries[-1]), more=True, reached=entries[-1].timestamp)

    def _paused(self) -> LogPage:
        """Return what was found between segments. No line has the cursor's place."""
        at = self._end if self._query.newest_first else self._first
        return LogPage(
            entries=tuple(self._found), cursor=write_cursor([at, "", 0]), more=True, reached=from_microseconds(at)
        )


async def search_of(connection: AsyncConnection, account: AccountId, query: LogQuery) -> SegmentSearch | None:
    """Return a search by segments; None if rows answer sooner."""
    # Nothing of a text that is only accents may be left.
    if not query.search or not fold(query.search):
        return None
    if query.runner_id is None:
        return None if query.app_name is None else SegmentSearch(connection, account, query.app_name, query)
    lines, segments = LOG_LINES.c, LOG_SEGMENTS.c
    its = select(lines.app_name, lines.sequence, lines.timestamp).limit(1)
    its = its.where(owned_by(LOG_LINES, account), lines.runner_id == query.runner_id)
    first = (await connection.execute(its.order_by(lines.sequence))).one_or_none()
    last = (await connection.execute(its.order_by(lines.sequence.desc()))).one_or_none()
    if first is None or last is None:
        return None
    app_name, count = str(first.app_name), last.sequence - first.sequence + 1
    if count < MANY_LINES or query.app_name not in (None, app_name):
        return None
    of_app = select(func.sum(segments.lines)).where(
        owned_by(LOG_SEGMENTS, account),
        segments.app_name == app_name,
        segments.until_at > first.timestamp,
        segments.begin_at <= last.timestamp,
    )
    if ((await connection.execute(of_app)).scalar() or 0) > count * _TIMES_AS_MANY:
        return None
    begin, end = from_microseconds(first.timestamp), from_microseconds(last.timestamp + 1)
    within = replace(query, since=max(begin, query.since or begin), until=min(end, query.until or end))
    return SegmentSearch(connection, account, app_name, within)


def _place(entry: LogEntry) -> Place:
    return to_microseconds(entry.timestamp), entry.runner_id, entry.sequence
