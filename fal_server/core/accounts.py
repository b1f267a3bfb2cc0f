"""Accounts, and the keys, secrets and environments that they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from fal_server.core.faults import NotFound
from fal_server.core.identity import LOCAL, AccountId


class KeyScope(StrEnum):
    """The older form of a key's permissions: manage everything, or call apps."""

    ADMIN = "ADMIN"
    API = "API"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key. Only the SHA-256 of its secret is kept; 32 random bytes need no slow hash.

    Attributes:
        preset: the policy preset that it was made with, such as FULL; empty if its permissions were listed.
        permissions: such as `serverless:apps:run`; `*` is everything.
        expires_at: by the wall clock; None is never.
        last_used_at: by the wall clock, to about a minute; None is never.
    """

    account: AccountId
    key_id: str
    secret_hash: str = field(repr=False)
    scope: KeyScope
    alias: str
    created_at: datetime
    preset: str = ""
    permissions: tuple[str, ...] = ()
    revoked_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None

    def has_expired(self, at: datetime) -> bool:
        """Return whether its time is over."""
        return self.expires_at is not None and self.expires_at <= at


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """A secret as it is stored, encrypted; only the vault can decrypt it."""

    account: AccountId
    environment: str
    name: str
    sealed: bytes = field(repr=False)
    created_at: datetime
    default_exposed: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A named set of apps and secrets."""

    account: AccountId
    name: str
    description: str | None
    is_default: bool
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who owns apps, keys and secrets.

    Attributes:
        nickname: the owner in URLs.
        user_id: of the form `provider|id`.
    """

    id: AccountId = LOCAL
    nickname: str = "local"
    user_id: str = "local|local"
    full_name: str = "Local account"


class KnownAccounts:
    """The accounts that a controller serves; they do not change while it runs."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._accounts = {account.id: account for account in accounts}
        self.ids_by_nickname: Mapping[str, AccountId] = {a.nickname: a.id for a in self._accounts.values()}

    def of(self, account: AccountId) -> Account:
        """Return the account of a caller, or of something that is stored.

        Raises:
            NotFound: it is not served any more.
        """
        found = self._accounts.get(account)
        if found is None:
            raise NotFound(f"account {account!r}", "this controller does not serve it")
        return found

    def own(self, account: AccountId, name: str) -> Account:
        """Return the caller's account, which a path names.

        Args:
            name: a nickname, or the id of a user.

        Raises:
            NotFound: that is no name of the caller's account; others do not exist for the caller.
        """
        mine = self.of(account)
        if name not in (mine.nickname, mine.user_id):
            raise NotFound(f"account {name[:80]!r}", f"your key is of {mine.nickname}")
        return mine
