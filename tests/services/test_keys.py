"""Keys: storage, permissions, and that the last ADMIN key stays."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from fal_server.access.authentication import Authenticator
from fal_server.access.permissions import CALL_APPS
from fal_server.core.accounts import KeyScope
from fal_server.core.faults import (
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)
from fal_server.core.identity import LOCAL
from fal_server.services.environments import Environments
from fal_server.services.keys import Keys, coarse_scope
from fal_server.store import AesVault, SqlStore, open_store
from tests.fakes.domain import SCOPE

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    def now(self) -> datetime:
        return NOON

    def wall(self) -> datetime:
        return self.now()


class MovingClock:
    """A clock that the test moves. `step` is the change of its wall clock."""

    def __init__(self) -> None:
        self.at = NOON
        self.step = timedelta()

    def now(self) -> datetime:
        return self.at

    def wall(self) -> datetime:
        return self.at + self.step


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
    made = [await store.get_key(LOCAL, (await keys.create(None, **each))[0]) for each in asked]
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


async def test_a_key_expires_with_its_open_calls(store: SqlStore) -> None:
    clock = MovingClock()
    access = Authenticator(store, clock)
    keys = Keys(store, clock, access)
    key_id, secret = await keys.create(None, expires_at=NOON + timedelta(hours=1))
    assert (await access.authenticate(key_id, secret)).key_id == key_id
    ended: list[str] = []
    access.open_calls.on_end(ended.append)
    access.forget_expired()
    assert ended == []
    clock.at += timedelta(hours=1)
    access.forget_expired()
    assert ended == [key_id]
    with pytest.raises(Unauthenticated, match="has expired") as refused:
        await access.authenticate(key_id, secret)
    # The advice for any caller comes before that for the machine's owner.
    said = str(refused.value)
    assert -1 < said.index("FAL_KEY") < said.index("fal keys create") < said.index("ask whoever runs the controller")


async def test_a_wall_clock_that_is_set_back_makes_no_key_live_longer(store: SqlStore) -> None:
    clock = MovingClock()
    access = Authenticator(store, clock)
    key_id, secret = await Keys(store, clock, access).create(None, expires_at=NOON + timedelta(hours=1))
    clock.at += timedelta(hours=2)
    clock.step = -timedelta(hours=2)
    with pytest.raises(Unauthenticated, match="has expired"):
        await access.authenticate(key_id, secret)


async def test_no_key_is_created_that_has_expired(keys: Keys) -> None:
    with pytest.raises(InvalidArgument, match="which is over"):
        await keys.create(None, expires_at=NOON)


async def test_a_use_is_noted_at_most_once_a_minute(store: SqlStore) -> None:
    clock = MovingClock()
    key_id, secret = await Keys(store, clock, Authenticator(store, clock)).create(None)
    noted = []
    for seconds in (0, 40, 40):
        clock.at += timedelta(seconds=seconds)
        await Authenticator(store, clock).authenticate(key_id, secret)  # one without a cache
        [key] = await store.list_keys(LOCAL)
        noted.append(key.last_used_at)
    assert noted == [NOON, NOON, NOON + timedelta(seconds=80)]


async def test_a_rotated_key_works_until_the_overlap_ends(store: SqlStore) -> None:
    clock = MovingClock()
    access = Authenticator(store, clock)
    keys = Keys(store, clock, access)
    old, old_secret = await keys.create(None, alias="shop", expires_at=NOON + timedelta(days=10))
    caller = await access.authenticate(old, old_secret)
    clock.at += timedelta(days=2)
    new, new_secret = await keys.rotate(caller, old, timedelta(hours=1))
    listed = {key.key_id: key for key in await store.list_keys(LOCAL)}
    assert (listed[new].alias, listed[new].permissions) == ("shop", listed[old].permissions)
    assert listed[new].expires_at == NOON + timedelta(days=12)
    assert listed[old].expires_at == NOON + timedelta(days=2, hours=1)
    assert (await access.authenticate(old, old_secret)).key_id == old
    clock.at += timedelta(hours=1)
    access.forget_expired()
    with pytest.raises(Unauthenticated):
        await access.authenticate(old, old_secret)
    assert (await access.authenticate(new, new_secret)).key_id == new
    with pytest.raises(NotFound):
        await keys.rotate(caller, old, timedelta())


async def test_a_rotation_never_lengthens_a_key_and_gives_nothing_that_the_caller_lacks(
    keys: Keys, access: Authenticator, store: SqlStore
) -> None:
    soon = NOON + timedelta(minutes=5)
    admin, _ = await keys.create(None, expires_at=soon)
    caller = await access.authenticate(*await keys.create(None, permissions=["keys:write"]))
    with pytest.raises(PermissionDenied, match="cannot give what it lacks"):
        await keys.rotate(caller, admin, timedelta(days=1))
    holder = await access.authenticate(*await keys.create(None))
    await keys.rotate(holder, admin, timedelta(days=1))
    assert {key.key_id: key.expires_at for key in await store.list_keys(LOCAL)}[admin] == soon
    for overlap in (-timedelta(seconds=1), timedelta(days=91)):
        with pytest.raises(InvalidArgument, match="overlap"):
            await keys.rotate(holder, admin, overlap)


async def test_a_rotation_without_overlap_ends_the_old_key_at_once(keys: Keys, access: Authenticator) -> None:
    old, secret = await keys.create(None)
    caller = await access.authenticate(old, secret)
    await keys.rotate(caller, old, timedelta())
    with pytest.raises(Unauthenticated):
        await access.authenticate(old, secret)


async def test_an_admin_key_that_expires_does_not_count_as_the_last(keys: Keys) -> None:
    lasting, _ = await keys.create(None)
    await keys.create(None, expires_at=NOON + timedelta(days=1))
    with pytest.raises(FailedPrecondition, match="does not expire"):
        await keys.revoke(SCOPE, lasting)


async def test_a_key_is_for_an_environment_that_exists(keys: Keys, store: SqlStore) -> None:
    for asked in ({"for_environment": "nosuch"}, {"permissions": ["serverless:apps:run@env=nosuch"]}):
        with pytest.raises(NotFound, match=r"environment 'nosuch' not found: `fal environments create nosuch`"):
            await keys.create(None, **asked)  # type: ignore[arg-type]
    assert await store.list_keys(LOCAL) == []
    await Environments(store, Clock()).create(SCOPE, "nosuch")
    await keys.create(None, for_environment="nosuch", preset="READONLY")
    await keys.create(None, for_app="not-yet-deployed", preset="DEPLOY")
