"""Permissions and authentication: patterns, presets, and keys. Keys are cached until they are revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_server.access.authentication import Authenticator, hash_secret
from fal_server.access.permissions import (
    CALL_APPS,
    PERMISSIONS,
    PRESETS,
    allows,
    checked_permissions,
    covers,
    excess,
    preset_permissions,
    require,
)
from fal_server.core.accounts import Key
from fal_server.core.faults import InvalidArgument, PermissionDenied, Unauthenticated
from fal_server.core.identity import LOCAL, Accounts, Principal, Scope
from fal_server.services.keys import Keys
from fal_server.store import AesVault, SqlStore, open_store
from tests.fakes.domain import SCOPE

PARTS = st.sampled_from(["serverless", "apps", "keys", "read", "run", "*"])
PATTERNS = st.lists(PARTS, min_size=1, max_size=4).map(":".join)
WORDS = st.lists(st.sampled_from(["serverless", "apps", "keys", "read", "run"]), min_size=1, max_size=4).map(":".join)


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def wall(self) -> datetime:
        return self.now()


@pytest.fixture
async def store() -> AsyncIterator[SqlStore]:
    store = await open_store(None, AesVault(bytes(32)))
    yield store
    await store.close()


def holder(*permissions: str) -> Principal:
    return Principal(key_id="k", scope=Scope(account=LOCAL, permissions=frozenset(permissions)))


@pytest.mark.parametrize(
    ("held", "wanted", "covered"),
    [
        ("*", "keys:write", True),
        ("*", "*", True),
        ("keys:*", "keys:write", True),
        ("keys:*", "keys", False),
        ("keys:*", "*", False),
        ("serverless:*", "serverless:apps:run", True),
        ("serverless:*", "serverless:*:run", True),
        ("serverless:*:read", "serverless:apps:read", True),
        ("serverless:*:read", "serverless:apps:write", False),
        ("serverless:*:read", "serverless:*", False),
        ("serverless:*:read", "serverless:*:read", True),
        ("serverless:apps:run", "serverless:apps:run", True),
        ("serverless:apps:run", "serverless:apps:*", False),
        ("serverless:apps:run", "serverless:apps", False),
        ("serverless:apps:run", "serverless:apps:run:x", False),
    ],
)
def test_what_a_pattern_covers(held: str, wanted: str, covered: bool) -> None:
    assert covers(held, wanted) is covered


@settings(deadline=None)
@given(PATTERNS)
def test_a_pattern_covers_itself(pattern: str) -> None:
    assert covers(pattern, pattern)


@settings(deadline=None)
@given(held=PATTERNS, given_=PATTERNS, word=WORDS)
def test_who_gets_what_another_has_gets_no_more(held: str, given_: str, word: str) -> None:
    if covers(held, given_) and covers(given_, word):
        assert covers(held, word)


def test_presets_are_made_of_known_permissions() -> None:
    for preset, permissions in PRESETS.items():
        assert preset_permissions(preset.lower()) == permissions
        assert checked_permissions(permissions) == tuple(sorted(permissions))
    assert {word for word in PERMISSIONS if allows(holder(*PRESETS["API"]), word)} == {CALL_APPS}
    assert {word for word in PERMISSIONS if allows(holder(*PRESETS["FULL"]), word)} == PERMISSIONS
    assert all(word.endswith(":read") for word in PERMISSIONS if allows(holder(*PRESETS["READONLY"]), word))
    for preset in ("DEPLOY", "AGENT", "SERVERLESS", "COMPUTE", "BILLING"):
        assert not allows(holder(*PRESETS[preset]), "keys:write")
    assert not allows(holder(*PRESETS["AGENT"]), "serverless:secrets:read")


def test_what_is_lacking_is_named() -> None:
    with pytest.raises(PermissionDenied, match="keys:write"):
        require(holder(CALL_APPS), "keys:write")
    assert excess(["*", CALL_APPS], ["serverless:*"]) == ("*",)


@pytest.mark.parametrize("wrong", [[], [""], ["serverless"], ["serverless:apps:fly"], ["**"], ["a:*"], ["keys:write "]])
def test_permissions_that_mean_nothing(wrong: list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked_permissions(wrong)
    assert caught.value.field == "policy.permissions"


async def test_a_key_is_looked_up_once(store: SqlStore) -> None:
    access = Authenticator(store, clock := Clock())
    key_id, secret = await Keys(store, clock, access).create(None, preset="API", alias="a")
    assert access.cached(key_id, secret) is None
    principal = await access.authenticate(key_id, secret)
    assert access.cached(key_id, secret) is principal
    assert access.cached(key_id, secret + "x") is None
    assert access.cached("other", secret) is None
    assert allows(principal, CALL_APPS)
    assert principal == Principal(key_id=key_id, scope=Scope(account=LOCAL, permissions=frozenset({CALL_APPS})))
    clock.at += timedelta(minutes=5)
    assert access.cached(key_id, secret) is None


@pytest.mark.parametrize("wrong", [("", ""), ("nobody", "x"), ("nobody", ""), ("\ud800", "\ud800")])
async def test_who_is_not_known_is_not_let_in(store: SqlStore, wrong: tuple[str, str]) -> None:
    with pytest.raises(Unauthenticated):
        await Authenticator(store, Clock()).authenticate(*wrong)


async def test_a_wrong_secret_is_wrong_also_where_the_key_is_remembered(store: SqlStore) -> None:
    access = Authenticator(store, clock := Clock())
    key_id, secret = await Keys(store, clock, access).create(None)
    await access.authenticate(key_id, secret)
    for wrong in ("", secret[:-1], secret + "0", hash_secret(secret)):
        with pytest.raises(Unauthenticated):
            await access.authenticate(key_id, wrong)


async def test_a_revocation_counts_at_once(store: SqlStore) -> None:
    access = Authenticator(store, clock := Clock())
    keys = Keys(store, clock, access)
    await keys.bootstrap()
    key_id, secret = await keys.create(None)
    await access.authenticate(key_id, secret)
    await keys.revoke(SCOPE, key_id)
    assert access.cached(key_id, secret) is None
    with pytest.raises(Unauthenticated, match="revoked"):
        await access.authenticate(key_id, secret)


class SlowStore:
    """A store that answers about a key when the test allows it."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def get_key(self, account: Accounts, key_id: str) -> Key | None:
        key = await self._store.get_key(account, key_id)
        self.asked.set()
        await self.answer.wait()
        return key


async def test_a_revocation_is_not_undone_by_an_answer_that_is_on_its_way(store: SqlStore) -> None:
    slow = SlowStore(store)
    access = Authenticator(slow, clock := Clock())  # type: ignore[arg-type]
    keys = Keys(store, clock, access)
    await keys.bootstrap()
    key_id, secret = await keys.create(None)
    asking = asyncio.create_task(access.authenticate(key_id, secret))
    await slow.asked.wait()
    await keys.revoke(SCOPE, key_id)
    slow.answer.set()
    with pytest.raises(Unauthenticated):
        await asking
    assert access.cached(key_id, secret) is None


async def test_what_is_remembered_has_an_end(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fal_server.access.authentication._MOST_CACHED", 3)
    access = Authenticator(store, clock := Clock())
    made = [await Keys(store, clock, access).create(None) for _ in range(5)]
    for key in made:
        await access.authenticate(*key)
    assert [access.cached(*key) is not None for key in made] == [False, False, True, True, True]
