"""Tokens are valid only for their purpose. They end when they expire or their key is revoked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.access.authentication import Authenticator, principal_of
from fal_server.access.permissions import CALL_APPS, WRITE_FILES
from fal_server.access.tokens import UPLOAD_LIFE, Tokens
from fal_server.core.faults import InvalidArgument, Unauthenticated
from fal_server.core.identity import LOCAL, AppId, Principal, Scope
from fal_server.services.keys import Keys
from tests.fakes.domain import app_id
from tests.fakes.platform import OTHER, Platform
from tests.support.keys_of_runners import runner_key

SECRET = bytes(32)


class Desk:
    def __init__(self, platform: Platform, principal: Principal) -> None:
        self.platform, self.principal = platform, principal
        self.living = {"r1": LOCAL, "theirs": OTHER}
        self.tokens = Tokens(SECRET, platform.store, platform.clock, self.living.get)


@pytest.fixture
async def desk(idle: Platform) -> Desk:
    keys = Keys(idle.store, idle.clock, Authenticator(idle.store, idle.clock))
    key_id, _ = await keys.create(None, alias="")
    key = await idle.store.get_key(LOCAL, key_id)
    assert key is not None
    return Desk(idle, principal_of(key))


async def test_a_token_opens_its_apps_until_it_ends(desk: Desk) -> None:
    token = desk.tokens.for_calls(desk.principal, ["hello", "me/other"], 60).text
    key_id = desk.principal.key_id
    assert await desk.tokens.caller(token, "me", app_id("hello")) == key_id
    assert await desk.tokens.caller(token, "me", app_id("other")) == key_id
    assert await desk.tokens.caller(token, "you", app_id("other")) is None
    assert await desk.tokens.caller(token, "me", app_id("third")) is None
    assert await desk.tokens.uploader(token) is None
    desk.platform.clock.advance(60)
    assert await desk.tokens.caller(token, "me", app_id("hello")) is None


async def test_a_token_ends_with_its_key(desk: Desk) -> None:
    token = desk.tokens.for_uploads(desk.principal)
    holder = await desk.tokens.uploader(token.text)
    assert holder is not None
    assert (holder.key_id, holder.scope.permissions) == (desk.principal.key_id, {WRITE_FILES})
    assert token.expires_at == desk.platform.clock.now() + UPLOAD_LIFE
    assert await desk.tokens.caller(token.text, "me", app_id("hello")) is None
    await desk.platform.store.revoke_key(LOCAL, desk.principal.key_id, desk.platform.clock.now())
    assert await desk.tokens.uploader(token.text) is None


async def test_a_runners_key_is_good_while_it_lives(desk: Desk) -> None:
    key = runner_key(desk.tokens, "r1")
    holder = await desk.tokens.uploader(key)
    assert holder is not None
    assert (holder.key_id, holder.scope.permissions) == ("runner.r1", {WRITE_FILES})
    assert await desk.tokens.uploader(key.replace("r1", "r2")) is None
    assert await desk.tokens.uploader(runner_key(desk.tokens, "r2")) is None
    desk.living.clear()
    assert await desk.tokens.uploader(key) is None
    other = Tokens(b"x" * 32, desk.platform.store, desk.platform.clock, lambda _: LOCAL)
    assert await other.uploader(key) is None


async def test_what_was_changed_is_worth_nothing(desk: Desk) -> None:
    token = desk.tokens.for_calls(desk.principal, ["hello"], 60).text
    head, claims, signature = token.split(".")
    wider = json.loads(base64.urlsafe_b64decode(claims + "=="))
    wider["apps"] = ["other"]
    forged = base64.urlsafe_b64encode(json.dumps(wider).encode()).rstrip(b"=").decode()
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    deep = base64.urlsafe_b64encode(b"[" * 100_000).rstrip(b"=").decode()
    for text in (
        f"{head}.{forged}.{signature}", f"{unsigned}.{forged}.", f"{head}.{claims}.", f"{deep}.{claims}.{signature}",
        "", "...", "\udcff.a.b",
    ):  # fmt: skip
        assert await desk.tokens.caller(text, "me", app_id("other")) is None


async def test_a_token_of_an_earlier_version_is_still_valid(desk: Desk) -> None:
    key = hmac.digest(SECRET, b"fal tokens", hashlib.sha256)
    expires = desk.platform.clock.now().timestamp() + 0.5

    def encoded(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=")

    claims = {"aud": "calls", "sub": desk.principal.key_id, "iat": int(expires), "exp": expires, "apps": ["hello"]}
    signed = encoded({"alg": "HS256", "typ": "JWT"}) + b"." + encoded(claims)
    signature = base64.urlsafe_b64encode(hmac.digest(key, signed, hashlib.sha256)).rstrip(b"=")
    assert (
        await desk.tokens.caller((signed + b"." + signature).decode(), "me", app_id("hello")) == desk.principal.key_id
    )


@pytest.mark.parametrize(("apps", "seconds"), [([], 60), (["a"] * 101, 60), (["a"], 0), (["a"], 3601), (["a"], -1)])
async def test_a_token_has_bounds(desk: Desk, apps: list[str], seconds: float) -> None:
    with pytest.raises(InvalidArgument):
        desk.tokens.for_calls(desk.principal, apps, seconds)


@given(st.text(max_size=60))
def test_no_text_is_a_token(text: str) -> None:
    import asyncio

    nobody = Principal(key_id="6f9d0c1e-no-text-has-this", scope=Scope(account=LOCAL, permissions=frozenset()))
    tokens = Tokens(SECRET, None, None, lambda _: LOCAL)  # type: ignore[arg-type]  # neither is asked
    assert asyncio.run(tokens.uploader(text)) is None
    assert nobody.key_id not in runner_key(tokens, text).split(":")[1]


async def test_a_runner_may_call_apps_and_manage_nothing(desk: Desk) -> None:
    access = Authenticator(desk.platform.store, desk.platform.clock, desk.tokens.runners)
    key_id, secret = desk.tokens.runners.key_of("r1")
    caller = await access.authenticate(key_id, secret)
    assert (caller.key_id, caller.scope.permissions) == (key_id, {CALL_APPS})
    assert access.cached(key_id, secret) == caller
    token = desk.tokens.for_calls(caller, ["hello"], 60).text
    assert await desk.tokens.caller(token, "me", app_id("hello")) == key_id
    for wrong in ((key_id, secret[:-1]), (key_id, ""), ("runner.r2", secret), (key_id, "\udc80")):
        assert access.cached(*wrong) is None
        with pytest.raises(Unauthenticated):
            await access.authenticate(*wrong)
    desk.living.clear()
    assert access.cached(key_id, secret) is None
    with pytest.raises(Unauthenticated):
        await access.authenticate(key_id, secret)
    assert await desk.tokens.caller(token, "me", app_id("hello")) is None


async def test_a_runner_acts_for_its_own_account(desk: Desk) -> None:
    access = Authenticator(desk.platform.store, desk.platform.clock, desk.tokens.runners)
    caller = await access.authenticate(*desk.tokens.runners.key_of("theirs"))
    assert caller.scope.account == OTHER
    holder = await desk.tokens.uploader(runner_key(desk.tokens, "theirs"))
    assert holder is not None
    assert holder.scope.account == OTHER
    token = desk.tokens.for_calls(caller, ["hello"], 60).text
    assert await desk.tokens.caller(token, "you", AppId.parse(OTHER, "hello")) == caller.key_id
    assert await desk.tokens.caller(token, "me", AppId.parse(LOCAL, "hello")) is None
