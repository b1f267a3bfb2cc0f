"""One database: transactions that run whole though their caller be cancelled; faults in place of driver errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import TypeAlias, TypeVar

from sqlalchemy import Table
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fal_server.aio.tasks import TaskSet
from fal_server.core.faults import AlreadyExists, FailedPrecondition, Unavailable
from fal_server.store.sql import dialect
from fal_server.store.sql.bulk import BulkWriter, Row
from fal_server.store.sql.controller_lock import ControllerLock

T = TypeVar("T")
Work: TypeAlias = "Callable[[AsyncConnection], Awaitable[T]]"


class Database:
    """Transactions on one engine.

    SQLite has one writer: writes wait here in line, first come first served, where its own lock would let them poll.

    Args:
        engine: as `dialect.create_engine` made it.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**dialect.WRITES)
        self._write_turn = asyncio.Lock() if engine.dialect.name == dialect.SQLITE else None
        self._read_turn = self._write_turn if dialect.single_connection(engine) else None
        self._claim = ControllerLock(engine) if engine.dialect.name == dialect.POSTGRESQL else None
        self._under_way = TaskSet(None)
        self._bulk: dict[str, BulkWriter] = {}
        self._closed = False
        self._file = dialect.sqlite_file(engine)
        self._file_id: tuple[int, int] | None = None

    async def read(self, work: Work[T]) -> T:
        """Run a query.

        Raises:
            Unavailable: the database cannot be read, or is closed.
        """
        return await self._whole(self._read(work))

    async def write(self, work: Work[T]) -> T:
        """Run a transaction: all of it or, where `work` raises, nothing; durable on return.

        Raises:
            Unavailable: the database cannot be written, or is closed.
            FailedPrecondition: another controller uses it.
        """
        return await self._whole(self._write(work))

    async def insert_missing(self, table: Table, rows: Callable[[], Sequence[Row]]) -> None:
        """Insert rows, all columns in the table's order, in one transaction; those that are there stay as they are.

        Raises:
            Unavailable: the database cannot be written, or is closed.
        """
        if self._file is None:
            named = [dict(zip(table.c.keys(), row, strict=True)) for row in rows()]

            async def insert(connection: AsyncConnection) -> None:
                await connection.execute(dialect.insert_missing(connection, table), named)

            await self.write(insert)
            return
        writer = self._bulk.get(table.name) or BulkWriter(self._file, table)
        self._bulk[table.name] = writer
        await self._whole(self._insert(writer, rows))

    async def close(self) -> None:
        """Let what is under way finish, then let go of the database. A second call does nothing."""
        self._closed = True
        await self._under_way.wait()
        if self._claim is not None:
            with suppress(*dialect.connection_errors()):  # the server is gone, and the lock with it
                await self._claim.release()
        while self._bulk:
            await self._bulk.popitem()[1].close()
        await self._engine.dispose()

    async def _whole(self, transaction: Coroutine[object, None, T]) -> T:
        """A cancelled caller must not leave a connection in the middle of a statement: the transaction goes on."""
        if self._closed:
            transaction.close()
            raise Unavailable("the store is closed: the controller is stopping")
        return await asyncio.shield(self._under_way.spawn(transaction))

    async def _read(self, work: Work[T]) -> T:
        async with self._read_turn or nullcontext(), _faults(), self._engine.connect() as connection:
            return await work(connection)

    async def _write(self, work: Work[T]) -> T:
        async with self._write_turn or nullcontext(), _faults():
            self._check_in_place()
            if self._claim is not None:
                await self._claim.hold()
            async with self._writer.begin() as connection:
                return await work(connection)

    async def _insert(self, writer: BulkWriter, rows: Callable[[], Sequence[Row]]) -> None:
        async with self._write_turn or nullcontext():
            self._check_in_place()
            await writer.insert(rows)

    def _check_in_place(self) -> None:
        """Refuse to write into a file that was moved or deleted: SQLite would acknowledge what nobody keeps.

        Raises:
            Unavailable: the file at the path is not the one that was opened.
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
    """Turn a broken constraint into a fault.

    Args:
        taken: what to say where the primary key is there already.
        missing: what to say where a row that is referred to is missing, or one to delete is still referred to.

    Raises:
        AlreadyExists: the former.
        FailedPrecondition: the latter.
    """
    try:
        yield
    except IntegrityError as error:
        if dialect.names_missing_row(error):
            raise FailedPrecondition(missing) from None
        raise AlreadyExists(taken) from None


@asynccontextmanager
async def _faults() -> AsyncGenerator[None]:
    try:
        yield
    except (DataError, IntegrityError, ProgrammingError):
        raise  # a mistake in this program, not a state of the database
    except (DBAPIError, PoolTimeout) as error:
        words = str(error.orig) if isinstance(error, DBAPIError) else "all connections are in use"
        raise Unavailable(f"the database cannot be used ({words}): see to its disk and permissions") from error
    except dialect.connection_errors() as error:
        raise Unavailable(f"the database cannot be reached ({error}): is its server up, and its URL right?") from error
