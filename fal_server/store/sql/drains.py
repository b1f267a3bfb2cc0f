"""Log drains in the database, their cursors, and their unread lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from heapq import merge
from itertools import accumulate
from typing import cast

from sqlalchemy import ColumnElement, RowMapping, and_, delete, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.drains import DrainBatch, DrainFormat, LogDrain, Unsent
from fal_server.core.identity import EVERY_ACCOUNT, AccountId, Accounts
from fal_server.core.logs import LogEntry, LogLevel
from fal_server.store.sql.columns import from_microseconds, to_microseconds
from fal_server.store.sql.database import Database
from fal_server.store.sql.dialect import insert_missing, upsert
from fal_server.store.sql.log_rows import LogRow, first_at, from_rows, runners_with_lines
from fal_server.store.sql.tables import DRAIN_POSITIONS, DRAINS, LOG_LINES, owned_by

_LINES = LOG_LINES.c
_POSITIONS = DRAIN_POSITIONS.c


class SqlDrainStore:
    """The DrainStore port, in the database of a Store, which closes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, drain: LogDrain) -> bool:
        taken = select(DRAINS.c.name).where(owned_by(DRAINS, drain.account), DRAINS.c.name == drain.name)

        async def work(connection: AsyncConnection) -> bool:
            if (await connection.execute(taken)).first() is not None:
                return False
            return (await connection.execute(insert_missing(connection, DRAINS), _to_row(drain))).rowcount > 0

        return await self._database.write(work)

    async def list(self, account: Accounts) -> Sequence[LogDrain]:
        async def work(connection: AsyncConnection) -> Sequence[LogDrain]:
            return await _all(connection, account)

        return await self._database.read(work)

    async def get(self, account: AccountId, name: str) -> LogDrain | None:
        query = select(DRAINS).where(owned_by(DRAINS, account), DRAINS.c.name == name)

        async def work(connection: AsyncConnection) -> LogDrain | None:
            row = (await connection.execute(query)).mappings().one_or_none()
            return None if row is None else _from_row(row)

        return await self._database.read(work)

    async def delete(self, account: AccountId, name: str) -> bool:
        chosen = delete(DRAINS).where(owned_by(DRAINS, account), DRAINS.c.name == name)

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(chosen)).rowcount > 0

        return await self._database.write(work)

    async def pause(self, account: AccountId, name: str, paused: bool) -> bool:
        change = update(DRAINS).where(owned_by(DRAINS, account), DRAINS.c.name == name).values(paused=paused)

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(change)).rowcount > 0

        return await self._database.write(work)

    async def behind(self, drain: LogDrain) -> frozenset[str]:
        runners = runners_with_lines()
        one = select(_LINES.sequence).where(_LINES.runner_id == runners.c.runner_id)
        position = select(_POSITIONS.sequence).where(
            _POSITIONS.drain_id == drain.drain_id, _POSITIONS.runner_id == runners.c.runner_id
        )
        query = select(
            runners.c.runner_id,
            one.with_only_columns(_LINES.account).limit(1).scalar_subquery(),
            one.with_only_columns(_LINES.app_name).limit(1).scalar_subquery(),
            one.order_by(_LINES.sequence.desc()).limit(1).scalar_subquery(),
            one.with_only_columns(_LINES.timestamp).order_by(_LINES.sequence.desc()).limit(1).scalar_subquery(),
            position.scalar_subquery(),
        ).where(runners.c.runner_id.is_not(None))
        since = to_microseconds(drain.since)

        async def work(connection: AsyncConnection) -> frozenset[str]:
            return frozenset(
                runner_id
                for runner_id, account, app_name, last, last_at, read in (await connection.execute(query)).all()
                if drain.covers(AccountId(account), app_name) and (last_at >= since if read is None else last > read)
            )

        return await self._database.read(work)

    async def next_batch(
        self, drain: LogDrain, runners: AbstractSet[str], read: Mapping[str, int], most_lines: int, most_bytes: int
    ) -> DrainBatch:
        each = max(most_lines // max(len(runners), 1), 1)

        async def work(connection: AsyncConnection) -> dict[str, list[LogEntry]]:
            cursor = {**await _positions(connection, drain, runners), **read}
            found: dict[str, list[LogEntry]] = {}
            for runner_id in runners:
                unread = _unread(drain, runner_id, cursor.get(runner_id))
                query = select(*LOG_LINES.c).where(*unread).order_by(_LINES.sequence).limit(each)
                found[runner_id] = from_rows(cast("Iterable[LogRow]", await connection.execute(query)))
            return found

        found = await self._database.read(work)
        entries, complete = _merged(found, each, most_bytes)
        reached = {entry.runner_id: entry.sequence for entry in entries}
        done = {
            runner_id
            for runner_id, lines in found.items()
            if runner_id in complete and (not lines or reached.get(runner_id) == lines[-1].sequence)
        }
        levels = drain.levels
        return DrainBatch(
            entries=[entry for entry in entries if entry.level in levels],
            reached=reached,
            read_lines=len(entries),
            left=frozenset(runners) - done,
        )

    async def advance(self, drain_id: str, reached: Mapping[str, int], sent_lines: int, at: datetime | None) -> None:
        rows = [
            {"drain_id": drain_id, "runner_id": runner_id, "sequence": sequence}
            for runner_id, sequence in reached.items()
        ]
        change = update(DRAINS).where(DRAINS.c.drain_id == drain_id).values(sent_lines=DRAINS.c.sent_lines + sent_lines)
        if at is not None:
            change = change.values(last_sent_at=at, last_error=None, last_error_at=None)

        async def work(connection: AsyncConnection) -> None:
            if (await connection.execute(change)).rowcount and rows:
                await connection.execute(upsert(connection, DRAIN_POSITIONS), rows)

        await self._database.write(work)

    async def fail(self, drain_id: str, error: str, at: datetime) -> None:
        change = update(DRAINS).where(DRAINS.c.drain_id == drain_id).values(last_error=error, last_error_at=at)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(change)

        await self._database.write(work)

    async def unsent(self, drain: LogDrain, runners: AbstractSet[str]) -> Unsent:
        async def work(connection: AsyncConnection) -> Unsent:
            cursor = await _positions(connection, drain, runners)
            lines, oldest = 0, None
            for runner_id in runners:
                query = select(func.count(), func.min(_LINES.timestamp)).where(
                    *_unread(drain, runner_id, cursor.get(runner_id)), _is_sent(drain)
                )
                count, first = (await connection.execute(query)).one()
                lines += count
                if first is not None:
                    oldest = first if oldest is None else min(oldest, first)
            return Unsent(lines=lines, oldest_at=None if oldest is None else from_microseconds(oldest))

        return await self._database.read(work)


async def count_lost(connection: AsyncConnection, deleted: ColumnElement[bool]) -> None:
    """Count each drain's unsent lines among what is about to be deleted."""
    for drain in await _all(connection, EVERY_ACCOUNT):
        of_drain = and_(_POSITIONS.drain_id == drain.drain_id, _POSITIONS.runner_id == _LINES.runner_id)
        conditions = [
            deleted,
            owned_by(LOG_LINES, drain.account),
            _is_sent(drain),
            or_(
                _LINES.sequence > _POSITIONS.sequence,
                and_(_POSITIONS.sequence.is_(None), _LINES.timestamp >= to_microseconds(drain.since)),
            ),
        ]
        if drain.apps:
            conditions.append(_LINES.app_name.in_(drain.apps))
        query = select(func.count()).select_from(LOG_LINES.outerjoin(DRAIN_POSITIONS, of_drain)).where(*conditions)
        if lost := (await connection.execute(query)).scalar_one():
            of_this = DRAINS.c.drain_id == drain.drain_id
            await connection.execute(update(DRAINS).where(of_this).values(lost_lines=DRAINS.c.lost_lines + lost))


async def forget_positions(connection: AsyncConnection) -> None:
    """Delete what cursors say of runners without lines. Whatever such a runner still writes is new."""
    lines = select(_LINES.sequence).where(_LINES.runner_id == _POSITIONS.runner_id)
    await connection.execute(delete(DRAIN_POSITIONS).where(~exists(lines.correlate(DRAIN_POSITIONS))))


async def _all(connection: AsyncConnection, account: Accounts) -> Sequence[LogDrain]:
    query = select(DRAINS).where(owned_by(DRAINS, account)).order_by(DRAINS.c.account, DRAINS.c.name)
    return [_from_row(row) for row in (await connection.execute(query)).mappings()]


async def _positions(connection: AsyncConnection, drain: LogDrain, runners: Iterable[str]) -> dict[str, int]:
    chosen = (_POSITIONS.drain_id == drain.drain_id, _POSITIONS.runner_id.in_(list(runners)))
    rows = await connection.execute(select(_POSITIONS.runner_id, _POSITIONS.sequence).where(*chosen))
    return dict(cast("Sequence[tuple[str, int]]", rows.all()))


def _unread(drain: LogDrain, runner_id: str, read: int | None) -> tuple[ColumnElement[bool], ...]:
    since = to_microseconds(drain.since)
    beyond = _LINES.sequence >= first_at(runner_id, since) if read is None else _LINES.sequence > read
    return (_LINES.runner_id == runner_id, beyond)


def _is_sent(drain: LogDrain) -> ColumnElement[bool]:
    return _LINES.level.in_(sorted(level.value for level in drain.levels))


def _merged(found: Mapping[str, list[LogEntry]], each: int, most_bytes: int) -> tuple[list[LogEntry], set[str]]:
    """Return lines by time, and the runners without further lines. Each runner's lines are in its own order.

    A runner that may have more lines ends the result with its last one, because they may be older than others'.
    """
    timed = {
        # A runner's clock may go back, and its lines stay in order.
        runner_id: list(zip(accumulate((entry.timestamp for entry in lines), max), lines, strict=True))
        for runner_id, lines in found.items()
    }
    complete = {runner_id for runner_id, lines in found.items() if len(lines) < each}
    horizon = min((lines[-1][0] for runner_id, lines in timed.items() if runner_id not in complete), default=None)
    entries: list[LogEntry] = []
    size = 0
    for at, entry in merge(*timed.values(), key=lambda one: one[0]):
        size += len(entry.message)
        if (horizon is not None and at > horizon) or (entries and size > most_bytes):
            break
        entries.append(entry)
    return entries, complete


def _to_row(drain: LogDrain) -> dict[str, object]:
    return {
        "drain_id": drain.drain_id,
        "account": drain.account,
        "name": drain.name,
        "shown_url": drain.shown_url,
        "format": drain.format.value,
        "apps": list(drain.apps),
        "least_level": drain.least_level.value,
        "header_names": list(drain.header_names),
        "signed": drain.signed,
        "paused": drain.paused,
        "created_at": drain.created_at,
        "since": drain.since,
        "sealed": drain.sealed,
        "sent_lines": drain.sent_lines,
        "lost_lines": drain.lost_lines,
        "last_sent_at": drain.last_sent_at,
        "last_error": drain.last_error,
        "last_error_at": drain.last_error_at,
    }


def _from_row(row: RowMapping) -> LogDrain:
    return LogDrain(
        account=AccountId(row["account"]),
        drain_id=row["drain_id"],
        name=row["name"],
        shown_url=row["shown_url"],
        format=DrainFormat(row["format"]),
        apps=tuple(row["apps"]),
        least_level=LogLevel(row["least_level"]),
        header_names=tuple(row["header_names"]),
        signed=row["signed"],
        paused=row["paused"],
        created_at=row["created_at"],
        since=row["since"],
        sealed=row["sealed"],
        sent_lines=row["sent_lines"],
        lost_lines=row["lost_lines"],
        last_sent_at=row["last_sent_at"],
        last_error=row["last_error"],
        last_error_at=row["last_error_at"],
    )
