"""Every saved object comes back equal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta, timezone

from hypothesis import HealthCheck, given, settings

from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogQuery
from tests.store import strategies as some

# All examples share one database, so each has its own id.
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(revision=some.revisions)
async def test_revision(store, revision):
    await some.add_revision(store, revision)
    assert await store.get_revision(LOCAL, revision.revision_id) == revision


@many
@given(app=some.apps)
async def test_app(store, app):
    for revision_id in ("r1", "r2"):
        if await store.get_revision(LOCAL, revision_id) is None:
            await some.add_revision(store, some.revision(revision_id))
    await store.save_app(app)
    assert await store.get_app(LOCAL, app.name) == app


@many
@given(runner=some.runners)
async def test_runner(store, runner):
    await store.save_runners([runner])
    assert await store.get_runner(LOCAL, runner.runner_id) == runner


@many
@given(key=some.keys)
async def test_key(store, key):
    await store.add_key(key)
    assert await store.get_key(LOCAL, key.key_id) == key


@many
@given(secret=some.sealed_secrets)
async def test_secret(store, secret):
    await store.save_secret(secret)
    assert secret in await store.list_secrets(LOCAL, "main")


@many
@given(environment=some.environments)
async def test_environment(store, environment):
    assert await store.add_environment(environment)
    assert await store.get_environment(LOCAL, environment.name) == environment


@many
@given(entry=some.log_entries)
async def test_log_line(store, entry):
    await store.logs.append([entry])
    assert (await store.logs.page(LOCAL, LogQuery(runner_id=entry.runner_id))).entries == (entry,)


async def test_times_come_back_in_utc_with_microseconds(store):
    elsewhere = timezone(timedelta(hours=5, minutes=30))
    await store.add_key(replace(some.key("k"), created_at=some.START.astimezone(elsewhere)))
    back = (await store.get_key(LOCAL, "k")).created_at
    assert back == some.START
    assert back.tzinfo is UTC
    assert back.microsecond == 678901
