"""Writes to one SQLite file in a separate thread."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.store.sql import dialect
from fal_server.store.sql.portions import portions
from fal_server.store.sql.prepared import Compiled, Direct, Parameters, Prepared, Row
from fal_server.store.sql.writes import Work, run_each

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Executable

T = TypeVar("T")


class WriterThread:
    """Runs transactions on one SQLite file in a separate thread.

    The usual way switches between the event loop and a thread for each statement, which costs several times as much as
    the statements. Here a group is one visit to the thread.

    Args:
        path: the database's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fal-writer")
        self._connection: Connection | None = None
        self._parts_use: InThread | None = None

    async def transact(self, works: Sequence[Work[object]]) -> Sequence[object]:
        """Run the parts of a group in one transaction; see `GroupedWrites`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, works)

    async def close(self) -> None:
        """Close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _transact(self, works: Sequence[Work[object]]) -> Sequence[object]:
        if self._connection is None:
            self._connection = dialect.create_writer(self._path).connect()
            self._parts_use = InThread(self._connection)
        with self._connection.begin():
            return _at_once(run_each(works, cast("AsyncConnection", self._parts_use)))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class InThread(Direct):
    """The methods of an AsyncConnection that parts call, without a loop. Nothing here waits for one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = connection.dialect
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver = driver

    async def change(self, statement: Prepared, parameters: Parameters) -> int:
        return self._run(statement, parameters)[1].rowcount

    async def insert_each(self, statement: Prepared, rows: Sequence[Parameters]) -> None:
        compiled = statement.compiled(self.dialect, rows[0])
        with self._faults(compiled):
            for some in portions(rows):
                values = list(chain.from_iterable(map(compiled.values, some)))
                self._driver.execute(compiled.of_rows(len(some)), values)

    async def rows(self, statement: Prepared, parameters: Parameters) -> Sequence[Row]:
        compiled, cursor = self._run(statement, parameters)
        return [compiled.row(found) for found in cursor]

    async def execute(
        self, statement: Executable, parameters: dict[str, object] | list[dict[str, object]] | None = None
    ) -> CursorResult[object]:
        return self._connection.execute(statement, parameters)

    async def run_sync(self, work: Callable[..., T], *arguments: object) -> T:
        return work(self._connection, *arguments)

    def _run(self, statement: Prepared, parameters: Parameters) -> tuple[Compiled, sqlite3.Cursor]:
        compiled = statement.compiled(self.dialect, parameters)
        with self._faults(compiled):
            return compiled, self._driver.execute(compiled.sql, compiled.values(parameters))

    @contextmanager
    def _faults(self, compiled: Compiled) -> Generator[None]:
        """Raise the driver's errors like SQLAlchemy. It leaves out the values, which may be secrets."""
        try:
            yield
        except sqlite3.Error as error:
            raise DBAPIError.instance(
                compiled.sql, None, error, sqlite3.Error, hide_parameters=True, dialect=self.dialect
            ) from error


def _at_once(work: Awaitable[T]) -> T:
    """Run a coroutine that waits for nothing, and return its result."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as end:
        return cast("T", end.value)
    raise AssertionError("a transaction waits for something else than its database")
