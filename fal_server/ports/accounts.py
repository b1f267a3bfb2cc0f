"""The Protocol of the store of accounts and their members."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from fal_server.core.accounts import Account, DeletedAccount, Environment, Key, TeamMember
from fal_server.core.identity import AccountId
from fal_server.core.quotas import Quotas


class AccountStore(Protocol):
    """Accounts and their members. Each call is one transaction, which is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def all(self) -> Sequence[Account]:
        """Return every account that is not deleted, by nickname."""
        ...

    async def add(self, account: Account, environment: Environment, key: Key) -> None:
        """Add an account with its first environment and key, all or nothing.

        Raises:
            AlreadyExists: an account has this nickname.
        """
        ...

    async def rename(self, account: AccountId, nickname: str, full_name: str) -> bool:
        """Change an account's names; return False if it does not exist.

        Raises:
            AlreadyExists: another account has this nickname.
        """
        ...

    async def save_quotas(self, account: AccountId, quotas: Quotas) -> bool:
        """Replace an account's quotas. Return False if the account does not exist."""
        ...

    async def delete(self, account: AccountId, at: datetime) -> DeletedAccount | None:
        """Mark an account as deleted, revoke its keys and end its memberships. Its nickname becomes free.

        Returns:
            None if it does not exist, or is already deleted.
        """
        ...

    async def deleted(self) -> Sequence[DeletedAccount]:
        """Return the deleted accounts that have not been forgotten yet, earliest first."""
        ...

    async def erase(self, account: AccountId) -> int:
        """Delete a deleted account's rows except its own, and return how many. Each transaction covers some thousands.

        It does nothing if the account is not deleted.
        """
        ...

    async def forget(self, account: AccountId) -> bool:
        """Delete the row of a deleted account. Return False if there is none."""
        ...

    async def members(self, team: AccountId) -> Sequence[TeamMember]:
        """Return the members of a team, oldest first."""
        ...

    async def memberships(self, user: AccountId) -> Sequence[TeamMember]:
        """Return the teams that a user belongs to, oldest membership first."""
        ...

    async def save_member(self, member: TeamMember) -> None:
        """Add a member, or replace its role.

        Raises:
            FailedPrecondition: the team or user does not exist.
        """
        ...

    async def remove_member(self, team: AccountId, user: AccountId) -> bool:
        """Remove a member; return False if the user is not one."""
        ...
