"""Environments: `main` always exists, and one with apps cannot be deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from fal_server.core.apps import App, AuthMode
from fal_server.core.faults import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from fal_server.core.identity import LOCAL
from fal_server.core.revisions import Revision
from fal_server.core.scaling import Scaling
from fal_server.live.catalog import existing_environment
from fal_server.services.environments import Environments
from fal_server.store import AesVault, SqlStore, open_store
from tests.fakes.domain import SCOPE

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    def now(self) -> datetime:
        return NOON

    def wall(self) -> datetime:
        return self.now()


@pytest.fixture
async def store() -> AsyncIterator[SqlStore]:
    store = await open_store(None, AesVault(bytes(32)))
    yield store
    await store.close()


@pytest.fixture
async def environments(store: SqlStore) -> Environments:
    environments = Environments(store, Clock())
    await environments.bootstrap(LOCAL)
    await environments.bootstrap(LOCAL)  # a second start changes nothing
    return environments


async def add_app(store: SqlStore, name: str, environment: str) -> None:
    revision = Revision(
        account=LOCAL,
        revision_id=f"rev-{name}",
        app_name=name,
        environment=environment,
        created_at=NOON,
        environments=(),
        function=None,
        entrypoint="a:b",
        scaling=Scaling(),
    )
    app = App(
        account=LOCAL,
        name=name,
        environment=environment,
        revision_id=revision.revision_id,
        auth_mode=AuthMode.PRIVATE,
        scaling=Scaling(),
        created_at=NOON,
        updated_at=NOON,
    )
    await store.register(revision, app)


async def test_the_default_one_comes_first(environments: Environments) -> None:
    await environments.create(SCOPE, "z", "last")
    await environments.create(SCOPE, "a")
    listed = await environments.list(SCOPE)
    assert [(each.name, each.is_default, each.description) for each in listed] == [
        ("main", True, None),
        ("a", False, None),
        ("z", False, "last"),
    ]
    assert listed[1].created_at == NOON


@pytest.mark.parametrize("name", ["", "A", "a--b", "-a", "a_b", "a" * 65, "a/b", "ä"])
async def test_names_that_do_not_do(environments: Environments, name: str) -> None:
    for call in (environments.create, environments.delete):
        with pytest.raises(InvalidArgument) as caught:
            await call(SCOPE, name)
        assert caught.value.field == "name"


async def test_a_name_is_taken_once(environments: Environments) -> None:
    answers = await asyncio.gather(*(environments.create(SCOPE, "a") for _ in range(4)), return_exceptions=True)
    assert [type(answer) for answer in answers].count(AlreadyExists) == 3
    with pytest.raises(AlreadyExists):
        await environments.create(SCOPE, "main")


async def test_one_with_apps_stays_and_they_are_named(environments: Environments, store: SqlStore) -> None:
    await environments.create(SCOPE, "staging")
    for number in range(12):
        await add_app(store, f"app{number:02}--staging", "staging")
    with pytest.raises(FailedPrecondition, match=r"app00--staging, .*app09--staging and 2 more"):
        await environments.delete(SCOPE, "staging")
    for number in range(12):
        await store.delete_app(LOCAL, f"app{number:02}--staging")
    await environments.delete(SCOPE, "staging")
    with pytest.raises(NotFound):
        await environments.delete(SCOPE, "staging")


async def test_main_stays(environments: Environments) -> None:
    with pytest.raises(FailedPrecondition, match="always exists"):
        await environments.delete(SCOPE, "main")


async def test_none_and_empty_mean_main(environments: Environments, store: SqlStore) -> None:
    await environments.create(SCOPE, "a")
    assert [await existing_environment(store, LOCAL, name) for name in (None, "", "main", "a")] == [
        "main",
        "main",
        "main",
        "a",
    ]
    with pytest.raises(NotFound, match="fal environments create b"):
        await existing_environment(store, LOCAL, "b")


async def test_there_is_an_end_to_environments(environments: Environments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fal_server.services.environments.MOST_ENVIRONMENTS", 2)
    await environments.create(SCOPE, "a")
    with pytest.raises(ResourceExhausted):
        await environments.create(SCOPE, "b")
