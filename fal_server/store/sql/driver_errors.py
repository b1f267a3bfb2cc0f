"""The errors of database drivers. It says which are our bugs, and what the others mean to an operator."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fal_server.core.faults import Unavailable

_USUAL = "see to its disk and permissions"
_CREDENTIALS = "see to the user and the password in its URL"
_NO_RIGHTS = "42501"
# PostgreSQL's codes, see its manual: PostgreSQL Error Codes.
_NEXT_STEPS = {
    "3D000": "`createdb NAME` on its server creates it, `psql --list` shows which exist",
    "28000": _CREDENTIALS,
    "28P01": _CREDENTIALS,
    _NO_RIGHTS: "its user may not do that: make the user the owner of the database, with "
    "`ALTER DATABASE name OWNER TO user`",
    "53300": "raise max_connections of its server, or close other connections",
    "53100": "its server's disk is full: make room there",
    "25006": "it is read-only: give the URL of the primary server, not of a standby",
    "57P03": "wait until its server is up",
}


def unavailable(cause: Exception) -> Unavailable:
    """Return the fault for a driver's error, with the next step."""
    next_step = _NEXT_STEPS.get(_code(cause), _USUAL)
    return Unavailable(f"the database cannot be used ({cause}): {next_step}")


def names_missing_row(error: IntegrityError) -> bool:
    """Return whether a write failed because of a foreign key. A row is missing or still referenced."""
    name = getattr(error.orig, "sqlite_errorname", "")
    return name == "SQLITE_CONSTRAINT_FOREIGNKEY" or _code(error.orig) == "23503"


def connection_errors() -> tuple[type[Exception], ...]:
    """Return driver errors that bypass SQLAlchemy. Drivers raise them if a server is unreachable or rejects us."""
    if "asyncpg" not in sys.modules:
        return (OSError,)
    import asyncpg

    # The last is raised for a connection that the server ended just now.
    return (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@contextmanager
def driver_faults() -> Generator[None]:
    """Turn driver errors into faults, except those that show a bug.

    Raises:
        Unavailable: the database cannot be used or reached.
    """
    try:
        yield
    except (DataError, IntegrityError, ProgrammingError) as error:
        if _code(error.orig) != _NO_RIGHTS:
            raise  # a bug here, not a state of the database
        raise unavailable(_cause(error)) from error
    except DBAPIError as error:
        raise unavailable(_cause(error)) from error
    except PoolTimeout as error:
        raise unavailable(TimeoutError("all connections are in use")) from error
    except connection_errors() as error:
        if _code(error):
            raise unavailable(error) from error
        raise Unavailable(f"the database cannot be reached ({error}): is its server up, and its URL right?") from error


@contextmanager
def sqlite_faults() -> Generator[None]:
    """Turn SQLite's driver errors into faults, except those that show a bug.

    Raises:
        Unavailable: the database cannot be used.
    """
    try:
        yield
    except (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a bug here, not a state of the database
    except sqlite3.Error as error:
        raise unavailable(error) from error


def _cause(error: DBAPIError) -> Exception:
    return error.orig if isinstance(error.orig, Exception) else error


def _code(error: object) -> str:
    """Return PostgreSQL's code of an error; "" for others."""
    return getattr(error, "sqlstate", None) or ""
