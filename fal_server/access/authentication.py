"""Who is calling: from a key's two halves to the principal, with a small cache that a revocation empties at once."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import NamedTuple

from fal_server.core.accounts import Key
from fal_server.core.faults import Unauthenticated
from fal_server.core.identity import EVERY_ACCOUNT, Principal, Scope
from fal_server.ports import Clock, Store

# A key that another controller on the same database revoked is refused here after this.
_TRUSTED = timedelta(seconds=30)
_MOST_CACHED = 10_000
_LONGEST_ID = 128
# What an unknown key is compared with, so that it takes as long as a wrong one.
_NOBODY = hashlib.sha256(b"").hexdigest()


def hash_secret(secret: str) -> str:
    """The form in which a key's secret is stored: SHA-256, hexadecimal; 32 random bytes need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class _Known(NamedTuple):
    secret_hash: str
    principal: Principal
    until: datetime


class Authenticator:
    """Authentication of callers.

    Args:
        store: where the keys are.
        clock: the time, for how long a key that was good is not looked up again.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._revocations = 0

    def cached(self, key_id: str, secret: str) -> Principal | None:
        """Who holds this key, where it was looked up lately; None says nothing but that `authenticate` must."""
        known = self._known.get(key_id)
        if known is None or known.until <= self._clock.now():
            return None
        return known.principal if hmac.compare_digest(known.secret_hash, hash_secret(secret)) else None

    async def authenticate(self, key_id: str, secret: str) -> Principal:
        """Who holds this key.

        Raises:
            Unauthenticated: there is no such key, the secret is not its, or it is revoked.
        """
        principal = self.cached(key_id, secret)
        if principal is not None:
            return principal
        before = self._revocations
        fit = key_id.isascii() and len(key_id) <= _LONGEST_ID
        key = await self._store.get_key(EVERY_ACCOUNT, key_id) if fit else None
        good = hmac.compare_digest(key.secret_hash if key else _NOBODY, hash_secret(secret))
        if key is None or not good:
            raise Unauthenticated("the key is unknown or its secret is wrong: check FAL_KEY, or create a key")
        if key.revoked_at is not None:
            raise Unauthenticated(f"key {key.key_id} is revoked: create another one")
        principal = principal_of(key)
        # A revocation that came while the key was being read must not be undone by what was read.
        if before == self._revocations:
            self._remember(key, principal)
        return principal

    def forget(self, key_id: str) -> None:
        """A key was revoked: from now on it is refused."""
        self._revocations += 1
        self._known.pop(key_id, None)

    def _remember(self, key: Key, principal: Principal) -> None:
        if len(self._known) >= _MOST_CACHED:
            self._known.pop(next(iter(self._known)))
        self._known[key.key_id] = _Known(key.secret_hash, principal, self._clock.now() + _TRUSTED)


def principal_of(key: Key) -> Principal:
    """The caller that a key stands for."""
    return Principal(key_id=key.key_id, scope=Scope(account=key.account, permissions=frozenset(key.permissions)))
