"""Migrates one SQLite database in each process. It copies that for the next ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, text

from fal_server.store.sql import migrations

Migrate = Callable[[Connection, str], None]


class OnceMigrated:
    """Runs the migrations on the first database. It copies the tables and rows to later empty ones."""

    def __init__(self, migrate: Migrate) -> None:
        self._migrate = migrate
        self._statements: list[str] = []
        self._rows: list[tuple[str, tuple[object, ...]]] = []

    def __call__(self, connection: Connection, name: str) -> None:
        tables = connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one()
        if tables or not self._statements:
            self._migrate(connection, name)
        else:
            for statement in self._statements:
                connection.exec_driver_sql(statement)
            for statement, row in self._rows:
                connection.exec_driver_sql(statement, row)
        if not tables and not self._statements:
            self._record(connection)

    def _record(self, connection: Connection) -> None:
        made = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
        for kind, name, statement in connection.execute(text(made)).all():
            self._statements.append(statement)
            if kind == "table":
                rows = connection.execute(text(f'SELECT * FROM "{name}"')).all()
                self._rows += [
                    (f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(row))})', tuple(row)) for row in rows
                ]


_ONCE = OnceMigrated(migrations.bring_up_to_date)


@pytest.fixture(scope="module", autouse=True)
def schema() -> Iterator[None]:
    """Copy a migrated schema for a folder's tests. Migrations take most of the time of opening a store.

    The folder's conftest imports this. The tests of the store itself run every migration.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrations, "bring_up_to_date", _ONCE)
        yield
