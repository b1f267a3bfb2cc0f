"""Log lines in the database, each exactly once, with pages and cursors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import attrgetter

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.identity import AccountId, Accounts
from fal_server.core.logs import LogEntry, LogPage, LogQuery
from fal_server.store.sql.columns import from_microseconds, to_microseconds
from fal_server.store.sql.database import Database
from fal_server.store.sql.dialect import insert_missing
from fal_server.store.sql.drains import count_lost, forget_positions
from fal_server.store.sql.log_pages import APP_ORDER, Place, page_of_rows
from fal_server.store.sql.log_rows import LogRow, first_at, runners_with_lines, to_rows
from fal_server.store.sql.log_sealing import Sealing, unseal_late, unseal_up_to
from fal_server.store.sql.log_search import search_of
from fal_server.store.sql.tables import LOG_LINES, owned_by

_APP_OF = attrgetter("account", "app_name")
_FORGET_BATCH = 5_000
# Freeing the space of this many deleted lines is worthwhile; the space of fewer is soon reused.
_MANY = 10_000
# The size of a line besides its message: the other columns, its index entries, and its part of a segment (measured).
_LINE_BYTES = 400


class _Late(Exception):
    """A line may be in a sealed range. That range is then sealed again."""


class SqlLogStore:
    """Implements the port LogStore in a Store's database. The Store closes it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sealing = Sealing(database)
        self._size = 0  # stored bytes; those from before the start are missing until they are counted
        self._counted = False
        self._bound: tuple[int, Callable[[], None]] | None = None

    async def append(self, entries: Sequence[LogEntry]) -> None:
        if not entries:
            return
        if self._sealing.until is None:
            await self._sealing.begin()
        try:
            await self._database.insert_missing(LOG_LINES, lambda: self._in_time(to_rows(entries)))
        except _Late:
            await self._database.write(partial(_store_late, entries=entries))
        self._sealing.appended(set(map(_APP_OF, entries)))
        if self._bound is not None:
            most_bytes, passed = self._bound
            self._size += sum([len(entry.message) for entry in entries]) + len(entries) * _LINE_BYTES
            if self._size > most_bytes:
                passed()

    def _in_time(self, rows: list[LogRow]) -> list[LogRow]:
        """Return the rows when their transaction begins.

        Raises:
            _Late: one of them may be in a sealed range.
        """
        if min([at for _, _, at, *_ in rows]) < (self._sealing.until or 0):
            raise _Late
        return rows

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
                    unsent = unsent.where(lines.sequence > sent[runner_id])
                elif floor is not None:
                    unsent = unsent.where(lines.sequence >= first_at(runner_id, floor))
                found += (await connection.execute(unsent.order_by(lines.sequence).limit(1))).scalars()
            return min(found, default=None)

        at = await self._database.read(oldest)
        return None if at is None else from_microseconds(at)

    async def page(self, account: AccountId, query: LogQuery) -> LogPage:
        """Return a runner's lines by sequence, others by (timestamp, runner, sequence)."""

        async def read(connection: AsyncConnection) -> LogPage:
            search = await search_of(connection, account, query)
            return await page_of_rows(connection, account, query) if search is None else await search.page()

        return await self._database.read(read)

    async def seal(self, before: datetime, most: int) -> int:
        return await self._sealing.seal(to_microseconds(before), most)

    async def forget(self, before: datetime) -> int:
        """Delete old lines in transactions of some thousands. Writers get their turn in between."""
        old = select(*APP_ORDER).where(LOG_LINES.c.timestamp < to_microseconds(before))
        old = old.order_by(*APP_ORDER).limit(_FORGET_BATCH)

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
        oldest = select(*APP_ORDER, size).order_by(*APP_ORDER).limit(_FORGET_BATCH)

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


async def _delete_up_to(connection: AsyncConnection, last: Place) -> int:
    """Delete the lines up to a place, by time; return how many."""
    deleted = tuple_(*APP_ORDER) <= last
    await count_lost(connection, deleted)
    await unseal_up_to(connection, last[0])
    return (await connection.execute(delete(LOG_LINES).where(deleted))).rowcount


async def _store_late(connection: AsyncConnection, entries: Sequence[LogEntry]) -> None:
    await unseal_late(connection, entries)
    named = [dict(zip(LOG_LINES.c.keys(), row, strict=True)) for row in to_rows(entries)]
    await connection.execute(insert_missing(connection, LOG_LINES), named)
