"""The Protocol of the store of accounts and their members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fal_server.core.accounts import Account, Environment, Key, TeamMember
from fal_server.core.identity import AccountId
from fal_server.core.quotas import Quotas


class AccountStore(Protocol):
    """Accounts and their members. Each call is one transaction; its effect is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def all(self) -> Sequence[Account]:
        """Return every account, by nickname."""
        ...

    async def add(self, account: Account, environment: Environment, key: Key) -> None:
        """Add an account with its first environment and key, all or nothing.

        Raises:
            AlreadyExists: an account has this nickname.
        """
        ...

    async def rename(self, account: AccountId, nickname: str, full_name: str) -> bool:
        """Give an account other names; False if there is none.

        Raises:
            AlreadyExists: another account has this nickname.
        """
        ...

    async def save_quotas(self, account: AccountId, quotas: Quotas) -> bool:
        """Replace the quotas of an account; False if there is none."""
        ...

    async def members(self, team: AccountId) -> Sequence[TeamMember]:
        """Return the members of a team, the oldest first."""
        ...

    async def memberships(self, user: AccountId) -> Sequence[TeamMember]:
        """Return what teams a user is a member of, the oldest membership first."""
        ...

    async def save_member(self, member: TeamMember) -> None:
        """Add a member, or replace its role.

        Raises:
            FailedPrecondition: there is no such team or user.
        """
        ...

    async def remove_member(self, team: AccountId, user: AccountId) -> bool:
        """Remove a member; False if the user is none."""
        ...
