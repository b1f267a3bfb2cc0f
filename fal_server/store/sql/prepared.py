"""Statements that are compiled once, for frequent ones.

SQLAlchemy looks up a statement's compiled form at each execution, and builds a context and a result, which takes
several times as long as SQLite's work on a row. In the thread that writes a SQLite file, these statements go to the
driver directly, with the same SQL and the same type conversions. Elsewhere they are executed as usual.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeAlias, cast

from sqlalchemy import ClauseElement, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

from fal_server.store.sql.writes import InThread

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Dialect, Executable
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.types import TypeEngine

_Convert: TypeAlias = "Callable[[object], object] | None"
Parameters: TypeAlias = "Mapping[str, object]"


class Prepared:
    """A statement whose parameters always have the same names."""

    def __init__(self, statement: Executable) -> None:
        self.statement = statement
        self._compiled: _Compiled | None = None

    async def change(self, connection: AsyncConnection, parameters: Parameters) -> int:
        """Execute an insert, update or delete; return the number of changed rows."""
        thread = _thread_of(connection)
        if thread is not None:
            return self._in_thread(thread, parameters).rowcount
        result = cast("CursorResult[object]", await connection.execute(self.statement, dict(parameters)))
        return result.rowcount

    async def change_each(self, connection: AsyncConnection, rows: Sequence[Parameters]) -> None:
        """Execute an insert, update or delete once for each set of parameters."""
        thread = _thread_of(connection)
        if thread is None:
            await connection.execute(self.statement, [dict(row) for row in rows])
        elif rows:
            compiled = self._compiled_for(thread, rows[0])
            with _driver_faults(compiled, thread):
                thread.driver.executemany(compiled.sql, [compiled.values(row) for row in rows])

    async def rows(self, connection: AsyncConnection, parameters: Parameters) -> Sequence[Mapping[str, object]]:
        """Return the rows of a select, by the names of its columns."""
        thread = _thread_of(connection)
        if thread is not None:
            cursor = self._in_thread(thread, parameters)
            assert self._compiled is not None
            return [self._compiled.row(found) for found in cursor]
        found = (await connection.execute(self.statement, dict(parameters))).mappings().all()
        return [{str(name): value for name, value in row.items()} for row in found]

    def _in_thread(self, connection: InThread, parameters: Parameters) -> sqlite3.Cursor:
        compiled = self._compiled_for(connection, parameters)
        with _driver_faults(compiled, connection):
            return connection.driver.execute(compiled.sql, compiled.values(parameters))

    def _compiled_for(self, connection: InThread, parameters: Parameters) -> _Compiled:
        if self._compiled is None:
            self._compiled = _Compiled(self.statement, connection.dialect, parameters)
        return self._compiled


@contextmanager
def _driver_faults(compiled: _Compiled, connection: InThread) -> Generator[None]:
    """Raise the driver's errors like SQLAlchemy; without the values, which may be secrets."""
    try:
        yield
    except sqlite3.Error as error:
        raise DBAPIError.instance(
            compiled.sql, None, error, sqlite3.Error, hide_parameters=True, dialect=connection.dialect
        ) from error


def _thread_of(connection: object) -> InThread | None:
    """Return the writer thread's connection for a part of a group; None elsewhere."""
    return connection if isinstance(connection, InThread) else None


@cache
def prepared(statement: Executable) -> Prepared:
    """Return the prepared form of a permanent statement, always the same object."""
    return Prepared(statement)


class _Compiled:
    """The SQL of a statement, with the conversions of its parameters and columns."""

    def __init__(self, statement: object, dialect: Dialect, parameters: Parameters) -> None:
        assert isinstance(statement, ClauseElement)
        compiled = statement.compile(dialect=dialect, column_keys=sorted(parameters))
        assert isinstance(compiled, SQLCompiler)
        assert not compiled.post_compile_params, "a list that is part of the SQL differs each time"
        self.sql = compiled.string
        given = compiled.params
        self._parameters: list[tuple[str, object, _Convert]] = [
            (name, given[name], compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup or ()
        ]
        columns = tuple(statement.selected_columns) if isinstance(statement, Select) else ()
        self._columns = [(str(column.name), _from_database(column.type, dialect)) for column in columns]

    def values(self, parameters: Parameters) -> list[object]:
        """Return the driver's values of parameters, in the order of the SQL."""
        found: list[object] = []
        for name, default, convert in self._parameters:
            value = parameters.get(name, default)
            found.append(value if convert is None else convert(value))
        return found

    def row(self, found: Sequence[object]) -> dict[str, object]:
        """Return a row of the driver by the names of its columns."""
        return {
            name: value if convert is None else convert(value)
            for (name, convert), value in zip(self._columns, found, strict=True)
        }


def _from_database(kind: TypeEngine[object], dialect: Dialect) -> _Convert:
    return kind.dialect_impl(dialect).result_processor(dialect, None)
