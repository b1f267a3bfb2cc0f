"""The migrations make, in every database, what the tables say."""

from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import JSON, BigInteger, LargeBinary, String, column, insert, table

from fal_server.store import AesVault, open_store
from fal_server.store.sql import dialect, migrations
from fal_server.store.sql.columns import Text, UtcTimestamp
from fal_server.store.sql.tables import METADATA

VAULT = AesVault(bytes(range(32)))


def other_type(_context, _inspected, _column, inspected_type, wanted):
    """Whether a column is not of the type that ours is made of; None leaves SQLAlchemy's own types to Alembic."""
    if isinstance(wanted, UtcTimestamp):
        return not isinstance(inspected_type, BigInteger)
    return not isinstance(inspected_type, String) if isinstance(wanted, Text) else None


def differences(connection):
    return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": other_type}), METADATA)


async def test_migrations_make_what_the_tables_say(durable):
    await (await open_store(durable, AesVault(bytes(range(32))))).close()
    engine = dialect.create_engine(durable)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


def brought_to(version):
    """Brings a database to an earlier version."""

    def work(connection):
        config = Config()
        config.set_main_option("script_location", migrations.__path__[0])
        config.attributes["connection"] = connection
        command.upgrade(config, version)

    return work


async def test_living_runners_of_an_earlier_version_are_found_again(durable):
    engine = dialect.create_engine(durable)
    process = {"pid": 4711, "started_ticks": 12345, "address": "/state/runners/x/shim.sock"}
    same = {
        "app_name": "a",
        "environment": "main",
        "revision_id": "r",
        "machine_type": "XS",
        "node": "here",
        "created_at": 1,
        "desired": "serve",
        "reason": "",
        "grace_seconds": 5,
        "kill": False,
        "replace_first": False,
        "ephemeral": False,
    }
    rows = [
        {**same, "runner_id": name, "state": state, "process": shim, "port": port}
        for name, state, shim, port in (("ready", "idle", process, 20001), ("coming", "pending", None, None))
    ]
    types = {"process": JSON(), "sealed_token": LargeBinary()}
    runners = table("runners", *(column(name, types.get(name)) for name in (*rows[0], "sealed_token")))
    async with engine.begin() as connection:
        await connection.run_sync(brought_to("0004"))
        for row in rows:
            sealed = VAULT.seal(f"runner/{row['runner_id']}/token", "secret")
            await connection.execute(insert(runners).values(**row, sealed_token=sealed))
    await engine.dispose()
    store = await open_store(durable, VAULT)
    found = {runner.runner_id: runner for runner in await store.list_runners(None)}
    await store.close()
    assert (found["ready"].handle, found["ready"].host, found["ready"].port) == ("4711/12345", "127.0.0.1", 20001)
    assert (found["coming"].handle, found["coming"].host) == ("", "")
