"""Accounts, their members, and their keys, secrets and environments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Generic, TypeVar

from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.core.identity import LOCAL, AccountId
from fal_server.core.quotas import USUAL, Quotas


class KeyScope(StrEnum):
    """The older form of a key's permissions: manage everything, or call apps."""

    ADMIN = "ADMIN"
    API = "API"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key. Only the SHA-256 of its secret is stored; 32 random bytes need no slow hash.

    Attributes:
        preset: the policy preset that it was created with, such as FULL; empty if its permissions were listed.
        permissions: such as `serverless:apps:run`; `*` means all.
        expires_at: by the wall clock; None means never.
        last_used_at: by the wall clock, to about a minute; None means never.
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
        """Return whether the key has expired."""
        return self.expires_at is not None and self.expires_at <= at


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """A secret in its stored, encrypted form. Only the vault can decrypt it."""

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


class AccountKind(StrEnum):
    """The kind of an account: one person, or a team of members."""

    USER = "user"
    TEAM = "team"


class Role(StrEnum):
    """A member's role in a team; `access/permissions.py` lists its permissions."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The owner of apps, keys and secrets.

    Attributes:
        nickname: the owner in URLs.
        user_id: of the form `provider|id`.
    """

    id: AccountId = LOCAL
    nickname: str = "local"
    kind: AccountKind = AccountKind.USER
    user_id: str = "local|local"
    full_name: str = "Local account"
    quotas: Quotas = USUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedAccount:
    """A deleted account that nobody can use. Its data is not completely removed yet.

    Attributes:
        keys: the ids of its former keys.
    """

    id: AccountId
    keys: frozenset[str]
    deleted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamMember:
    """A user who may act for a team.

    Attributes:
        team, user: the ids of their accounts.
    """

    team: AccountId
    user: AccountId
    role: Role
    added_at: datetime


RESERVED_NICKNAMES: Final = frozenset(
    {
        "account", "accounts", "api", "applications", "audit", "auth", "billing", "comfy", "dashboard", "docs",
        "favicon.ico", "files", "health", "keys", "logs", "metrics", "openapi.json", "proxy", "queue", "redoc",
        "robots.txt", "runners", "static", "storage", "teams", "tokens", "ui", "users", "v1", "web", "webhooks",
        "workflows", ".well-known",
    }
)  # fmt: skip
"""The first segments of the controller's own paths, including future ones; no account may have one as its nickname."""
_NICKNAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


def checked_nickname(nickname: str, field: str = "nickname") -> str:
    """Check a nickname for a new account, and return it.

    Raises:
        InvalidArgument: it contains invalid characters, is too long, or is one of the controller's own paths.
    """
    if _NICKNAME.fullmatch(nickname) is None:
        raise InvalidArgument(
            field,
            f"nickname {nickname[:80]!r} is invalid: use 1 to 40 lower-case letters, digits and hyphens, with a hyphen "
            "neither first nor last",
        )
    if nickname in RESERVED_NICKNAMES:
        raise InvalidArgument(field, f"nickname {nickname!r} is a path of the controller: choose another one")
    return nickname


T = TypeVar("T")


class EachAccount(Generic[T]):
    """One object for each account, created on demand.

    Args:
        make: creates it for an account.
    """

    def __init__(self, make: Callable[[AccountId], T]) -> None:
        self._make = make
        self._made: dict[AccountId, T] = {}

    def of(self, account: AccountId) -> T:
        """Return an account's object."""
        made = self._made.get(account)
        if made is None:
            made = self._made[account] = self._make(account)
        return made


class KnownAccounts:
    """The accounts that a controller serves.

    Cache: of the table of accounts, which only this process changes.
    """

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self._accounts: dict[AccountId, Account] = {}
        self._by_user_id: dict[str, Account] = {}
        self._ids_by_nickname: dict[str, AccountId] = {}
        for account in accounts:
            self.add(account)

    @property
    def ids_by_nickname(self) -> Mapping[str, AccountId]:
        """The accounts by the first part of their apps' paths. This is a live view."""
        return self._ids_by_nickname

    def add(self, account: Account) -> None:
        """Serve an account from now on, replacing any earlier version of it."""
        known = self._accounts.get(account.id)
        if known is not None and known.nickname != account.nickname:
            del self._ids_by_nickname[known.nickname]
        self._accounts[account.id] = account
        self._by_user_id[account.user_id] = account
        self._ids_by_nickname[account.nickname] = account.id

    def remove(self, account: AccountId) -> None:
        """Stop serving an account; do nothing if it is not served."""
        known = self._accounts.pop(account, None)
        if known is not None:
            del self._by_user_id[known.user_id]
            del self._ids_by_nickname[known.nickname]

    def serves(self, account: AccountId) -> bool:
        """Return whether an account is served."""
        return account in self._accounts

    def all(self) -> Sequence[Account]:
        """Return every account, by nickname."""
        return sorted(self._accounts.values(), key=lambda account: account.nickname)

    def named(self, nickname: str) -> Account | None:
        """Return the account with a nickname, in any case, or None."""
        found = self._ids_by_nickname.get(nickname.lower())
        return None if found is None else self._accounts[found]

    def of_user_id(self, user_id: str) -> Account | None:
        """Return the account with a user's or team's id, or None."""
        return self._by_user_id.get(user_id)

    def of(self, account: AccountId) -> Account:
        """Return the account of a caller, or of a stored object.

        Raises:
            NotFound: it is no longer served.
        """
        found = self._accounts.get(account)
        if found is None:
            raise NotFound(f"account {account!r}", "this controller does not serve it")
        return found

    def quotas(self, account: AccountId) -> Quotas:
        """Return the quotas of an account. Every request to an app calls this."""
        found = self._accounts.get(account)
        return USUAL if found is None else found.quotas

    def own(self, account: AccountId, name: str) -> Account:
        """Return the caller's account, which a path names.

        Args:
            name: a nickname, or the id of a user.

        Raises:
            NotFound: it is not a name of the caller's account; to the caller, other accounts do not exist.
        """
        mine = self.of(account)
        if name not in (mine.nickname, mine.user_id):
            raise NotFound(f"account {name[:80]!r}", f"your key is of {mine.nickname}")
        return mine
