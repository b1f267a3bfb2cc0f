"""Opening a database: its file, version and master key. The tests also cover what is readable without the key."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from dataclasses import replace

import pytest
from alembic.script import ScriptDirectory

from fal_server.core.faults import Unavailable
from fal_server.core.identity import LOCAL
from fal_server.store import AesVault, open_store
from fal_server.store.sql import migrations
from tests.store import strategies as some

VAULT = AesVault(bytes(range(32)))


def execute(path, statement, *values):
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


async def test_the_file_is_its_owners_alone(tmp_path):
    path = tmp_path / "store.db"
    path.touch(mode=0o644)
    store = await open_store(str(path), VAULT)
    await store.add_key(some.key("k"))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3, "the database, its write-ahead log and its index"
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    await store.close()


async def test_it_is_durable_and_holds_its_references(tmp_path):
    path = tmp_path / "store.db"
    store = await open_store(path, VAULT)
    pragmas = {}

    async def read(connection):
        for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout"):
            pragmas[name] = (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()

    await store._database.read(read)
    await store.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


async def test_another_master_key_is_refused(tmp_path):
    path = tmp_path / "store.db"
    await (await open_store(path, VAULT)).close()
    with pytest.raises(Unavailable, match="made with another master key"):
        await open_store(path, AesVault(bytes(32)))
    await (await open_store(path, VAULT)).close()


async def test_a_failed_first_opening_leaves_an_empty_database(tmp_path):
    path = tmp_path / "store.db"

    class Broken(AesVault):
        def seal(self, context, value):
            raise Unavailable("no vault")

        def open(self, context, sealed):
            raise Unavailable("no vault")

    with pytest.raises(Unavailable, match="no vault"):
        await open_store(path, Broken(bytes(32)))
    assert execute(path, "SELECT name FROM sqlite_master") == []
    await (await open_store(path, VAULT)).close()


async def test_what_is_no_database_is_refused(tmp_path):
    path = tmp_path / "store.db"
    path.write_text("these are words, not a database " * 100)
    with pytest.raises(Unavailable, match="not a database"):
        await open_store(path, VAULT)
    with pytest.raises(Unavailable, match=r"none/store\.db cannot be opened: No such file"):
        await open_store(tmp_path / "none" / "store.db", VAULT)
    with pytest.raises(Unavailable, match="malformed"):
        await open_store("://", VAULT)


async def test_a_damaged_one_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "store.db"
    await (await open_store(path, VAULT)).close()
    whole = path.read_bytes()
    for left in (whole[: len(whole) // 2], bytes(range(256)) * 20):
        path.write_bytes(left)
        with pytest.raises(Unavailable, match=r"store\.db is damaged: put a backup of it back, or move it away"):
            await open_store(path, VAULT)
    path.write_bytes(b"")
    await (await open_store(path, VAULT)).close()


async def test_secrets_are_not_on_the_disk(tmp_path):
    store = await open_store(tmp_path / "store.db", VAULT)
    await some.add_revision(store, some.revision("r1"))
    await store.save_runners([some.runner("n1")])
    await store.save_secret(replace(some.secret("A"), sealed=VAULT.seal("A", "hunter2-secret")))
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    await store.close()
    assert b"r1" in content
    assert b"hunter2" not in content
    assert b"hunter2" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


async def test_private_databases_are_apart():
    one, other = await open_store(None, VAULT), await open_store(None, AesVault(bytes(32)))
    await one.add_key(some.key("k"))
    assert await other.get_key(LOCAL, "k") is None
    await one.close()
    await other.close()


def test_the_newest_migration_is_the_head():
    script = ScriptDirectory(str(migrations.__path__[0]))
    assert script.get_current_head() == migrations.HEAD


async def test_deleted_lines_give_their_disk_back(tmp_path):
    path = tmp_path / "store.db"
    store = await open_store(path, AesVault(bytes(32)))
    try:
        for start in range(0, 20_000, 5000):
            await store.logs.append([some.line(number, "x" * 300, at=0) for number in range(start + 1, start + 5001)])
        full = path.stat().st_size
        assert full > 5_000_000
        assert await store.logs.forget(some.later(1)) == 20_000
        assert path.stat().st_size < full / 10
        assert path.with_name("store.db-wal").stat().st_size == 0
        await store.logs.append([some.line(1, "after")])
        assert await store.logs.last_sequence(LOCAL, some.line(1).runner_id) == 1
    finally:
        await store.close()
