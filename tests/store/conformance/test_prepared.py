"""Statements sent to the driver directly mean what SQLAlchemy makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from fal_server.store.sql.columns import Text, UtcTimestamp
from fal_server.store.sql.database import Database
from fal_server.store.sql.dialect import create_engine, insert_missing
from fal_server.store.sql.prepared import Prepared, prepared
from fal_server.store.sql.together import Together

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
_ADD = Prepared(insert(_THINGS), row=("name", _THINGS.c.name))
_BY_NAME = Prepared(select(_THINGS).where(_THINGS.c.name == bindparam("wanted")), row=("wanted", _THINGS.c.name))
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


@pytest.fixture
async def things(database: Path | str | None) -> AsyncGenerator[Database]:
    """An open database with a table."""
    opened = Database(create_engine(database))

    async def create(connection: AsyncConnection) -> None:
        await connection.run_sync(_METADATA.create_all)

    await opened.write(create)
    yield opened
    await opened.close()


async def add(database: Database, thing: Mapping[str, object]) -> int:
    """Add a row."""
    return await database.write(lambda connection: _ADD.change(connection, thing))


@given(rows=st.lists(_ROWS, max_size=5, unique_by=lambda row: row["name"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_a_row_is_read_as_it_was_written_by_either_way(
    rows: list[dict[str, object]], durable: Path | str | None
) -> None:
    async def work(connection: AsyncConnection) -> list[tuple[object, object]]:
        await connection.run_sync(_METADATA.create_all)
        await connection.execute(delete(_THINGS))
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

    async def check() -> None:
        database = Database(create_engine(durable))
        try:
            assert await database.write(work) == [(row, row) for row in rows]
        finally:
            await database.close()

    asyncio.run(check())


async def test_parts_that_run_together_are_as_one_after_another(things: Database) -> None:
    """Thirty add a row each, ten of them one that exists. Each then looks at its row and renames it."""
    for number in range(10):
        await add(things, {**_THING, "name": f"n{number}", "number": 7})

    async def part(connection: AsyncConnection, name: str) -> tuple[int, object, int]:
        missing = prepared(insert_missing(connection, _THINGS), row=("name", _THINGS.c.name))
        added = await missing.change(connection, {**_THING, "name": name})
        (found,) = await _BY_NAME.rows(connection, {"wanted": name})
        return added, found["number"], await _RENAME.change(connection, {"before": name, "name": name * 2})

    names = [f"n{number}" for number in range(30)]
    first = asyncio.ensure_future(add(things, {**_THING, "name": "zero"}))  # the others gather behind it
    results = await asyncio.gather(*(things.write(Together(partial(part, name=name))) for name in names))
    assert results == [(0, 7, 0)] * 10 + [(1, 1, 1)] * 20
    assert await first == 1
    there = await things.read(lambda connection: connection.execute(select(_THINGS.c.name)))
    assert set(there.scalars()) == {"zero", *names[:10], *(name * 2 for name in names[10:])}


async def test_a_part_that_fails_spares_those_that_run_with_it(things: Database) -> None:
    await add(things, {**_THING, "name": "taken"})

    async def part(connection: AsyncConnection, name: str) -> int:
        return await _ADD.change(connection, {**_THING, "name": name})

    first = asyncio.ensure_future(add(things, {**_THING, "name": "zero"}))
    names = ("a", "taken", "b")
    results = await asyncio.gather(
        *(things.write(Together(partial(part, name=name))) for name in names), return_exceptions=True
    )
    assert await first == 1
    assert [results[0], results[2]] == [1, 1]
    assert isinstance(results[1], IntegrityError)


async def test_a_change_tells_how_many_rows_it_changed(things: Database) -> None:
    await add(things, _THING)
    await add(things, {**_THING, "name": "b", "dead": True})

    async def rename(connection: AsyncConnection) -> list[int]:
        return [await _RENAME.change(connection, {"before": name, "name": name * 2}) for name in ("a", "b", "c")]

    assert await things.write(rename) == [1, 0, 0]
    assert await things.read(lambda connection: _BY_NAME.rows(connection, {"wanted": "aa"})) == [
        {**_THING, "name": "aa"}
    ]


async def test_a_violated_constraint_is_told_without_the_values(things: Database) -> None:
    await add(things, _THING)
    with pytest.raises(IntegrityError) as raised:
        await add(things, {**_THING, "sealed": b"hush", "more": {"password": "hush"}})
    assert "hush" not in str(raised.value)
    await add(things, {**_THING, "name": "b"})


async def test_a_part_that_fails_leaves_nothing_of_itself(things: Database) -> None:
    async def fails(connection: AsyncConnection) -> None:
        await _ADD.change(connection, _THING)
        raise LookupError

    with pytest.raises(LookupError):
        await things.write(fails)
    assert await things.read(lambda connection: _BY_NAME.rows(connection, {"wanted": "a"})) == []


async def test_a_time_without_a_zone_is_refused_by_either_way(things: Database) -> None:
    naive = datetime(2026, 1, 1) + timedelta(hours=1)  # noqa: DTZ001 - that is the mistake
    with pytest.raises(Exception, match="naive"):
        await add(things, {**_THING, "at": naive})
