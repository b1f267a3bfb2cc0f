"""In every database the migrations create the declared tables."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import JSON, BigInteger, Boolean, LargeBinary, MetaData, String, column, delete, insert, table, text

from fal_server.core.faults import Unavailable
from fal_server.core.identity import EVERY_ACCOUNT, LOCAL
from fal_server.core.logs import LogQuery
from fal_server.core.queue import Content, QueuedRequest
from fal_server.services.submission import Submission, idempotency
from fal_server.store import AesVault, open_store
from fal_server.store.sql import dialect, migrations
from fal_server.store.sql.columns import Text, UtcTimestamp
from fal_server.store.sql.tables import METADATA
from tests.fakes.domain import app_id

VAULT = AesVault(bytes(range(32)))


def other_type(_context, _inspected, _column, inspected_type, wanted):
    """Return whether a column has another type than the one behind ours. None leaves SQLAlchemy's types to Alembic."""
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


async def test_a_newer_version_is_refused_and_left_as_it_is(durable):
    await (await open_store(durable, VAULT)).close()
    engine = dialect.create_engine(durable)
    async with engine.execution_options(**dialect.WRITES).begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Unavailable, match=r"was written by a newer version of fal-grpc .*9999.*install that version"):
        await open_store(durable, VAULT)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == "9999"
    await engine.dispose()


def brought_to(version):
    """Migrate a database to an earlier version."""

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
    found = {runner.runner_id: runner for runner in await store.list_runners(LOCAL, None)}
    await store.close()
    assert (found["ready"].handle, found["ready"].host, found["ready"].port) == ("4711/12345", "127.0.0.1", 20001)
    assert (found["coming"].handle, found["coming"].host) == ("", "")


ROWS_OF_0004 = Path(__file__).with_name("rows_of_0004.json")


def fill(connection):
    """Insert rows like version 0004's code, at least one of each noun."""
    brought_to("0004")(connection)
    tables = MetaData()
    tables.reflect(connection)
    connection.execute(delete(tables.tables["environments"]))
    for name, rows in json.loads(ROWS_OF_0004.read_text()).items():
        columns = tables.tables[name].c
        for row in rows:
            connection.execute(insert(tables.tables[name]), {key: held(columns[key], row[key]) for key in row})


def held(column_, value):
    """Return a value of the file in its column's type."""
    match column_.type:
        case _ if value is None:
            return None
        case Boolean():
            return bool(value)
        case JSON():
            return json.loads(value)
        case LargeBinary():
            return base64.b64decode(value["base64"])
        case _:
            return value


async def test_everything_of_an_earlier_version_belongs_to_the_local_account(durable):
    engine = dialect.create_engine(durable)
    async with engine.begin() as connection:
        await connection.run_sync(fill)
    await engine.dispose()
    store = await open_store(durable, VAULT)
    try:
        apps = await store.list_apps(LOCAL, None)
        assert [(app.name, app.environment, app.revision_id, app.next_revision_id) for app in apps] == [
            ("hello", "main", "r1", "r3"),
            ("hello--dev", "dev", "r2", None),
        ]
        assert [app.scaling.keep_alive for app in apps] == [7, 7]
        assert apps[1].next_scaling is not None
        assert apps[1].next_scaling.keep_alive == 8
        assert {revision.revision_id for revision in await store.list_revisions(LOCAL, None, None)} == {
            "r1",
            "r2",
            "r3",
        }
        assert [(runner.runner_id, runner.token) for runner in await store.list_runners(LOCAL, None)] == [
            ("n1", "secret")
        ]
        assert [change.reason for change in await store.runner_history(LOCAL, "n1")] == ["ready"]
        assert [(key.key_id, key.permissions) for key in await store.list_keys(LOCAL)] == [("k1", ("*",))]
        environments = await store.list_environments(LOCAL)
        assert [(one.name, one.description, one.is_default) for one in environments] == [
            ("main", None, True),
            ("dev", "for trying", False),
        ]
        secrets = await store.list_secrets(LOCAL, None)
        assert [(one.environment, one.name, one.default_exposed) for one in secrets] == [
            ("dev", "TOKEN", False),
            ("main", "TOKEN", None),
        ]
        assert [VAULT.open(f"{one.environment}/TOKEN", one.sealed) for one in secrets] == ["hunter2", "hunter3"]
        lines = (await store.logs.page(LOCAL, LogQuery(app_name="hello"))).entries
        assert [entry.message for entry in lines] == ["line 1", "line 2", "line 3"]
        content, answer = await store.queue.content(LOCAL, "q1"), await store.queue.answer(LOCAL, "q2")
        assert content is not None
        assert answer is not None
        assert (content.body, answer.body) == (b"body", b"answer")
        assert [delivery.status for delivery in await store.queue.deliveries(LOCAL, "q2")] == [200]
        first = await store.queue.get(LOCAL, "q1")
        assert first is not None
        again = QueuedRequest(
            account=LOCAL,
            request_id="q9",
            app_name="hello",
            path="/",
            created_at=first.created_at,
            idempotency=idempotency(Submission(app_id=app_id("hello"), path="/", caller="k1", idempotency_key="once")),
        )
        assert await store.queue.add(again, Content()) == first, "an Idempotency-Key from before is not known again"
        owners = {row.account for row in await store.list_runners(EVERY_ACCOUNT, None)}
        assert owners == {LOCAL}
        assert await store.delete_environment(LOCAL, "none") is False
        await store.delete_app(LOCAL, "hello--dev")
        assert await store.delete_environment(LOCAL, "dev")
        assert [one.environment for one in await store.list_secrets(LOCAL, None)] == ["main"]
    finally:
        await store.close()
