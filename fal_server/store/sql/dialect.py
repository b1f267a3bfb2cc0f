"""What differs between databases: opening, upserts, the search in text. SQL elsewhere is common to all."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Executable, Table, event, func, literal
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from fal_server.core.faults import Unavailable

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
# Write transactions take SQLite's lock at their start: one that took it later could not wait for it.
WRITES = {"fal_writes": True}
_BUSY_MILLISECONDS = 30_000
_PARAMETERS = ("host", "port", "ssl", "sslmode")
_WANTED = "a database is given as postgresql://user:password@host/name, or a file's path"


def create_engine(target: str | Path | None) -> AsyncEngine:
    """An engine for a database; a SQLite file is made where it is missing, readable by its owner alone.

    Args:
        target: the path of a SQLite file, a URL (`scheme://...`), or None for a private database in memory.

    Raises:
        Unavailable: the URL is malformed or of another database, its driver is missing, or the file cannot be made.
    """
    try:
        url = make_url(target) if isinstance(target, str) and "://" in target else _sqlite_url(target)
        if url.get_backend_name() in {POSTGRESQL, "postgres"}:
            return _postgresql(url)
        if url.get_backend_name() != SQLITE:
            raise Unavailable(f"no store for {url.get_backend_name()}: {_WANTED}")
        if url.database and url.database != ":memory:":
            _make_private(Path(url.database))
        engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), hide_parameters=True)
    except ArgumentError as error:
        raise Unavailable(f"the database's URL is malformed: {_WANTED}") from error
    except ImportError as error:
        raise Unavailable(f"the database's driver is missing ({error}): pip install 'fal-grpc[postgresql]'") from error
    except OSError as error:
        raise Unavailable(f"the database {target} cannot be opened: {error.strerror}") from error
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def single_connection(engine: AsyncEngine) -> bool:
    """Whether all share one connection (a database in memory), so that their transactions must take turns."""
    return engine.dialect.name == SQLITE and engine.url.database in {None, "", ":memory:"}


def connection_errors() -> tuple[type[Exception], ...]:
    """What drivers raise past SQLAlchemy where a server cannot be reached, or does not let us in."""
    if "asyncpg" not in sys.modules:
        return (OSError,)
    import asyncpg

    return (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


def sqlite_file(engine: AsyncEngine) -> Path | None:
    """The file of a SQLite database; None for one in memory and for others."""
    database = engine.url.database
    return Path(database) if database and engine.dialect.name == SQLITE and not single_connection(engine) else None


def upsert(connection: AsyncConnection, table: Table) -> Executable:
    """An insert that replaces the row with the same primary key."""
    key = [column.name for column in table.primary_key]
    if connection.dialect.name == SQLITE:
        lite = sqlite.insert(table)
        return lite.on_conflict_do_update(
            index_elements=key, set_={c.name: lite.excluded[c.name] for c in table.columns if c.name not in key}
        )
    post = postgresql.insert(table)
    return post.on_conflict_do_update(
        index_elements=key, set_={c.name: post.excluded[c.name] for c in table.columns if c.name not in key}
    )


def insert_missing(connection: AsyncConnection, table: Table, *, unique: str | None = None) -> Executable:
    """An insert that leaves a row with the same primary key as it is; it waits for one that is just being written.

    Args:
        unique: the column to compare by instead, which has a unique constraint; NULL is like nothing.
    """
    key = [column.name for column in table.primary_key] if unique is None else [unique]
    if connection.dialect.name == SQLITE:
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=key)
    return postgresql.insert(table).on_conflict_do_nothing(index_elements=key)


def contains(connection: AsyncConnection, column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """Whether a column holds a text, upper and lower case alike; no character of the text is special."""
    if connection.dialect.name != SQLITE:
        return func.strpos(func.lower(column), literal(text.lower(), column.type)) > 0
    # SQLite's own lower() knows ASCII only, but is several times as fast as a call back into Python.
    if text.isascii():
        return func.instr(func.lower(column), text.lower()) > 0
    return func.instr(func.fal_casefold(column), text.casefold()) > 0


def names_missing_row(error: IntegrityError) -> bool:
    """Whether a write failed because it refers to a row that is not there (or is still referred to)."""
    name = getattr(error.orig, "sqlite_errorname", "")
    return name == "SQLITE_CONSTRAINT_FOREIGNKEY" or getattr(error.orig, "sqlstate", "") == "23503"


def _postgresql(url: URL) -> AsyncEngine:
    """Connections are looked at before they are used: the server may have been restarted meanwhile."""
    if unknown := sorted(url.query.keys() - _PARAMETERS):
        raise Unavailable(f"the database's URL has a parameter {unknown[0]!r}: known are {', '.join(_PARAMETERS)}")
    ssl = {"ssl": url.query["sslmode"]} if "sslmode" in url.query else {}  # libpq's word for it, and asyncpg's
    url = url.difference_update_query(["sslmode"]).update_query_dict(ssl).set(drivername="postgresql+asyncpg")
    return create_async_engine(url, hide_parameters=True, pool_pre_ping=True, pool_size=10)


def _sqlite_url(path: str | Path | None) -> URL:
    return URL.create("sqlite+aiosqlite", database=":memory:" if path is None else str(path))


def _make_private(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the database."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _set_up_sqlite(connection: AsyncAdapt_aiosqlite_connection, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own: `_begin_sqlite` does
    set_pragmas(connection)
    connection.create_function("fal_casefold", 1, _casefold, deterministic=True)


def set_pragmas(connection: AsyncAdapt_aiosqlite_connection | sqlite3.Connection) -> None:
    """What every connection to SQLite is set to."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Reads are single statements and need no transaction."""
    if WRITES.items() <= connection.get_execution_options().items():
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _casefold(text: str | None) -> str | None:
    return None if text is None else text.casefold()
