"""Writes to a PostgreSQL database through one connection. The connection also holds the controller's lock on it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar, cast

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fal_server.store.sql.controller_lock import take_lock
from fal_server.store.sql.driver_errors import connection_errors
from fal_server.store.sql.prepared import Direct, Parameters, Prepared, Row
from fal_server.store.sql.together import Ask, Together, run_together
from fal_server.store.sql.writes import Work, WorkFailed

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy import CursorResult, Executable

T = TypeVar("T")


class WriterConnection:
    """Runs transactions through a connection that stays open.

    A pool would test it before each transaction, in three more round trips. Here BEGIN is the test: if it fails,
    nothing was changed, so it is sent again on a new connection. PostgreSQL gives the lock of a broken connection to
    whoever asks next, so a controller that lost the lock can write nothing.

    Args:
        engine: of the database.
        epoch: of the controller that holds the database's lease; None for whoever works on it without one.
    """

    def __init__(self, engine: AsyncEngine, epoch: int | None = None) -> None:
        self._epoch = epoch
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")  # we send BEGIN, not SQLAlchemy
        self._connection: AsyncConnection | None = None
        self._parts_use: InTransaction | None = None

    async def transact(self, works: Sequence[Work[object]]) -> Sequence[object]:
        """Run the parts of a group in one transaction; see `GroupedWrites`.

        Raises:
            FailedPrecondition: another controller uses the database.
        """
        open_one = await self._begin()
        try:
            results = await _run_all(works, open_one)
            await open_one.send("COMMIT")
        except BaseException:
            await self._roll_back(open_one)
            raise
        return results

    async def close(self) -> None:
        """Close the connection, and with it the lock. The pool would keep both."""
        connection, self._connection, self._parts_use = self._connection, None, None
        if connection is not None:
            with suppress(*_failures()):  # the server is gone, and the connection with it
                await connection.invalidate()
                await connection.close()

    async def _begin(self) -> InTransaction:
        kept = self._parts_use
        if kept is not None and kept.usable:
            try:
                await kept.send("BEGIN")
            except _failures():
                pass  # it broke since the last transaction, and a new one shows whether the server is there
            else:
                return kept
        await self.close()
        opened = await self._open()
        await opened.send("BEGIN")
        return opened

    async def _open(self) -> InTransaction:
        self._connection = await self._engine.connect()
        try:
            await take_lock(self._connection, self._epoch)
            driver = (await self._connection.get_raw_connection()).driver_connection
        except BaseException:
            await self.close()
            raise
        self._parts_use = InTransaction(self._connection, cast("asyncpg.Connection[asyncpg.Record]", driver))
        return self._parts_use

    async def _roll_back(self, open_one: InTransaction) -> None:
        try:
            await open_one.send("ROLLBACK")
        except _failures():
            await self.close()  # the server rolls back what a broken connection began


class InTransaction(Direct):
    """The methods of an AsyncConnection that the parts of a group call."""

    def __init__(self, connection: AsyncConnection, driver: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection
        self.dialect = connection.dialect
        self._driver = driver

    @property
    def usable(self) -> bool:
        """Return whether neither the driver nor SQLAlchemy knows that the connection broke."""
        return not self._driver.is_closed() and not self._connection.invalidated

    async def send(self, command: str) -> None:
        """Execute SQL without parameters."""
        with _driver_faults(command):
            await self._driver.execute(command)

    async def change(self, statement: Prepared, parameters: Parameters) -> int:
        compiled = statement.compiled(self.dialect, parameters)
        with _driver_faults(compiled.sql):
            status = await self._driver.execute(compiled.sql, *compiled.values(parameters))
        return int(status.rpartition(" ")[2])  # "UPDATE 1", "INSERT 0 1"

    async def insert_each(self, statement: Prepared, rows: Sequence[Parameters]) -> None:
        compiled = statement.compiled(self.dialect, rows[0])
        with _driver_faults(compiled.sql):
            await self._driver.executemany(compiled.sql, [compiled.values(row) for row in rows])

    async def rows(self, statement: Prepared, parameters: Parameters) -> Sequence[Row]:
        compiled = statement.compiled(self.dialect, parameters)
        with _driver_faults(compiled.sql):
            found = await self._driver.fetch(compiled.sql, *compiled.values(parameters))
        return [compiled.row(tuple(row)) for row in found]

    async def execute(
        self, statement: Executable, parameters: dict[str, object] | list[dict[str, object]] | None = None
    ) -> CursorResult[object]:
        return await self._connection.execute(statement, parameters)

    async def run_sync(self, work: Callable[..., T], *arguments: object) -> T:
        return await self._connection.run_sync(work, *arguments)

    async def answers(self, asks: Sequence[Ask]) -> Sequence[object]:
        """Execute a statement for one or several parts in one round trip. See `run_together`."""
        statement = asks[0].statement
        if len(asks) == 1 or statement is None or statement.row is None:
            return [await ask.alone(self) for ask in asks]
        name, column = statement.row
        wanted = [ask.parameters[name] for ask in asks]
        compiled = statement.compiled(self.dialect, asks[0].parameters, returning=True)
        with _driver_faults(compiled.sql):
            found = await self._driver.fetchmany(compiled.sql, [compiled.values(ask.parameters) for ask in asks])
        if asks[0].selects:
            rows = {row[column.name]: row for row in (compiled.row(tuple(one)) for one in found)}
            return [[rows[one]] if one in rows else [] for one in wanted]
        changed = {one[0] for one in found}
        return [int(one in changed) for one in wanted]


async def _run_all(works: Sequence[Work[object]], connection: InTransaction) -> list[object]:
    """Run the parts of a group in order, and return their results. Neighbors run together if they may.

    Raises:
        WorkFailed: one raised.
    """
    results: list[object] = []
    try:
        for may, parts in groupby(works, lambda work: isinstance(work, Together)):
            some = list(parts)
            if may and len(some) > 1:
                results += await run_together(some, connection.dialect, connection.answers)
            else:
                results += [await part(cast("AsyncConnection", connection)) for part in some]
    except Exception as error:
        raise WorkFailed(error) from error
    return results


@contextmanager
def _driver_faults(sql: str) -> Generator[None]:
    """Raise the driver's errors like SQLAlchemy. It leaves out the values, which may be secrets."""
    import asyncpg

    try:
        yield
    except asyncpg.PostgresError as error:
        kind: type[DBAPIError] = OperationalError
        if isinstance(error, asyncpg.IntegrityConstraintViolationError):
            kind = IntegrityError
        elif isinstance(error, asyncpg.DataError):
            kind = DataError
        elif isinstance(error, asyncpg.SyntaxOrAccessError):
            kind = ProgrammingError
        raise kind(sql, None, error, hide_parameters=True) from error


def _failures() -> tuple[type[Exception], ...]:
    """Return what a command raises if the connection or the server fails."""
    return (DBAPIError, *connection_errors())
