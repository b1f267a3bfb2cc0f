"""Statements that are compiled once, for frequent ones.

SQLAlchemy looks up a statement's compiled form at each execution, and builds a context and a result, which takes
several times as long as a database's work on a row. The connections that write (`Direct`) send these statements to the
driver directly, with the same SQL and the same type conversions. Elsewhere they are executed as usual.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from sqlalchemy import Boolean, ClauseElement, Select
from sqlalchemy.sql.compiler import SQLCompiler

from fal_server.store.sql.dialect import SQLITE

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, CursorResult, Dialect, Executable
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.sql.dml import UpdateBase
    from sqlalchemy.types import TypeEngine

T = TypeVar("T")
_Convert: TypeAlias = "Callable[[object], object] | None"
Parameters: TypeAlias = "Mapping[str, object]"
Row: TypeAlias = "Mapping[str, object]"


class Direct(ABC):
    """A connection for the parts of a group. It sends prepared statements to its driver without SQLAlchemy.

    Attributes:
        dialect: SQLAlchemy's, of the database.
    """

    dialect: Dialect

    @abstractmethod
    async def change(self, statement: Prepared, parameters: Parameters) -> int:
        """Execute an insert, update or delete; return the number of changed rows."""

    @abstractmethod
    async def insert_each(self, statement: Prepared, rows: Sequence[Parameters]) -> None:
        """Execute an insert for each row. There is at least one row."""

    @abstractmethod
    async def rows(self, statement: Prepared, parameters: Parameters) -> Sequence[Row]:
        """Return the rows of a select, by the names of its columns."""

    @abstractmethod
    async def execute(
        self, statement: Executable, parameters: dict[str, object] | list[dict[str, object]] | None = None
    ) -> CursorResult[object]:
        """Execute any statement, as an AsyncConnection does."""

    @abstractmethod
    async def run_sync(self, work: Callable[..., T], *arguments: object) -> T:
        """Call a function with SQLAlchemy's connection, as an AsyncConnection does."""


class Prepared:
    """A statement whose parameters always have the same names.

    Args:
        statement: an insert, update, delete or select.
        row: a parameter, and the column that it is stored in or compared with, if an execution concerns at most one row
            and no two rows have the same value there. A select has this column. Executions of several callers can then
            be sent together.
    """

    def __init__(self, statement: Executable, *, row: tuple[str, ColumnElement[str]] | None = None) -> None:
        self.statement = statement
        self.row = row
        self._compiled: dict[tuple[str, bool], Compiled] = {}

    async def change(self, connection: AsyncConnection, parameters: Parameters) -> int:
        """Execute an insert, update or delete; return the number of changed rows."""
        direct = _direct(connection)
        if direct is not None:
            return await direct.change(self, parameters)
        result = cast("CursorResult[object]", await connection.execute(self.statement, dict(parameters)))
        return result.rowcount

    async def insert_each(self, connection: AsyncConnection, rows: Sequence[Parameters]) -> None:
        """Execute an insert for each row."""
        direct = _direct(connection)
        if direct is None:
            await connection.execute(self.statement, [dict(row) for row in rows])
        elif rows:
            await direct.insert_each(self, rows)

    async def rows(self, connection: AsyncConnection, parameters: Parameters) -> Sequence[Row]:
        """Return the rows of a select, by the names of its columns."""
        direct = _direct(connection)
        if direct is not None:
            return await direct.rows(self, parameters)
        found = (await connection.execute(self.statement, dict(parameters))).mappings().all()
        return [{str(name): value for name, value in row.items()} for row in found]

    def compiled(self, dialect: Dialect, parameters: Parameters, *, returning: bool = False) -> Compiled:
        """Return the SQL for a database. With `returning` a change returns the column of `row` of what it changed."""
        key = (dialect.name, returning)
        found = self._compiled.get(key)
        if found is None:
            found = self._compiled[key] = Compiled(self._with(returning=returning), dialect, parameters)
        return found

    def _with(self, *, returning: bool) -> Executable:
        if not returning or isinstance(self.statement, Select):
            return self.statement
        assert self.row is not None
        return cast("UpdateBase", self.statement).returning(self.row[1])


def _direct(connection: object) -> Direct | None:
    """Return the connection of a part of a group; None elsewhere."""
    return connection if isinstance(connection, Direct) else None


@cache
def prepared(statement: Executable, *, row: tuple[str, ColumnElement[str]] | None = None) -> Prepared:
    """Return the prepared form of a permanent statement, always the same object."""
    return Prepared(statement, row=row)


class Compiled:
    """A statement's SQL, with the conversions of its parameters and columns.

    Attributes:
        sql: for the driver.
    """

    def __init__(self, statement: object, dialect: Dialect, parameters: Parameters) -> None:
        assert isinstance(statement, ClauseElement)
        compiled = statement.compile(dialect=dialect, column_keys=sorted(parameters))
        assert isinstance(compiled, SQLCompiler)
        assert not compiled.post_compile_params, "a list that is part of the SQL differs each time"
        self.sql = compiled.string
        self._of_rows: dict[int, str] = {}
        names = compiled.positiontup or []
        self._names = names
        # What the statement itself says, and None for what it does not.
        self._defaults = {name: compiled.params[name] for name in names if name not in parameters}
        kinds = [compiled.binds[name].type.dialect_impl(dialect) for name in names]
        converts: list[_Convert] = [
            None if _takes_bool(kind, dialect) else kind.bind_processor(dialect) for kind in kinds
        ]
        self._converts = [(place, convert) for place, convert in enumerate(converts) if convert is not None]
        columns = tuple(statement.selected_columns) if isinstance(statement, Select) else ()
        self._columns = [(str(column.name), _from_database(column.type, dialect)) for column in columns]

    def of_rows(self, count: int) -> str:
        """Return the SQL of an insert of several rows, for SQLite."""
        found = self._of_rows.get(count)
        if found is None:
            row = f"({', '.join('?' * len(self._names))})"
            assert self.sql.count(row) == 1, "an insert has one row of parameters"
            found = self._of_rows[count] = self.sql.replace(row, ", ".join([row] * count))
        return found

    def values(self, parameters: Parameters) -> list[object]:
        """Return the driver's values of parameters, in the order of the SQL."""
        given = {**self._defaults, **parameters} if self._defaults else parameters
        found = list(map(given.__getitem__, self._names))
        for place, convert in self._converts:
            found[place] = convert(found[place])
        return found

    def row(self, found: Sequence[object]) -> Row:
        """Return a row of the driver by the names of its columns."""
        return {
            name: value if convert is None else convert(value)
            for (name, convert), value in zip(self._columns, found, strict=True)
        }


def _takes_bool(kind: TypeEngine[object], dialect: Dialect) -> bool:
    """Return whether the driver converts a truth value. SQLite's does it several times as fast as SQLAlchemy."""
    return isinstance(kind, Boolean) and dialect.name == SQLITE


def _from_database(kind: TypeEngine[object], dialect: Dialect) -> _Convert:
    return kind.dialect_impl(dialect).result_processor(dialect, None)
