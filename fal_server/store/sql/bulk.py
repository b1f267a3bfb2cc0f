"""Inserts many rows into one SQLite file in few steps. It uses a separate connection and thread.

The usual way switches between the event loop and a thread for each of BEGIN, INSERT and COMMIT, and takes and releases
the interpreter's lock for every row. Here a transaction is one visit to the thread, a statement has hundreds of rows,
and the lock is free while they are written and synced.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from sqlalchemy import Table

from fal_server.store.sql import dialect
from fal_server.store.sql.driver_errors import sqlite_faults
from fal_server.store.sql.portions import SIZES, portions

Row: TypeAlias = "tuple[str | int | None, ...]"


class BulkWriter:
    """Inserts rows, except those whose key exists.

    Args:
        path: the existing database file.
        table: the destination; a row has all of its columns, in order.
    """

    def __init__(self, path: Path, table: Table) -> None:
        self._path = path
        columns = ", ".join(f'"{column.name}"' for column in table.columns)
        values = f"({', '.join('?' * len(table.columns))})"
        insert = f'INSERT INTO "{table.name}" ({columns}) VALUES '  # noqa: S608 - the schema's own names
        self._statements = {size: f"{insert}{', '.join([values] * size)} ON CONFLICT DO NOTHING" for size in SIZES}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fal-bulk-writer")
        self._connection: sqlite3.Connection | None = None

    async def insert(self, rows: Callable[[], Sequence[Row]]) -> None:
        """Insert all rows or none in one transaction, durably.

        `rows` is called in the thread, so that creating them blocks nothing else.
        Do not call it while another transaction writes: it would wait for it in the thread.

        Raises:
            Unavailable: the database cannot be written.
        """
        with sqlite_faults():
            await asyncio.get_running_loop().run_in_executor(self._thread, self._insert, rows)

    async def close(self) -> None:
        """Close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _insert(self, make: Callable[[], Sequence[Row]]) -> None:
        rows = make()
        if self._connection is None:
            connection = sqlite3.connect(self._path, isolation_level=None)
            dialect.set_pragmas(connection)
            self._connection = connection
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for some in portions(rows):
                connection.execute(self._statements[len(some)], list(chain.from_iterable(some)))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
