"""A database. Its transactions survive a cancelled caller, and it raises faults instead of driver errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from sqlalchemy import Table
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fal_server.aio.tasks import TaskSet
from fal_server.core.faults import AlreadyExists, FailedPrecondition, Unavailable
from fal_server.core.sketch import DurationSketch
from fal_server.store.sql import dialect
from fal_server.store.sql.bulk import BulkWriter, Row
from fal_server.store.sql.driver_errors import driver_faults, names_missing_row, sqlite_faults
from fal_server.store.sql.postgresql_writer import WriterConnection
from fal_server.store.sql.sqlite_writer import WriterThread
from fal_server.store.sql.writes import GroupedWrites, Work, run_each

T = TypeVar("T")
_PAGES = 1000


class Database:
    """Transactions on one engine.

    Writes are grouped, first come, first served. SQLite has one writer, and its own lock would make others poll, so
    other kinds of writes take turns with the groups.

    Args:
        engine: from `dialect.create_engine`.
        epoch: of the controller that holds the lease of a PostgreSQL database; later ones fence its writes.
    """

    def __init__(self, engine: AsyncEngine, *, epoch: int | None = None) -> None:
        self._engine = engine
        self._engine_for_writes = engine.execution_options(**dialect.WRITES)
        self._write_turn = asyncio.Lock() if engine.dialect.name == dialect.SQLITE else None
        self._read_turn = self._write_turn if dialect.single_connection(engine) else None
        self._transactions = TaskSet(None)
        self._bulk: dict[str, BulkWriter] = {}
        self._closed = False
        self._file = dialect.sqlite_file(engine)
        self._file_id: tuple[int, int] | None = None
        self._writer: WriterThread | WriterConnection | None = None if self._file is None else WriterThread(self._file)
        if engine.dialect.name == dialect.POSTGRESQL:
            self._writer = WriterConnection(engine, epoch)
        self._writes = GroupedWrites(self._transact, self._transactions)

    @property
    def write_durations(self) -> DurationSketch:
        """Return how long groups of writes took."""
        return self._writes.durations

    async def read(self, work: Work[T]) -> T:
        """Run a query.

        Raises:
            Unavailable: the database cannot be read, or is closed.
        """
        return await self._whole(self._read(work))

    async def write(self, work: Work[T]) -> T:
        """Run a transaction durably; if `work` raises, nothing is changed.

        It shares a commit with others, see `GroupedWrites`: `work` may run twice, and awaits only its connection.

        Raises:
            Unavailable: the database cannot be written, or is closed.
            FailedPrecondition: another controller uses it.
        """
        self._check_open()
        with driver_faults():
            return await self._writes.run(work)  # to its end, even if the caller is cancelled

    async def insert_missing(self, table: Table, rows: Callable[[], Sequence[Row]]) -> None:
        """Insert rows whose key does not exist, in one transaction. Columns are in the table's order.

        `rows` is called when no other transaction writes. What it raises is raised here, and nothing is inserted.

        Raises:
            Unavailable: the database cannot be written, or is closed.
        """
        if self._file is None:

            async def insert(connection: AsyncConnection) -> None:
                named = [dict(zip(table.c.keys(), row, strict=True)) for row in rows()]
                await connection.execute(dialect.insert_missing(connection, table), named)

            await self.write(insert)
            return
        writer = self._bulk.get(table.name) or BulkWriter(self._file, table)
        self._bulk[table.name] = writer
        await self._whole(self._insert(writer, rows))

    async def give_back(self) -> None:
        """Return the space of deleted rows to the disk. Writers run between the steps.

        Only SQLite needs it, and only a database created with incremental auto_vacuum shrinks.

        Raises:
            Unavailable: the database cannot be written, or is closed.
        """
        if self._file is None:
            return
        free = await self._whole(self._maintain(f"PRAGMA incremental_vacuum({_PAGES})"))
        while free and (left := await self._whole(self._maintain(f"PRAGMA incremental_vacuum({_PAGES})"))) < free:
            free = left
        await self._whole(self._maintain(dialect.CHECKPOINT))

    async def close(self) -> None:
        """Wait for running transactions, then close the database. A second call does nothing."""
        self._closed = True
        await self._transactions.wait()
        while self._bulk:
            await self._bulk.popitem()[1].close()
        if self._writer is not None:
            await self._writer.close()
            self._writer = None
        await self._engine.dispose()

    async def _whole(self, transaction: Coroutine[object, None, T]) -> T:
        """Run a transaction to its end. A cancelled one would leave a connection inside a statement."""
        try:
            self._check_open()
        except Unavailable:
            transaction.close()
            raise
        return await asyncio.shield(self._transactions.spawn(transaction))

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed: the controller is stopping")

    async def _read(self, work: Work[T]) -> T:
        with driver_faults():
            async with self._read_turn or nullcontext(), self._engine.connect() as connection:
                return await work(connection)

    async def _transact(self, works: Sequence[Work[object]]) -> Sequence[object]:
        """Run the parts of a group in one transaction; see `GroupedWrites`."""
        async with self._write_turn or nullcontext():
            self._check_in_place()
            if self._writer is not None:
                return await self._writer.transact(works)
            async with self._engine_for_writes.begin() as connection:
                return await run_each(works, connection)

    async def _maintain(self, pragma: str) -> int:
        """Run a pragma outside of a transaction. Return the number of free pages after it."""
        with driver_faults():
            async with self._write_turn or nullcontext(), self._engine.connect() as connection:
                self._check_in_place()
                # A single execute() would free only one page: the driver takes one step of a statement without columns.
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                with sqlite_faults():
                    await driver.executescript(pragma)
                free: int = (await connection.exec_driver_sql("PRAGMA freelist_count")).scalar_one()
                return free

    async def _insert(self, writer: BulkWriter, rows: Callable[[], Sequence[Row]]) -> None:
        async with self._write_turn or nullcontext():
            self._check_in_place()
            await writer.insert(rows)

    def _check_in_place(self) -> None:
        """Refuse to write to a file that was moved or deleted: SQLite would acknowledge writes that are lost.

        Raises:
            Unavailable: the file at the path is not the opened one.
        """
        if self._file is None:
            return
        try:
            status = self._file.stat()
        except OSError:
            status = None
        found = None if status is None else (status.st_dev, status.st_ino)
        if self._file_id is None:
            self._file_id = found
        elif found != self._file_id:
            raise Unavailable(f"the database {self._file} was moved or deleted: nothing can be stored until it is back")


@contextmanager
def explained(*, taken: str = "", missing: str = "") -> Generator[None]:
    """Turn a violated constraint into a fault.

    Args:
        taken: the message if the primary key exists.
        missing: the message if a referenced row is missing, or a row to delete is still referenced.

    Raises:
        AlreadyExists: the primary key exists.
        FailedPrecondition: a foreign key is violated.
    """
    try:
        yield
    except IntegrityError as error:
        if names_missing_row(error):
            raise FailedPrecondition(missing) from None
        raise AlreadyExists(taken) from None
