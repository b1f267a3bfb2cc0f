"""Secrets: sealed in the store, and opened only for runners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from fal_server.core.identity import LOCAL
from fal_server.services.environments import Environments
from fal_server.services.secrets import MOST_VALUE_BYTES, Secrets
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
    environments = Environments(store, Clock())
    await environments.bootstrap(LOCAL)
    await environments.create(SCOPE, "staging")
    yield store
    await store.close()


@pytest.fixture
def secrets(store: SqlStore) -> Secrets:
    return Secrets(store, AesVault(bytes(32)), Clock())


async def test_a_value_is_sealed_and_opened_for_runners(secrets: Secrets, store: SqlStore) -> None:
    await secrets.set(SCOPE, "TOKEN", "geheim ☃")
    [stored] = await store.list_secrets(LOCAL, None)
    assert b"geheim" not in stored.sealed
    assert "geheim" not in repr(stored)
    assert await secrets.reveal_for(LOCAL, "main", None) == {"TOKEN": "geheim ☃"}


async def test_code_that_names_no_secrets_gets_the_exposed_ones(secrets: Secrets) -> None:
    await secrets.set(SCOPE, "SHY", "1", default_exposed=False)
    await secrets.set(SCOPE, "OPEN", "2", default_exposed=True)
    await secrets.set(SCOPE, "PLAIN", "3")
    assert await secrets.reveal_for(LOCAL, "main", None) == {"OPEN": "2", "PLAIN": "3"}
    assert await secrets.reveal_for(LOCAL, "main", ["SHY", "OPEN", "SHY"]) == {"SHY": "1", "OPEN": "2"}
    assert await secrets.reveal_for(LOCAL, "main", []) == {}
    assert await secrets.reveal_for(LOCAL, "staging", None) == {}


async def test_a_missing_secret_is_named(secrets: Secrets) -> None:
    await secrets.set(SCOPE, "HERE", "1", environment="main")
    with pytest.raises(FailedPrecondition, match="THERE, NOR"):
        await secrets.reveal_for(LOCAL, "main", ["HERE", "THERE", "NOR"])
    with pytest.raises(FailedPrecondition, match="'staging' lacks: HERE"):
        await secrets.reveal_for(LOCAL, "staging", ["HERE"])


async def test_a_second_value_replaces_the_first(secrets: Secrets) -> None:
    await secrets.set(SCOPE, "A", "1")
    await secrets.set(SCOPE, "A", "")
    assert await secrets.reveal_for(LOCAL, "main", ["A"]) == {"A": ""}
    assert len(await secrets.list(SCOPE)) == 1


async def test_unset(secrets: Secrets) -> None:
    await secrets.set(SCOPE, "A", "1", environment="staging")
    with pytest.raises(NotFound, match="main"):
        await secrets.unset(SCOPE, "A")
    await secrets.unset(SCOPE, "A", environment="staging")
    assert await secrets.list(SCOPE, "staging") == []


async def test_the_longest_value(secrets: Secrets) -> None:
    await secrets.set(SCOPE, "A", "é" * (MOST_VALUE_BYTES // 2))
    with pytest.raises(InvalidArgument) as caught:
        await secrets.set(SCOPE, "A", "é" * (MOST_VALUE_BYTES // 2) + "x")
    assert caught.value.field == "value"


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
async def test_values_that_no_variable_can_hold(secrets: Secrets, value: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await secrets.set(SCOPE, "A", value)
    assert caught.value.field == "value"
    assert value not in caught.value.message


async def test_a_sealed_value_opens_only_under_its_own_name(secrets: Secrets, store: SqlStore) -> None:
    await secrets.set(SCOPE, "MINE", "geheim")
    [stored] = await store.list_secrets(LOCAL, "main")
    await store.save_secret(replace(stored, name="YOURS"))
    await store.save_secret(replace(stored, environment="staging"))
    for environment, name in (("main", "YOURS"), ("staging", "MINE")):
        with pytest.raises(Unavailable):
            await secrets.reveal_for(LOCAL, environment, [name])


async def test_deleting_an_environment_deletes_its_secrets(secrets: Secrets, store: SqlStore) -> None:
    environments = Environments(store, Clock())
    await secrets.set(SCOPE, "A", "1", environment="staging")
    await environments.delete(SCOPE, "staging")
    with pytest.raises(NotFound, match="staging"):
        await secrets.set(SCOPE, "A", "1", environment="staging")
    await environments.create(SCOPE, "staging")
    assert await secrets.list(SCOPE, "staging") == []


async def test_the_number_of_secrets_is_limited(secrets: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fal_server.services.secrets.MOST_SECRETS", 3)
    answers = await asyncio.gather(*(secrets.set(SCOPE, f"S{n}", "x") for n in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers].count(ResourceExhausted) == 2
    await secrets.set(SCOPE, "S0", "changed")  # an existing one can still change


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200))
async def test_every_text_is_returned_unchanged(value: str) -> None:
    store = await open_store(None, AesVault(bytes(32)))
    try:
        await Environments(store, Clock()).bootstrap(LOCAL)
        secrets = Secrets(store, AesVault(bytes(32)), Clock())
        await secrets.set(SCOPE, "A", value)
        assert await secrets.reveal_for(LOCAL, "main", None) == {"A": value}
    finally:
        await store.close()
