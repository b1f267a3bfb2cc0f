"""Statements that go directly to the driver mean the same as through SQLAlchemy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import JSON, Boolean, Column, Integer, LargeBinary, MetaData, Table, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.store.sql.columns import Text, UtcTimestamp
from fal_server.store.sql.database import Database
from fal_server.store.sql.dialect import create_engine
from fal_server.store.sql.prepared import Prepared

_METADATA = MetaData()
_THINGS = Table(
    "things",
    _METADATA,
    Column("name", Text, primary_key=True),
    Column("number", Integer),
    Column("sealed", LargeBinary),
    Column("at", UtcTimestamp),
    Column("dead", Boolean, nullable=False),
    Column("more", JSON(none_as_null=True)),
)
_ADD = Prepared(insert(_THINGS))
_BY_NAME = Prepared(select(_THINGS).where(_THINGS.c.name == bindparam("wanted")))
_RENAME = Prepared(
    update(_THINGS).where(_THINGS.c.name == bindparam("before"), _THINGS.c.dead.is_(False), _THINGS.c.number == 1)
)
_THING = {"name": "a", "number": 1, "sealed": b"s", "at": datetime(2026, 1, 2, tzinfo=UTC), "dead": False, "more": {}}
_ROWS = st.fixed_dictionaries(
    {
        "name": st.text(),
        "number": st.none() | st.integers(-(2**31), 2**31 - 1),
        "sealed": st.none() | st.binary(),
        "at": st.none() | st.datetimes(timezones=st.just(UTC)),
        "dead": st.booleans(),
        "more": st.none() | st.dictionaries(st.text(), st.lists(st.integers() | st.text())),
    }
)


@pytest.fixture(params=["file", "memory"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Database]:
    """A database with a thread for writes, and one without."""
    database = Database(create_engine(tmp_path / "things.db" if request.param == "file" else None))

    async def create(connection: AsyncConnection) -> None:
        await connection.run_sync(_METADATA.create_all)

    await database.write(create)
    yield database
    await database.close()


async def add(database: Database, thing: Mapping[str, object]) -> int:
    """Add a row."""
    return await database.write(lambda connection: _ADD.change(connection, thing))


@given(rows=st.lists(_ROWS, max_size=5, unique_by=lambda row: row["name"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_a_row_is_read_as_it_was_written_by_either_way(rows: list[dict[str, object]], tmp_path: Path) -> None:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"

    async def check() -> None:
        database = Database(create_engine(path))

        async def work(connection: AsyncConnection) -> list[tuple[object, object]]:
            await connection.run_sync(_METADATA.create_all)
            found: list[tuple[object, object]] = []
            for number, row in enumerate(rows):
                if number % 2:
                    await connection.execute(_ADD.statement, row)
                else:
                    assert await _ADD.change(connection, row) == 1
                usual = (await connection.execute(_BY_NAME.statement, {"wanted": row["name"]})).mappings().one()
                (directly,) = await _BY_NAME.rows(connection, {"wanted": row["name"]})
                found.append((dict(usual), dict(directly)))
            return found

        try:
            assert await database.write(work) == [(row, row) for row in rows]
        finally:
            await database.close()

    asyncio.run(check())


async def test_a_change_tells_how_many_rows_it_changed(database: Database) -> None:
    await add(database, _THING)
    await add(database, {**_THING, "name": "b", "dead": True})

    async def rename(connection: AsyncConnection) -> list[int]:
        return [await _RENAME.change(connection, {"before": name, "name": name * 2}) for name in ("a", "b", "c")]

    assert await database.write(rename) == [1, 0, 0]
    assert await database.read(lambda connection: _BY_NAME.rows(connection, {"wanted": "aa"})) == [
        {**_THING, "name": "aa"}
    ]


async def test_a_violated_constraint_is_told_without_the_values(database: Database) -> None:
    await add(database, _THING)
    with pytest.raises(IntegrityError) as raised:
        await add(database, {**_THING, "sealed": b"hush", "more": {"password": "hush"}})
    assert "hush" not in str(raised.value)
    await add(database, {**_THING, "name": "b"})


async def test_a_part_that_fails_leaves_nothing_of_itself(database: Database) -> None:
    async def fails(connection: AsyncConnection) -> None:
        await _ADD.change(connection, _THING)
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(fails)
    assert await database.read(lambda connection: _BY_NAME.rows(connection, {"wanted": "a"})) == []


async def test_a_time_without_a_zone_is_refused_by_either_way(database: Database) -> None:
    naive = datetime(2026, 1, 1) + timedelta(hours=1)  # noqa: DTZ001 - that is the mistake
    with pytest.raises(Exception, match="naive"):
        await add(database, {**_THING, "at": naive})
