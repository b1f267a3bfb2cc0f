"""Pages of log lines, read from their rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias, cast

from sqlalchemy import ColumnElement, Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.cursors import read_cursor, write_cursor
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AccountId
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.store.sql.columns import from_microseconds, to_microseconds
from fal_server.store.sql.dialect import contains
from fal_server.store.sql.log_rows import LogRow, first_at, from_rows
from fal_server.store.sql.tables import LOG_LINES, owned_by

Place: TypeAlias = "tuple[int, str, int]"  # microseconds, runner, sequence
MOST_LINES = 10_000
COLUMNS = tuple(LOG_LINES.c)
APP_ORDER = (LOG_LINES.c.timestamp, LOG_LINES.c.runner_id, LOG_LINES.c.sequence)
_RUNNER_ORDER = (LOG_LINES.c.sequence,)


async def page_of_rows(connection: AsyncConnection, account: AccountId, query: LogQuery) -> LogPage:
    """Return a runner's lines by sequence, others by (timestamp, runner, sequence)."""
    limit = max(1, min(query.limit, MOST_LINES))
    end = None
    if query.reads is not None and (query.search or query.sources):
        end = await _place_after(connection, account, query, query.reads)
    chosen = _chosen(connection, query).where(owned_by(LOG_LINES, account))
    if end is not None:
        chosen = chosen.where(_up_to(query, end))
    found = from_rows(cast("Iterable[LogRow]", await connection.execute(chosen.limit(limit + 1))))
    entries = tuple(found[:limit])
    if len(found) <= limit and end is not None:
        return LogPage(entries=entries, cursor=write_cursor(list(end)), more=True, reached=from_microseconds(end[0]))
    cursor = cursor_after(entries[-1]) if entries else query.after or ""
    reached = entries[-1].timestamp if entries else None
    return LogPage(entries=entries, cursor=cursor, more=len(found) > limit, reached=reached)


def cursor_after(entry: LogEntry) -> str:
    """Return the cursor directly after a line. It stays valid when the line is deleted."""
    return write_cursor([to_microseconds(entry.timestamp), entry.runner_id, entry.sequence])


def position_of(cursor: str) -> Place:
    """Return a cursor's (timestamp in microseconds, runner_id, sequence).

    Raises:
        InvalidArgument: it is not a cursor.
    """
    try:
        match read_cursor(cursor):
            case [int(timestamp), str(runner_id), int(sequence)] if abs(sequence) < 2**63:
                from_microseconds(timestamp)
                return timestamp, runner_id, sequence
            case _:
                pass
    except (ValueError, OverflowError):  # the latter if it is no time
        pass
    raise InvalidArgument("cursor", "the cursor was not given out by this controller: begin again without one")


async def _place_after(connection: AsyncConnection, account: AccountId, query: LogQuery, count: int) -> Place | None:
    """Return the position of the `count`-th next line, matching or not. None if the range has fewer."""
    in_range = replace(query, search=None, sources=(), request_id=None)
    place = _chosen(connection, in_range).where(owned_by(LOG_LINES, account)).with_only_columns(*APP_ORDER)
    row = (await connection.execute(place.offset(count - 1).limit(1))).one_or_none()
    return None if row is None else (row[0], row[1], row[2])


def _up_to(query: LogQuery, end: Place) -> ColumnElement[bool]:
    """Return whether a line is at or before a position. The order is the query's."""
    if query.runner_id is not None:
        return LOG_LINES.c.sequence >= end[2] if query.newest_first else LOG_LINES.c.sequence <= end[2]
    return tuple_(*APP_ORDER) >= end if query.newest_first else tuple_(*APP_ORDER) <= end


def _chosen(connection: AsyncConnection, query: LogQuery) -> Select[tuple[object, ...]]:
    order = APP_ORDER if query.runner_id is None else _RUNNER_ORDER
    conditions = []
    if query.after:
        timestamp, runner_id, sequence = position_of(query.after)
        # The cursor lies within `since` and `until`. Omit the bound on its side, because SQLite would search by that
        # bound and read every line between it and the cursor.
        bound = None if runner_id else from_microseconds(timestamp)  # between two segments, where no line is
        query = replace(query, until=bound) if query.newest_first else replace(query, since=bound)
        if bound is None:
            place = (sequence,) if query.runner_id is not None else (timestamp, runner_id, sequence)
            here = tuple_(*order)
            conditions.append(here < place if query.newest_first else here > place)
    conditions += conditions_of(connection, query)
    directed = [column.desc() for column in order] if query.newest_first else order
    return select(*COLUMNS).where(*conditions).order_by(*directed)


def conditions_of(connection: AsyncConnection, query: LogQuery) -> list[ColumnElement[bool]]:
    lines = LOG_LINES.c
    conditions: list[ColumnElement[bool]] = []
    if query.runner_id is not None:
        conditions.append(lines.runner_id == query.runner_id)
        conditions += _sequences(query.runner_id, query)
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


def _sequences(runner_id: str, query: LogQuery) -> list[ColumnElement[bool]]:
    """Return a query's times as a runner's sequence numbers. They are found faster and increase with time."""
    sequence, conditions = LOG_LINES.c.sequence, list[ColumnElement[bool]]()
    if query.since is not None:
        conditions.append(sequence >= first_at(runner_id, to_microseconds(query.since)))
    if query.until is not None:
        conditions.append(sequence < first_at(runner_id, to_microseconds(query.until)))
    return conditions
