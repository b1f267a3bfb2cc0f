"""Keys: what is stored, what they may do, and that the last ADMIN key stays."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import CALL_APPS
from fal_server.core.accounts import KeyScope
from fal_server.core.faults import FailedPrecondition, Fault, NotFound, PermissionDenied, ResourceExhausted
from fal_server.core.identity import LOCAL
from fal_server.services.keys import Keys, coarse_scope
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
def access(store: SqlStore) -> Authenticator:
    return Authenticator(store, Clock())


@pytest.fixture
def keys(store: SqlStore, access: Authenticator) -> Keys:
    return Keys(store, Clock(), access)


async def test_only_the_hash_of_a_secret_is_stored(keys: Keys, store: SqlStore) -> None:
    key_id, secret = await keys.create(None, alias="ci")
    key = await store.get_key(LOCAL, key_id)
    assert key is not None
    assert key.secret_hash == hashlib.sha256(secret.encode()).hexdigest()
    assert (key.alias, key.created_at, key.preset, key.scope) == ("ci", NOON, "FULL", KeyScope.ADMIN)
    assert len(secret) == 64
    assert ":" not in key_id + secret
    assert secret not in repr(key)
    assert key.secret_hash not in repr(key)


async def test_permissions_then_preset_then_scope(keys: Keys, store: SqlStore) -> None:
    asked = [
        {"permissions": ["keys:read", "keys:read"], "preset": "FULL", "scope": KeyScope.API},
        {"preset": "readonly", "scope": KeyScope.API},
        {"scope": KeyScope.API},
        {"scope": KeyScope.ADMIN},
        {},
    ]
    made = [await store.get_key(LOCAL, (await keys.create(None, **each))[0]) for each in asked]  # type: ignore[arg-type]
    assert [(key.preset, key.scope, coarse_scope(key)) for key in made if key] == [
        ("", KeyScope.API, None),
        ("READONLY", KeyScope.API, None),
        ("API", KeyScope.API, KeyScope.API),
        ("FULL", KeyScope.ADMIN, KeyScope.ADMIN),
        ("FULL", KeyScope.ADMIN, KeyScope.ADMIN),
    ]
    assert made[0] is not None
    assert made[0].permissions == ("keys:read",)


async def test_no_key_exceeds_its_creator(keys: Keys, access: Authenticator) -> None:
    creator = await access.authenticate(*await keys.create(None, permissions=["keys:*", "serverless:apps:*"]))
    await keys.create(creator, permissions=[CALL_APPS, "keys:write"])
    await keys.create(creator, preset="API")
    for more in ({"preset": "FULL"}, {"permissions": ["serverless:*"]}, {"permissions": ["*"]}, {}):
        with pytest.raises(PermissionDenied, match="lacks itself"):
            await keys.create(creator, **more)  # type: ignore[arg-type]


async def test_the_first_key_is_created_once(keys: Keys, access: Authenticator) -> None:
    await keys.create(None, preset="API")
    first = await keys.bootstrap()
    assert first is not None
    assert (await access.authenticate(*first)).scope.permissions == {"*"}
    assert await keys.bootstrap() is None


async def test_a_damaged_key_file_gets_a_new_key(keys: Keys, access: Authenticator) -> None:
    first = await keys.replacement_for(None, "first")
    assert first is not None
    assert await keys.replacement_for(f"{first}\n", "first") is None
    for damaged in (
        "",
        "\n",
        first[:20],
        first[:-9],
        f"{first}x",
        "\x00" * 80,
        "\ufffd\ufffd:x",
        first.replace("-", "0"),
    ):
        again = await keys.replacement_for(damaged, "first")
        assert again is not None
        key_id, _, secret = again.partition(":")
        assert (await access.authenticate(key_id, secret)).scope.permissions == {"*"}
        await keys.revoke(SCOPE, key_id)
    key_id, _, _ = first.partition(":")
    other, _ = await keys.create(None, alias="mine")
    await keys.revoke(SCOPE, key_id)
    assert await keys.replacement_for(first, "first") is None, "it was revoked by somebody's wish"
    assert await keys.replacement_for(None, "first") is None, "it was removed by somebody's wish"
    assert [key.key_id for key in await keys.list(SCOPE)] == [other]


async def test_one_admin_key_always_stays(keys: Keys, store: SqlStore) -> None:
    made = [(await keys.create(None))[0] for _ in range(5)]
    api, _ = await keys.create(None, preset="API")
    await keys.revoke(SCOPE, api)
    answers = await asyncio.gather(*(keys.revoke(SCOPE, key_id) for key_id in made), return_exceptions=True)
    assert [type(answer) for answer in answers].count(FailedPrecondition) == 1
    assert len(await keys.list(SCOPE)) == 1


async def test_a_missing_key_cannot_be_revoked(keys: Keys) -> None:
    key_id, _ = await keys.create(None, preset="API")
    await keys.revoke(SCOPE, key_id)
    for gone in (key_id, "nobody"):
        with pytest.raises(NotFound, match=gone):
            await keys.revoke(SCOPE, gone)


async def test_the_number_of_keys_is_limited(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fal_server.services.keys.MOST_KEYS", 3)
    answers = await asyncio.gather(*(keys.create(None) for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers].count(ResourceExhausted) == 2
    assert all(isinstance(answer, tuple | Fault) for answer in answers)
