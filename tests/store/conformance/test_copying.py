"""A copy of a database has every row, or is not created."""

from __future__ import annotations

import shlex
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from sqlalchemy import JSON, BigInteger, Boolean, Float, Integer, LargeBinary, insert, inspect, select

from fal_server.composition.moving import move_in, move_out
from fal_server.composition.state import StateDir
from fal_server.core.faults import FailedPrecondition, Unavailable
from fal_server.store import AesVault, open_store
from fal_server.store.sql import copying, dialect
from fal_server.store.sql.columns import Text, UtcTimestamp
from fal_server.store.sql.tables import METADATA, RUNNERS
from tests.store.conformance.conftest import KEY, target

WAYS = [("file", "postgresql"), ("postgresql", "file"), ("file", "file")]
# Values that databases store differently: NUL and its mark, other planes, 64-bit limits, microseconds, floats.
TEXTS = ["plain", "a\0b\ufdd0", "\U0001f600 \u00e9 '\"\\", ""]
MANY = 2345


@pytest.fixture(params=WAYS, ids=" to ".join)
def way(request, tmp_path):
    """Return a source and a target, which do not exist yet."""
    found = []
    for kind, name in zip(request.param, ("source", "copy"), strict=True):
        directory = tmp_path / f"{tmp_path.name}-{name}"
        directory.mkdir()
        found.append(target(kind, request, directory))
    return found


def value(column, row):
    """Return a value of the column's type. All texts of a row are equal, so that references are valid."""
    if row == 0 and column.nullable and not column.primary_key:
        return None
    kinds = {
        Text: TEXTS[row],
        UtcTimestamp: datetime(1970 + 40 * row, 1, 1, microsecond=row, tzinfo=UTC),
        Boolean: bool(row % 2),
        BigInteger: 2**63 - 1 - row,
        Integer: row - 2,
        Float: row / 3,
        LargeBinary: bytes(range(row * 80)),
        JSON: {"deep": [{"text": TEXTS[row], "number": row / 3}], "": None},
    }
    return next(found for kind, found in kinds.items() if isinstance(column.type, kind))


async def fill(place, *, runners=0):
    """Create a database with rows in every table."""
    await (await open_store(place, AesVault(KEY))).close()
    engine = dialect.create_engine(place)
    async with engine.execution_options(**dialect.WRITES).begin() as connection:
        for table in METADATA.sorted_tables:
            rows = [{c.name: value(c, row) for c in table.columns} for row in range(len(TEXTS))]
            await connection.execute(insert(table), rows)
        if runners:
            more = {column.name: value(column, 1) for column in RUNNERS.columns}
            await connection.execute(insert(RUNNERS), [more | {"runner_id": f"r{n}"} for n in range(runners)])
    await engine.dispose()


async def contents(place):
    """Return every row of every table, in some order."""
    engine = dialect.create_engine(place)
    async with engine.connect() as connection:
        found = {table.name: (await connection.execute(select(table))).all() for table in METADATA.sorted_tables}
    await engine.dispose()
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


async def write(place, statement):
    engine = dialect.create_engine(place)
    async with engine.execution_options(**dialect.WRITES).begin() as connection:
        await connection.exec_driver_sql(statement)
    await engine.dispose()


async def tables(place):
    engine = dialect.create_engine(place)
    async with engine.connect() as connection:
        found = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    return found


async def test_every_row_of_every_table_is_copied(way):
    source, copy = way
    await fill(source, runners=MANY)
    seen = []
    rows = await copying.copy_database(source, copy, report=seen.append)
    before = await contents(source)
    assert await contents(copy) == before
    assert rows == sum(map(len, before.values()))
    assert [step.rows for step in seen if step.table == "runners" and not step.checking] == [1000, 2000, MANY + 4]
    assert {step.table for step in seen if step.checking} == {table.name for table in METADATA.sorted_tables}
    # The master key's proof is copied, so the copy opens with the same key.
    with pytest.raises(Unavailable, match="another master key"):
        await open_store(copy, AesVault(bytes(32)))


async def test_a_copy_opens_as_a_store(way):
    source, copy = way
    await (await open_store(source, AesVault(KEY))).close()
    await copying.copy_database(source, copy)
    await (await open_store(copy, AesVault(KEY))).close()


async def test_a_database_with_tables_is_refused(way):
    source, copy = way
    await fill(source)
    await fill(copy)
    before = await contents(copy)
    with pytest.raises(FailedPrecondition, match="has tables already"):
        await copying.copy_database(source, copy)
    assert await contents(copy) == before


async def test_a_copy_that_reads_differently_is_undone(way, monkeypatch):
    source, copy = way
    await fill(source)
    whole, reads = copying._read, []

    async def less(connection, table):
        reads.append(table)
        async for rows in whole(connection, table):
            yield rows[1:] if table is RUNNERS and reads.count(RUNNERS) == 2 else rows

    monkeypatch.setattr(copying, "_read", less)
    with pytest.raises(Unavailable, match="runners reads differently in the copy"):
        await copying.copy_database(source, copy)
    assert await tables(copy) == []


async def test_no_database_counts_by_itself(durable):
    """A copy needs no counters: the controller writes all numbers in rows."""
    await (await open_store(durable, AesVault(KEY))).close()
    engine = dialect.create_engine(durable)
    counters = {
        dialect.SQLITE: "select name from sqlite_master where name = 'sqlite_sequence'",
        dialect.POSTGRESQL: "select sequencename from pg_sequences",
    }
    async with engine.connect() as connection:
        found = (await connection.exec_driver_sql(counters[engine.dialect.name])).all()
    await engine.dispose()
    assert found == []


async def test_a_newer_database_is_not_copied(way):
    source, copy = way
    await (await open_store(source, AesVault(KEY))).close()
    await write(source, "update alembic_version set version_num = '9999'")
    before = await contents(source)
    with pytest.raises(Unavailable, match=r"written by a newer version of fal-grpc .*9999.*install that version"):
        await copying.copy_database(source, copy)
    assert await contents(source) == before
    assert await tables(copy) == []


async def test_a_controllers_database_is_not_copied(server, tmp_path):
    place = server.make(tmp_path.name)
    store = await open_store(place, AesVault(KEY))
    with pytest.raises(FailedPrecondition, match="a controller uses the database to copy from: stop it"):
        await copying.copy_database(place, tmp_path / "copy.db")
    await store.close()


async def test_a_server_that_is_away_is_named(tmp_path):
    await fill(tmp_path / "source.db")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await copying.copy_database(tmp_path / "source.db", "postgresql://fal@127.0.0.1:1/fal")


def fal_db(directory, *words):
    command = [sys.executable, "-m", "fal_cli", "db", "copy", "--state-dir", directory, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_the_command_moves_there_and_back(server, tmp_path):
    state = StateDir(tmp_path / "state")
    await fill(state.database)
    before = await contents(state.database)
    url = server.make(tmp_path.name)
    gone = fal_db(state.root, "--to", url)
    assert gone.returncode == 0, gone.stderr
    assert "they are the same" in gone.stdout
    assert f"fal up --detach --database {shlex.quote(url)}" in gone.stdout
    assert not state.database.exists()
    assert (state.root / "fal.db.moved").exists()
    back = fal_db(state.root, "--from", url)
    assert back.returncode == 0, back.stderr
    assert await contents(state.database) == before
    assert await contents(url) == before
    state.database.rename(state.root / "away")
    gone_before = fal_db(state.root, "--to", url)
    assert "it was copied before, and is" in gone_before.stderr
    (state.root / "away").rename(state.database)
    again = fal_db(state.root, "--from", url)
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_what_the_command_refuses(tmp_path, monkeypatch):
    monkeypatch.delenv("FAL_DATABASE_URL", raising=False)
    for words, code, reason in [
        ((), 2, "name the target"),
        (("--from",), 2, "name the target"),
        (("--to", "there"), 2, "not the URL of a PostgreSQL database"),
        (("--to", "postgresql://fal:hunter2@127.0.0.1:1/fal"), 2, "put the URL into FAL_DATABASE_URL"),
        (("--from", "postgresql://fal:hunter2@127.0.0.1:1/fal"), 2, "put the URL into FAL_DATABASE_URL"),
        (("--to", "postgresql://fal@127.0.0.1:1/fal"), 1, "not found"),
        (("--to", "postgresql://a/b", "--from", "postgresql://a/b"), 2, "not allowed with"),
    ]:
        done = fal_db(tmp_path / "none", *words)
        assert (done.returncode, reason in done.stderr) == (code, True), done.stderr
        assert "hunter2" not in done.stderr
    assert not (tmp_path / "none").exists()


def test_a_running_controller_keeps_its_database(tmp_path):
    state = StateDir(tmp_path)
    state.database.touch()
    with state.held():
        for move in (
            lambda: move_out(tmp_path, "postgresql://a/b", print),
            lambda: move_in("postgresql://a/b", tmp_path, print),
        ):
            with pytest.raises(FailedPrecondition, match="already running"):
                move()


async def test_a_snapshot_of_a_database_that_a_controller_uses(server, tmp_path):
    place = server.make(tmp_path.name)
    await fill(place)
    before = await contents(place)
    store = await open_store(place, AesVault(KEY))
    rows = await copying.copy_database(place, tmp_path / "copy.db", snapshot=True)
    await store.close()
    assert rows == sum(map(len, before.values()))
    assert await contents(tmp_path / "copy.db") == before


def test_a_refused_copy_leaves_no_directory(server, tmp_path):
    for url in (server.url("nosuch"), server.make(f"{tmp_path.name}-unused")):
        with pytest.raises((FailedPrecondition, Unavailable)):
            move_in(url, tmp_path / "new" / "state", print)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_copy_leaves_a_directory_that_was_there(server, tmp_path):
    with pytest.raises(Unavailable):
        move_in(server.url("nosuch"), tmp_path, print)
    assert tmp_path.is_dir()


def test_a_database_that_no_controller_used_is_not_copied_and_not_changed(server, tmp_path):
    place = server.make(tmp_path.name)
    with pytest.raises(FailedPrecondition, match="is not a controller's"):
        move_in(place, tmp_path / "state", print)
    assert server.ask(r"select count(*) from pg_tables where schemaname = 'public'", tmp_path.name) == "0"
