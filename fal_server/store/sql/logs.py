"""Log lines in the database, each exactly once, with pages and cursors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias, cast

from sqlalchemy import ColumnElement, Select, delete, func, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.cursors import read_cursor, write_cursor
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AccountId, Accounts
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.store.sql.columns import from_microseconds, to_microseconds
from fal_server.store.sql.database import Database
from fal_server.store.sql.dialect import contains
from fal_server.store.sql.drains import count_lost, forget_positions
from fal_server.store.sql.log_rows import LogRow, from_rows, runners_with_lines, to_rows
from fal_server.store.sql.tables import LOG_LINES, owned_by

_Place: TypeAlias = "tuple[int, str, int]"  # microseconds, runner, sequence
_MOST_LINES = 10_000
_FORGET_BATCH = 5_000
# Freeing the space of this many deleted lines is worthwhile; the space of fewer is soon reused.
_MANY = 10_000
# The size of a line besides its message: the other columns, and its index entries (measured).
_LINE_BYTES = 360
_COLUMNS = tuple(LOG_LINES.c)
_RUNNER_ORDER = (LOG_LINES.c.sequence,)
_APP_ORDER = (LOG_LINES.c.timestamp, LOG_LINES.c.runner_id, LOG_LINES.c.sequence)


class SqlLogStore:
    """Implements the port LogStore in a Store's database. The Store closes it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._size = 0  # stored bytes; those from before the start are missing until they are counted
        self._counted = False
        self._bound: tuple[int, Callable[[], None]] | None = None

    async def append(self, entries: Sequence[LogEntry]) -> None:
        if not entries:
            return
        await self._database.insert_missing(LOG_LINES, lambda: to_rows(entries))
        if self._bound is not None:
            most_bytes, passed = self._bound
            self._size += sum([len(entry.message) for entry in entries]) + len(entries) * _LINE_BYTES
            if self._size > most_bytes:
                passed()

    def bound(self, most_bytes: int, passed: Callable[[], None]) -> None:
        self._bound = most_bytes, passed

    async def last_sequence(self, account: Accounts, runner_id: str) -> int:
        query = select(LOG_LINES.c.sequence).where(owned_by(LOG_LINES, account), LOG_LINES.c.runner_id == runner_id)
        query = query.order_by(LOG_LINES.c.sequence.desc()).limit(1)

        async def highest(connection: AsyncConnection) -> int:
            return (await connection.execute(query)).scalar() or 0

        return await self._database.read(highest)

    async def first_unsent(
        self, account: AccountId, app_name: str, sent: Mapping[str, int], since: datetime | None
    ) -> datetime | None:
        lines, floor = LOG_LINES.c, None if since is None else to_microseconds(since)
        runners = runners_with_lines()
        one = select(lines.runner_id).where(lines.runner_id == runners.c.runner_id)
        app = one.with_only_columns(lines.app_name).limit(1).scalar_subquery()
        owner = one.with_only_columns(lines.account).limit(1).scalar_subquery()
        runners_of_app = select(runners.c.runner_id).where(app == app_name, owner == account)

        async def oldest(connection: AsyncConnection) -> int | None:
            found: list[int] = []
            for runner_id in (await connection.execute(runners_of_app)).scalars().all():
                unsent = select(lines.timestamp).where(lines.runner_id == runner_id)
                if runner_id in sent:
                    unsent = unsent.where(lines.sequence > sent[runner_id]).order_by(lines.sequence)
                else:
                    unsent = unsent.where(true() if floor is None else lines.timestamp >= floor)
                    unsent = unsent.order_by(lines.timestamp)
                found += (await connection.execute(unsent.limit(1))).scalars()
            return min(found, default=None)

        at = await self._database.read(oldest)
        return None if at is None else from_microseconds(at)

    async def page(self, account: AccountId, query: LogQuery) -> LogPage:
        """Return a runner's lines by sequence, others by (timestamp, runner, sequence)."""
        limit = max(1, min(query.limit, _MOST_LINES))

        async def rows(connection: AsyncConnection) -> tuple[list[LogEntry], _Place | None]:
            end = None
            if query.reads is not None and (query.search or query.sources):
                end = await _place_after(connection, account, query, query.reads)
            chosen = _chosen(connection, query).where(owned_by(LOG_LINES, account))
            if end is not None:
                chosen = chosen.where(_up_to(query, end))
            read = cast("Iterable[LogRow]", await connection.execute(chosen.limit(limit + 1)))
            return from_rows(read), end

        found, end = await self._database.read(rows)
        entries = tuple(found[:limit])
        if len(found) <= limit and end is not None:
            return LogPage(
                entries=entries, cursor=write_cursor(list(end)), more=True, reached=from_microseconds(end[0])
            )
        cursor = cursor_after(entries[-1]) if entries else query.after or ""
        reached = entries[-1].timestamp if entries else None
        return LogPage(entries=entries, cursor=cursor, more=len(found) > limit, reached=reached)

    async def forget(self, before: datetime) -> int:
        """Delete old lines in transactions of some thousands. Writers get their turn in between."""
        old = select(*_APP_ORDER).where(LOG_LINES.c.timestamp < to_microseconds(before))
        old = old.order_by(*_APP_ORDER).limit(_FORGET_BATCH)

        async def some(connection: AsyncConnection) -> int:
            places = (await connection.execute(old)).all()
            return await _delete_up_to(connection, tuple(places[-1])) if places else 0

        total = 0
        while deleted := await self._database.write(some):
            total += deleted
        if total:
            await self._database.write(forget_positions)
        self._counted = False
        await self._give_back(total)
        return total

    async def shrink(self, most_bytes: int, room_bytes: int = 0) -> int:
        size = func.length(LOG_LINES.c.message) + _LINE_BYTES
        oldest = select(*_APP_ORDER, size).order_by(*_APP_ORDER).limit(_FORGET_BATCH)

        async def stored(connection: AsyncConnection) -> int:
            return (await connection.execute(select(func.sum(size)))).scalar() or 0

        async def some(connection: AsyncConnection) -> tuple[int, int]:
            last, freed = None, 0
            for *place, length in (await connection.execute(oldest)).all():
                if freed >= excess:
                    break
                last, freed = place, freed + length
            if last is None:
                return 0, excess
            return await _delete_up_to(connection, tuple(last)), freed

        if self._bound is None or not self._counted:
            before = self._size
            self._size += await self._database.read(stored) - before
            self._counted = True
        total = 0
        if self._size > most_bytes:
            while (excess := self._size - most_bytes + room_bytes) > 0:
                deleted, freed = await self._database.write(some)
                total, self._size = total + deleted, self._size - freed
        await self._give_back(total)
        return total

    async def _give_back(self, deleted: int) -> None:
        if deleted >= _MANY:
            await self._database.give_back()


def cursor_after(entry: LogEntry) -> str:
    """Return the cursor directly after a line. It stays valid when the line is deleted."""
    return write_cursor([to_microseconds(entry.timestamp), entry.runner_id, entry.sequence])


def position_of(cursor: str) -> tuple[int, str, int]:
    """Return a cursor's (timestamp in microseconds, runner_id, sequence).

    Raises:
        InvalidArgument: it is not a cursor.
    """
    try:
        match read_cursor(cursor):
            case [int(timestamp), str(runner_id), int(sequence)] if max(abs(timestamp), abs(sequence)) < 2**63:
                return timestamp, runner_id, sequence
            case _:
                pass
    except ValueError:
        pass
    raise InvalidArgument("cursor", "the cursor was not given out by this controller: begin again without one")


async def _delete_up_to(connection: AsyncConnection, last: tuple[object, ...]) -> int:
    """Delete the lines up to a place, by time; return how many."""
    deleted = tuple_(*_APP_ORDER) <= last
    await count_lost(connection, deleted)
    return (await connection.execute(delete(LOG_LINES).where(deleted))).rowcount


async def _place_after(connection: AsyncConnection, account: AccountId, query: LogQuery, count: int) -> _Place | None:
    """Return the position of the `count`-th next line, matching or not. None if the range has fewer."""
    in_range = replace(query, search=None, sources=(), request_id=None)
    place = _chosen(connection, in_range).where(owned_by(LOG_LINES, account)).with_only_columns(*_APP_ORDER)
    row = (await connection.execute(place.offset(count - 1).limit(1))).one_or_none()
    return None if row is None else (row[0], row[1], row[2])


def _up_to(query: LogQuery, end: _Place) -> ColumnElement[bool]:
    """Return whether a line is at or before a position. The order is the query's."""
    if query.runner_id is not None:
        return LOG_LINES.c.sequence >= end[2] if query.newest_first else LOG_LINES.c.sequence <= end[2]
    return tuple_(*_APP_ORDER) >= end if query.newest_first else tuple_(*_APP_ORDER) <= end


def _chosen(connection: AsyncConnection, query: LogQuery) -> Select[tuple[object, ...]]:
    order = _APP_ORDER if query.runner_id is None else _RUNNER_ORDER
    conditions = []
    if query.after:
        timestamp, runner_id, sequence = position_of(query.after)
        place = (sequence,) if query.runner_id is not None else (timestamp, runner_id, sequence)
        here = tuple_(*order)
        conditions.append(here < place if query.newest_first else here > place)
        # The cursor lies within `since` and `until`. Omit the bound on its side, because SQLite would search by that
        # bound and read every line between it and the cursor.
        query = replace(query, until=None) if query.newest_first else replace(query, since=None)
    conditions += _conditions(connection, query)
    directed = [column.desc() for column in order] if query.newest_first else order
    return select(*_COLUMNS).where(*conditions).order_by(*directed)


def _conditions(connection: AsyncConnection, query: LogQuery) -> list[ColumnElement[bool]]:
    lines = LOG_LINES.c
    conditions: list[ColumnElement[bool]] = []
    if query.runner_id is not None:
        conditions.append(lines.runner_id == query.runner_id)
        conditions += _sequences(query)
    if query.above:
        conditions.append(lines.sequence > query.above)
    if query.app_name is not None:
        conditions.append(lines.app_name == query.app_name)
    if query.since is not None:
        conditions.append(lines.timestamp >= to_microseconds(query.since))
    if query.until is not None:
        conditions.append(lines.timestamp < to_microseconds(query.until))
    if query.sources:
        conditions.append(lines.source.in_([source.value for source in query.sources]))
    if query.request_id is not None:
        conditions.append(lines.request_id == query.request_id)
    if query.search:
        conditions.append(contains(connection, lines.message, query.search))
    return conditions


def _sequences(query: LogQuery) -> list[ColumnElement[bool]]:
    """Return a query's times as a runner's sequence numbers. They are found faster and increase with time."""
    lines, bounds = LOG_LINES.c, LOG_LINES.alias().c
    of_runner = select(bounds.sequence).where(bounds.runner_id == query.runner_id).limit(1)
    conditions: list[ColumnElement[bool]] = []
    if query.since is not None:
        first = of_runner.where(bounds.timestamp >= to_microseconds(query.since))
        conditions.append(lines.sequence >= first.order_by(bounds.timestamp, bounds.sequence).scalar_subquery())
    if query.until is not None:
        last = of_runner.where(bounds.timestamp < to_microseconds(query.until))
        latest = last.order_by(bounds.timestamp.desc(), bounds.sequence.desc())
        conditions.append(lines.sequence <= latest.scalar_subquery())
    return conditions
