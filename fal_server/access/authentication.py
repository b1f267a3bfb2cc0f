"""Authenticates keys, with a small cache that a revocation invalidates at once."""

from __future__ import annotations

import hashlib
import hmac
import logging
from datetime import datetime, timedelta
from typing import NamedTuple

from fal_server.access.open_calls import ANOTHER_KEY, OpenCalls
from fal_server.access.resources import split
from fal_server.access.runner_keys import RunnerKeys
from fal_server.core.accounts import Key
from fal_server.core.faults import Unauthenticated, Unavailable
from fal_server.core.identity import EVERY_ACCOUNT, AccountId, Principal, Scope
from fal_server.ports import Clock, Store

_log = logging.getLogger(__name__)
# How long a key is trusted after a look-up; a revocation by another controller takes effect after this.
_TRUSTED = timedelta(seconds=30)
# The shortest interval between two recorded uses of a key.
_NOTED_EVERY = timedelta(minutes=1)
_MOST_CACHED = 10_000
_LONGEST_ID = 128
# Compared with the secret of an unknown key, so that it takes as long as a wrong secret.
_NOBODY = hashlib.sha256(b"").hexdigest()


def hash_secret(secret: str) -> str:
    """Return the stored form of a secret, SHA-256 in hexadecimal. No slow hash is needed for 32 random bytes."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class _Known(NamedTuple):
    secret_hash: str
    principal: Principal
    until: datetime


class Authenticator:
    """Authenticates callers by their keys.

    Cache: of recently looked-up keys.

    Args:
        runners: the keys of runners, which are in no store; None knows none.

    Attributes:
        open_calls: end when their key does.
    """

    def __init__(self, store: Store, clock: Clock, runners: RunnerKeys | None = None) -> None:
        self._store = store
        self._clock = clock
        self._runners = runners
        self._known: dict[str, _Known] = {}
        self._expiring: dict[str, datetime] = {}
        self.open_calls = OpenCalls()

    def cached(self, key_id: str, secret: str) -> Principal | None:
        """Return the caller if this key was recently looked up. None means that `authenticate` must look."""
        if self._runners is not None and self._runners.names(key_id):
            return self._runners.caller(key_id, secret)
        known = self._known.get(key_id)
        if known is None or known.until <= self._clock.now():
            return None
        return known.principal if hmac.compare_digest(known.secret_hash, hash_secret(secret)) else None

    async def authenticate(self, key_id: str, secret: str) -> Principal:
        """Return the caller with this key.

        Raises:
            Unauthenticated: the key is unknown, revoked or expired, or the secret is wrong.
        """
        principal = self.cached(key_id, secret)
        if principal is not None:
            return principal
        fit = key_id.isascii() and len(key_id) <= _LONGEST_ID
        key = await self._store.get_key(EVERY_ACCOUNT, key_id) if fit else None
        good = hmac.compare_digest(key.secret_hash if key else _NOBODY, hash_secret(secret))
        if key is None or not good:
            raise Unauthenticated("the key is unknown or its secret is wrong: check FAL_KEY, or create a key")
        return await self._admitted(key)

    async def holder(self, key_id: str) -> Principal:
        """Return the caller for a stored key whose secret was checked before.

        Raises:
            Unauthenticated: the key is unknown, revoked or expired.
        """
        known = self._known.get(key_id)
        if known is not None and known.until > self._clock.now():
            return known.principal
        key = await self._store.get_key(EVERY_ACCOUNT, key_id)
        if key is None:
            raise Unauthenticated(f"key {key_id} is not known: {ANOTHER_KEY}")
        return await self._admitted(key)

    async def _admitted(self, key: Key) -> Principal:
        if key.revoked_at is not None:
            raise Unauthenticated(f"key {key.key_id} is revoked: {ANOTHER_KEY}")
        if key.has_expired(latest(self._clock)):
            raise Unauthenticated(f"key {key.key_id} has expired: {ANOTHER_KEY}")
        self.open_calls.check(key.key_id)  # it may have been revoked meanwhile
        principal = principal_of(key)
        self._remember(key, principal)
        await self._note_use(key)
        return principal

    async def account_of(self, key_id: str) -> AccountId | None:
        """Return a key's current or former account; None if it is unknown."""
        if self._runners is not None and self._runners.names(key_id):
            return self._runners.account_of(key_id)
        key = await self._store.get_key(EVERY_ACCOUNT, key_id)
        return None if key is None else key.account

    def forget(self, key_id: str) -> None:
        """Refuse a key from now on, and end its calls in progress."""
        self._known.pop(key_id, None)
        self._expiring.pop(key_id, None)
        self.open_calls.end(key_id)

    def expires(self, key_id: str, at: datetime) -> None:
        """Refuse a key from this time on. Its calls in progress end then."""
        self._known.pop(key_id, None)
        self._expiring[key_id] = at

    def forget_expired(self) -> None:
        """Refuse expired keys, and end their calls in progress."""
        now = latest(self._clock)
        for key_id in [key_id for key_id, at in self._expiring.items() if at <= now]:
            self.forget(key_id)

    async def _note_use(self, key: Key) -> None:
        now = self._clock.wall()
        if key.last_used_at is not None and now - key.last_used_at < _NOTED_EVERY:
            return
        try:
            await self._store.note_key_use(key.account, key.key_id, now)
        except Unavailable as fault:  # the call itself needs no write
            _log.warning("the use of key %s could not be recorded: %s", key.key_id, fault.message)

    def _remember(self, key: Key, principal: Principal) -> None:
        if len(self._known) >= _MOST_CACHED:
            self._known.pop(next(iter(self._known)))
        self._known[key.key_id] = _Known(key.secret_hash, principal, self._clock.now() + _TRUSTED)
        if key.expires_at is not None:
            self._expiring[key.key_id] = key.expires_at


def latest(clock: Clock) -> datetime:
    """Return the later of both clocks. Keys expire by it, so that a clock change cannot extend their life."""
    return max(clock.now(), clock.wall())


def principal_of(key: Key) -> Principal:
    """Return the caller for a key."""
    permissions, restrictions = split(key.permissions, key.account)
    scope = Scope(account=key.account, permissions=permissions, restrictions=restrictions)
    return Principal(key_id=key.key_id, scope=scope)
