"""Callers, their scopes, and the identity of apps."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final, NewType, TypeAlias

from fal_server.core.names import MAIN, SEPARATOR, split_app_name

AccountId = NewType("AccountId", str)

LOCAL: Final = AccountId("local")
"""The account that exists before anyone creates another."""


class EveryAccount(Enum):
    """The type of EVERY_ACCOUNT. No account's id can be mistaken for it."""

    EVERY_ACCOUNT = "every account"


EVERY_ACCOUNT: Final = EveryAccount.EVERY_ACCOUNT
"""For the controller's own work (loops, adoption, retention); a call on a caller's behalf names an account."""

Accounts: TypeAlias = "AccountId | EveryAccount"


def within(accounts: Accounts, owner: AccountId) -> bool:
    """Return whether these accounts' calls may see an object of this owner."""
    return accounts is EVERY_ACCOUNT or accounts == owner


@dataclass(frozen=True, slots=True, kw_only=True)
class AppId:
    """The identity of an app.

    Attributes:
        account: the owner.
        environment: `main`, or another environment of the account.
        name: without the environment's suffix.
    """

    account: AccountId
    environment: str
    name: str
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.account, self.environment, self.name)))

    def __hash__(self) -> int:
        return self._hash  # computed once, because each request looks up its app several times

    @classmethod
    def parse(cls, account: AccountId, full_name: str) -> AppId:
        """Return an account's app id from its full name. The full name is the result of `str`."""
        name, environment = split_app_name(full_name)
        if environment == MAIN:
            name = full_name  # an app in main is not written `name--main`
        return cls(account=account, environment=environment, name=name)

    def __str__(self) -> str:
        return self.name if self.environment == MAIN else f"{self.name}{SEPARATOR}{self.environment}"


# For rows, whose names are already checked: returns the same object each time, which a dictionary finds faster.
app_id_of_row = lru_cache(maxsize=8192)(AppId.parse)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restrictions:
    """The limits of a scope inside its account; None means no limit."""

    apps: frozenset[AppId] | None = None
    environments: frozenset[str] | None = None

    @property
    def limit(self) -> bool:
        """Whether they exclude anything."""
        return self.apps is not None or self.environments is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a caller may reach: one account, and its permissions there.

    Attributes:
        account: to this caller, objects of other accounts do not exist.
        permissions: such as `serverless:apps:run`; `*` means all.
        restrictions: the part of the account that the permissions apply to.
    """

    account: AccountId
    permissions: frozenset[str]
    restrictions: Restrictions = Restrictions()

    def reaches(self, app: AppId) -> bool:
        """Return whether the app lies inside the account and the restrictions."""
        limits = self.restrictions
        return (
            app.account == self.account
            and (limits.apps is None or app in limits.apps)
            and (limits.environments is None or app.environment in limits.environments)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller: its key, and its scope.

    Attributes:
        role: its role in the team that it acts for; empty if it acts for the key's own account.
        membership: the name of its membership, from `membership_of`; empty likewise.
    """

    key_id: str
    scope: Scope
    role: str = ""
    membership: str = ""


def membership_of(user: AccountId, team: AccountId) -> str:
    """Return the name of a user's membership of a team. No key has such an id."""
    return f"{user}@{team}"
