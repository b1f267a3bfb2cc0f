"""Log lines in the database, each exactly once, and the pages and cursors over them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import TypeAlias, cast

from sqlalchemy import ColumnElement, Select, delete, func, select, tuple_
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.faults import Invalid
from fal_server.core.logs import LogEntry, LogLevel, LogPage, LogQuery, LogSource
from fal_server.store.columns import microseconds, moment
from fal_server.store.database import Database
from fal_server.store.dialect import SQLITE, contains, insert_missing
from fal_server.store.tables import LOG_LINES

_Row: TypeAlias = "tuple[str, int, int, str, str, str, str, str, str | None]"
_MOST_LINES = 10_000
_FORGET_BATCH = 5_000
_LEVELS = {level.value: level for level in LogLevel}
_SOURCES = {source.value: source for source in LogSource}
_COLUMNS = tuple(LOG_LINES.c)
_RUNNER_ORDER = (LOG_LINES.c.sequence,)
_APP_ORDER = (LOG_LINES.c.timestamp, LOG_LINES.c.runner_id, LOG_LINES.c.sequence)


class SqlLogStore:
    """The LogStore port in a database; shares it with the Store, which closes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[LogEntry]) -> None:
        """Keep these lines in one transaction; one whose (runner_id, sequence) is known is dropped."""
        if not entries:
            return
        rows = [to_row(entry) for entry in entries]

        async def insert(connection: AsyncConnection) -> None:
            if connection.dialect.name == SQLITE:
                # The statement's text, made once: SQLAlchemy's own way costs as much as the database itself.
                await connection.exec_driver_sql(_insert_text(), rows)
            else:
                named = [dict(zip(LOG_LINES.c.keys(), row, strict=True)) for row in rows]
                await connection.execute(insert_missing(connection, LOG_LINES), named)

        await self._database.write(insert)

    async def last_sequence(self, runner_id: str) -> int:
        """The highest sequence number kept for a runner; 0 for none."""
        query = select(func.max(LOG_LINES.c.sequence)).where(LOG_LINES.c.runner_id == runner_id)

        async def highest(connection: AsyncConnection) -> int:
            return (await connection.execute(query)).scalar() or 0

        return await self._database.read(highest)

    async def page(self, query: LogQuery) -> LogPage:
        """Some lines: a runner's in the order of their sequence, others by (timestamp, runner, sequence).

        Raises:
            Invalid: the cursor (field `cursor`) was not given out by this store.
        """
        limit = max(1, min(query.limit, _MOST_LINES))

        async def rows(connection: AsyncConnection) -> list[LogEntry]:
            chosen = _chosen(connection, query).limit(limit + 1)
            return from_rows(cast("Iterable[_Row]", await connection.execute(chosen)))

        found = await self._database.read(rows)
        entries = tuple(found[:limit])
        cursor = cursor_after(entries[-1]) if entries else query.after or ""
        return LogPage(entries=entries, cursor=cursor, more=len(found) > limit)

    async def forget(self, before: datetime) -> int:
        """Delete the lines older than this, some thousands a transaction so that writers get their turn; how many."""
        key = (LOG_LINES.c.runner_id, LOG_LINES.c.sequence)
        old = select(*key).where(LOG_LINES.c.timestamp < microseconds(before)).limit(_FORGET_BATCH)

        async def some(connection: AsyncConnection) -> int:
            return (await connection.execute(delete(LOG_LINES).where(tuple_(*key).in_(old)))).rowcount

        total = 0
        while deleted := await self._database.write(some):
            total += deleted
        return total


@cache
def _insert_text() -> str:
    return str(sqlite.insert(LOG_LINES).on_conflict_do_nothing().compile(dialect=sqlite.dialect()))


def to_row(entry: LogEntry) -> _Row:
    """A line as a row. What cannot be encoded (half a surrogate pair) is replaced rather than lost with its batch."""
    message = entry.message
    return (
        entry.runner_id,
        entry.sequence,
        microseconds(entry.timestamp),
        entry.level.value,
        entry.source.value,
        message if message.isascii() else message.encode("utf-8", "replace").decode("utf-8"),
        entry.app_name,
        entry.revision_id,
        entry.request_id,
    )


def from_rows(rows: Iterable[_Row]) -> list[LogEntry]:
    """Rows, with their columns in the table's order, as lines."""
    found: list[LogEntry] = []
    known, at = -1, moment(0)
    for runner_id, sequence, since, level, source, message, app_name, revision_id, request_id in rows:
        if since != known:  # lines that were read together have the same
            known, at = since, moment(since)
        found.append(
            LogEntry(
                runner_id=runner_id,
                sequence=sequence,
                timestamp=at,
                level=_LEVELS[level],
                source=_SOURCES[source],
                message=message,
                app_name=app_name,
                revision_id=revision_id,
                request_id=request_id,
            )
        )
    return found


def cursor_after(entry: LogEntry) -> str:
    """The place right after a line. It names the line's position, not a row: the line itself may be forgotten."""
    position = json.dumps([microseconds(entry.timestamp), entry.runner_id, entry.sequence], separators=(",", ":"))
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def position_of(cursor: str) -> tuple[int, str, int]:
    """A cursor's (timestamp in microseconds, runner_id, sequence).

    Raises:
        Invalid: it is not a cursor.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        match json.loads(base64.b64decode(padded, altchars=b"-_", validate=True)):
            case [int(timestamp), str(runner_id), int(sequence)] if max(abs(timestamp), abs(sequence)) < 2**63:
                return timestamp, runner_id, sequence
            case _:
                pass
    except (binascii.Error, ValueError, RecursionError):
        pass
    raise Invalid("cursor", "the cursor was not given out by this controller: begin again without one")


def _chosen(connection: AsyncConnection, query: LogQuery) -> Select[tuple[object, ...]]:
    order = _APP_ORDER if query.runner_id is None else _RUNNER_ORDER
    conditions = _conditions(connection, query)
    if query.after:
        timestamp, runner_id, sequence = position_of(query.after)
        place = (sequence,) if query.runner_id is not None else (timestamp, runner_id, sequence)
        here = tuple_(*order)
        conditions.append(here < place if query.newest_first else here > place)
    directed = [column.desc() for column in order] if query.newest_first else order
    return select(*_COLUMNS).where(*conditions).order_by(*directed)


def _conditions(connection: AsyncConnection, query: LogQuery) -> list[ColumnElement[bool]]:
    lines = LOG_LINES.c
    conditions: list[ColumnElement[bool]] = []
    if query.runner_id is not None:
        conditions.append(lines.runner_id == query.runner_id)
    if query.app_name is not None:
        conditions.append(lines.app_name == query.app_name)
    if query.since is not None:
        conditions.append(lines.timestamp >= microseconds(query.since))
    if query.until is not None:
        conditions.append(lines.timestamp < microseconds(query.until))
    if query.sources:
        conditions.append(lines.source.in_([source.value for source in query.sources]))
    if query.request_id is not None:
        conditions.append(lines.request_id == query.request_id)
    if query.search:
        conditions.append(contains(connection, lines.message, query.search))
    return conditions
