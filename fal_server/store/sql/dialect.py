"""The differences between databases: opening, upserts and text search. All other SQL is common."""

from __future__ import annotations

import os
import sqlite3
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy import ColumnElement, Executable, String, Table, event, func, literal, or_
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from fal_server.core.faults import Unavailable

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
# Write transactions take SQLite's lock when they start, because one that takes it later cannot wait for it.
WRITES = {"fal_writes": True}
_BUSY_MILLISECONDS = 30_000
_JOURNAL_BYTES = 64 * 1024 * 1024
# Truncate the write-ahead log, unless somebody reads from it: a waiting checkpoint would delay every writer.
CHECKPOINT = f"PRAGMA busy_timeout = 0; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA busy_timeout = {_BUSY_MILLISECONDS}"
_PARAMETERS = ("host", "port", "ssl", "sslmode")
# PostgreSQL's text cannot contain NUL. U+FDD0 marks one, because Unicode reserves it for programs and no text should
# contain it; a text that does has it marked, too.
_MARK = "\ufdd0"
_MARKED_NUL, _MARKED_MARK = _MARK + "0", _MARK + "1"
_WANTED = "a database is given as postgresql://user:password@host/name, or a file's path"


def create_engine(target: str | Path | None) -> AsyncEngine:
    """Return an engine for a database. A missing SQLite file is created, readable only by its owner.

    Args:
        target: the path of a SQLite file, a URL (`scheme://...`), or None for a private database in memory.

    Raises:
        Unavailable: the URL is malformed or of another database, its driver is missing, or the file cannot be created.
    """
    try:
        url = make_url(target) if isinstance(target, str) and "://" in target else _sqlite_url(target)
        if url.get_backend_name() in {POSTGRESQL, "postgres"}:
            return _postgresql(url)
        if url.get_backend_name() != SQLITE:
            raise Unavailable(f"no store for {url.get_backend_name()}: {_WANTED}")
        if url.database and url.database != ":memory:":
            make_private(Path(url.database))
        engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), hide_parameters=True)
    except ArgumentError as error:
        raise Unavailable(f"the database's URL is malformed: {_WANTED}") from error
    except ImportError as error:
        raise Unavailable(f"the database's driver is missing ({error}): pip install 'fal-grpc[postgresql]'") from error
    except OSError as error:
        raise Unavailable(f"the database {target} cannot be opened: {error.strerror}") from error
    _listen(engine.sync_engine)
    return engine


def create_writer(path: Path) -> Engine:
    """Return an engine that writes an existing SQLite file from one thread."""
    url = _sqlite_url(path).set(drivername="sqlite+pysqlite")
    engine = sqlalchemy.create_engine(url, hide_parameters=True, poolclass=NullPool)
    _listen(engine)
    return engine.execution_options(**WRITES)


def single_connection(engine: AsyncEngine) -> bool:
    """Return whether there is only one connection (a database in memory). Transactions then take turns."""
    return engine.dialect.name == SQLITE and engine.url.database in {None, "", ":memory:"}


def sqlite_file(engine: AsyncEngine) -> Path | None:
    """Return a SQLite database's file. None for other databases and one in memory."""
    database = engine.url.database
    return Path(database) if database and engine.dialect.name == SQLITE and not single_connection(engine) else None


def upsert(connection: AsyncConnection, table: Table) -> Executable:
    """Return an insert that replaces a row with the same primary key."""
    return _upsert(connection.dialect.name, table)


def insert_missing(connection: AsyncConnection, table: Table, *, unique: str | None = None) -> Executable:
    """Return an insert that does nothing if its primary key exists. It waits for a concurrent one.

    Args:
        unique: a column with a unique constraint to compare instead; NULL equals nothing.
    """
    return _insert_missing(connection.dialect.name, table, unique)


# Cached: building a statement costs more than executing it.
@cache
def _upsert(dialect: str, table: Table) -> Executable:
    key = [column.name for column in table.primary_key]
    if dialect == SQLITE:
        lite = sqlite.insert(table)
        return lite.on_conflict_do_update(
            index_elements=key, set_={c.name: lite.excluded[c.name] for c in table.columns if c.name not in key}
        )
    # Here, because most controllers have no PostgreSQL, and importing it takes a thirtieth of their start.
    from sqlalchemy.dialects import postgresql

    post = postgresql.insert(table)
    return post.on_conflict_do_update(
        index_elements=key, set_={c.name: post.excluded[c.name] for c in table.columns if c.name not in key}
    )


@cache
def _insert_missing(dialect: str, table: Table, unique: str | None) -> Executable:
    key = [column.name for column in table.primary_key] if unique is None else [unique]
    if dialect == SQLITE:
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=key)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table).on_conflict_do_nothing(index_elements=key)


def contains(connection: AsyncConnection, column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """Return whether a column contains a text (not empty), ignoring case. No character of the text is special."""
    if connection.dialect.name != SQLITE:
        lower, smaller, same = func.lower(column), _stored(text.lower()), func.lower(_stored(text))
        if text[0] in "01":  # the digit of a mark does not begin the text
            digit, other = _MARK + text[0], _MARK + "-"
            lower, smaller, same = (func.replace(one, digit, other) for one in (lower, smaller, same))
        found = func.strpos(lower, smaller) > 0
        # The server's locale may know other pairs of letters than Python, or only ASCII: a text must find itself.
        return found if text.isascii() else or_(found, func.strpos(lower, same) > 0)
    # SQLite's lower() only supports ASCII, but is several times faster than a call to Python.
    if text.isascii():
        return func.instr(func.lower(column), text.lower()) > 0
    return func.instr(func.fal_casefold(column), text.casefold()) > 0


def without_nul(text: str) -> str:
    """Return a text without NUL, for PostgreSQL; `with_nul` is the inverse."""
    if "\0" in text or _MARK in text:
        return text.replace(_MARK, _MARKED_MARK).replace("\0", _MARKED_NUL)
    return text


def with_nul(text: str) -> str:
    """Return the inverse of `without_nul`."""
    return text.replace(_MARKED_NUL, "\0").replace(_MARKED_MARK, _MARK) if _MARK in text else text


def _stored(text: str) -> ColumnElement[str]:
    return literal(without_nul(text), String())


def _postgresql(url: URL) -> AsyncEngine:
    """Return an engine that tests connections before use. The server may have restarted."""
    if unknown := sorted(url.query.keys() - _PARAMETERS):
        raise Unavailable(f"the database's URL has a parameter {unknown[0]!r}: known are {', '.join(_PARAMETERS)}")
    ssl = {"ssl": url.query["sslmode"]} if "sslmode" in url.query else {}  # libpq's name for it, and asyncpg's
    url = url.difference_update_query(["sslmode"]).update_query_dict(ssl).set(drivername="postgresql+asyncpg")
    return create_async_engine(url, hide_parameters=True, pool_pre_ping=True, pool_size=10)


def _sqlite_url(path: str | Path | None) -> URL:
    return URL.create("sqlite+aiosqlite", database=":memory:" if path is None else str(path))


def make_private(path: Path) -> None:
    """Create a missing file, and let only its owner read it."""
    # SQLite gives its -wal and -shm files the mode of the database.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _listen(engine: Engine) -> None:
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)


def _set_up_sqlite(connection: AsyncAdapt_aiosqlite_connection | sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # `_begin_sqlite` starts the transactions, not the driver
    set_pragmas(connection)
    connection.create_function("fal_casefold", 1, _casefold, deterministic=True)


def set_pragmas(connection: AsyncAdapt_aiosqlite_connection | sqlite3.Connection) -> None:
    """Configure a connection to SQLite."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only takes effect in a new database
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")  # after a checkpoint the rest is freed
    cursor.execute("PRAGMA synchronous = FULL")  # acknowledged writes survive a power failure
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # Reads are single statements and need no transaction.
    if WRITES.items() <= connection.get_execution_options().items():
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _casefold(text: str | None) -> str | None:
    return None if text is None else text.casefold()
