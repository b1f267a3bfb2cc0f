"""Copies a database to another one, completely or not at all. The other may be of another kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Table, delete, func, insert, select
from sqlalchemy import inspect as inspector_of
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.core.faults import FailedPrecondition, Unavailable
from fal_server.store.sql import dialect, migrations
from fal_server.store.sql.controller_lock import take_lock
from fal_server.store.sql.driver_errors import driver_faults
from fal_server.store.sql.tables import METADATA, SETTINGS

_ROWS = 1000
# A sum of digests does not depend on the order of rows, which the two databases may sort differently.
_MODULUS = 1 << 256
_SOURCE, _TARGET = "the database to copy from", "the database to copy to"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyProgress:
    """The progress of a copy.

    Attributes:
        table: the table being copied or, if `checking`, read back from the copy.
        rows: its rows so far.
        total: its rows in total.
    """

    table: str
    rows: int
    total: int
    checking: bool = False


@dataclass(slots=True)
class _Sum:
    """The count of a table's rows, and the sum of their digests."""

    rows: int = 0
    digests: int = 0

    def add(self, row: Sequence[object]) -> None:
        text = _AS_TEXT(list(row))
        self.rows += 1
        self.digests = (self.digests + int.from_bytes(hashlib.sha256(text.encode()).digest())) % _MODULUS


async def copy_database(
    source: str | Path,
    target: str | Path,
    *,
    snapshot: bool = False,
    report: Callable[[CopyProgress], None] | None = None,
) -> int:
    """Copy every row, read the copy back and compare it. It is one transaction of the target.

    An older source is migrated first, as at the start of a controller. No controller may use either.

    Args:
        source, target: as for `open_store`. The target has no tables.
        snapshot: copy the current state of a PostgreSQL source, whose controller may keep using it.
        report: called every few thousand rows.

    Returns:
        The number of rows.

    Raises:
        Unavailable: one of them cannot be used, or the copy differs.
        FailedPrecondition: a controller uses one of them, the source was never one's, or the target has tables.
    """
    tell = report or _tell_nobody
    with driver_faults():
        async with (
            _snapshot(source) if snapshot else _opened(source, _SOURCE) as origin,
            _opened(target, _TARGET) as copy,
        ):
            return await _copied(origin, copy, tell)


def _tell_nobody(_: CopyProgress) -> None:
    pass


async def _copied(origin: AsyncConnection, copy: AsyncConnection, tell: Callable[[CopyProgress], None]) -> int:
    if await copy.run_sync(lambda connection: inspector_of(connection).get_table_names()):
        raise FailedPrecondition(
            f"{_TARGET} has tables already: give an empty one, such as `createdb` makes. If an earlier copy was cut "
            "off at its very end, it is there and whole: drop it and copy again, or start the controller on it"
        )
    if SETTINGS.name not in await origin.run_sync(lambda connection: inspector_of(connection).get_table_names()):
        raise FailedPrecondition(f"{_SOURCE} is not a controller's: it has no table of its settings. Is its URL right?")
    await origin.run_sync(migrations.bring_up_to_date, _SOURCE)
    await copy.run_sync(migrations.bring_up_to_date, _TARGET)
    for table in reversed(METADATA.sorted_tables):  # the source already contains rows that migrations insert
        await copy.execute(delete(table))
    sums = {table.name: await _fill(origin, copy, table, tell) for table in METADATA.sorted_tables}
    for table in METADATA.sorted_tables:
        expected = sums[table.name]
        found = await _sum(copy, table, expected.rows, tell)
        if found != expected:
            raise Unavailable(
                f"nothing was copied, because the table {table.name} reads differently in the copy "
                f"({expected.rows} rows, {found.rows} in the copy)"
            )
    return sum(table.rows for table in sums.values())


async def _fill(
    origin: AsyncConnection, copy: AsyncConnection, table: Table, tell: Callable[[CopyProgress], None]
) -> _Sum:
    names, found = table.c.keys(), _Sum()
    total = await _count(origin, table)
    async for rows in _read(origin, table):
        for row in rows:
            found.add(row)
        await copy.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
        tell(CopyProgress(table=table.name, rows=found.rows, total=total))
    return found


async def _sum(copy: AsyncConnection, table: Table, total: int, tell: Callable[[CopyProgress], None]) -> _Sum:
    found = _Sum()
    async for rows in _read(copy, table):
        for row in rows:
            found.add(row)
        tell(CopyProgress(table=table.name, rows=found.rows, total=total, checking=True))
    return found


async def _read(connection: AsyncConnection, table: Table) -> AsyncGenerator[Sequence[Sequence[object]]]:
    result = await connection.stream(select(table))
    async for rows in result.partitions(_ROWS):
        yield rows


async def _count(connection: AsyncConnection, table: Table) -> int:
    return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def back_up_file(source: Path, target: Path) -> None:
    """Copy a SQLite file in its current state and check the copy. A controller may write to it meanwhile.

    Args:
        target: a file that does not exist.

    Raises:
        Unavailable: the database cannot be read, the copy not be written, or it is damaged.
    """
    with driver_faults():
        engine = dialect.create_engine(source)
        try:
            async with engine.connect() as connection:
                dialect.make_private(target)
                await connection.exec_driver_sql("VACUUM INTO ?", (str(target),))
        finally:
            await engine.dispose()
        copy = dialect.create_engine(target)
        try:
            async with copy.connect() as connection:
                found = (await connection.exec_driver_sql("PRAGMA quick_check")).scalar_one()
        finally:
            await copy.dispose()
    if found != "ok":
        raise Unavailable(f"the copy of {source} is damaged: {found}")


@asynccontextmanager
async def _snapshot(source: str | Path) -> AsyncGenerator[AsyncConnection]:
    """Connect in a read-only transaction that sees one state of the database."""
    engine = dialect.create_engine(source)
    try:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        async with engine.execution_options(**options).begin() as connection:
            yield connection
    finally:
        await engine.dispose()


@asynccontextmanager
async def _opened(target: str | Path, name: str) -> AsyncGenerator[AsyncConnection]:
    """Connect in a transaction that no controller shares."""
    engine = dialect.create_engine(target)
    try:
        async with engine.execution_options(**dialect.WRITES).begin() as connection:
            if engine.dialect.name == dialect.POSTGRESQL:
                try:
                    await take_lock(connection)
                except FailedPrecondition as fault:
                    raise FailedPrecondition(f"a controller uses {name}: stop it with `fal down` first") from fault
            yield connection
    finally:
        await engine.dispose()


def _plain(value: object) -> str:
    """Return a value that JSON lacks as text."""
    if isinstance(value, datetime):
        return value.isoformat()
    assert isinstance(value, bytes | memoryview), f"no column has a {type(value).__name__}"
    return bytes(value).hex()


_AS_TEXT = json.JSONEncoder(sort_keys=True, default=_plain).encode
