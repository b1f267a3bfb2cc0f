"""`client.accounts` for asyncio: accounts, and the members of teams."""

# The source of fal/api/accounts.py: run `make gen` after a change.

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from fal_grpc.adapter.account import AccountInfo, AccountKind, AccountQuotas, MemberRole, NewAccount, TeamMember

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal.api.opener import AsyncOpener


class AsyncAccountsNamespace:
    """The accounts; `fal teams` on the command line. Use it as `client.accounts`.

    Example:
        async with AsyncServerlessClient() as client:
            made = await client.accounts.create("crew", kind="team")
            await client.accounts.add_member("crew", "alice", role="developer")
    """

    def __init__(self, client: AsyncOpener) -> None:
        self.client = client

    async def list(self, *, everything: bool = False) -> builtins.list[AccountInfo]:
        """List the caller's account, and the teams that it is a member of.

        Args:
            everything: all accounts of the controller, for its owner.
        """
        controller = await self.client.controller()
        return await controller.list_accounts(everything=everything)

    async def create(
        self, nickname: str, *, kind: AccountKind | str = AccountKind.TEAM, full_name: str | None = None
    ) -> NewAccount:
        """Create an account and its first key, which may do everything in it. The controller's owner alone may.

        Args:
            nickname: the first part of the paths of its apps: 1 to 40 lower-case letters, digits and hyphens.
            kind: "team", or "user" for one person.
            full_name: its name for people; None is the nickname.

        Raises:
            ArgumentError: the kind is unknown. It is a ValueError.
            AlreadyExistsError: there is an account of that nickname.
        """
        controller = await self.client.controller()
        return await controller.create_account(nickname, kind=kind, full_name=full_name)

    async def members(self, team: str) -> builtins.list[TeamMember]:
        """List the members of a team, the oldest first."""
        controller = await self.client.controller()
        return await controller.list_members(team)

    async def add_member(self, team: str, user: str, *, role: MemberRole | str = MemberRole.DEVELOPER) -> TeamMember:
        """Add a user to a team, or give a member another role.

        Args:
            team, user: the nicknames of the accounts.
            role: "owner", "admin", "developer" or "viewer".

        Raises:
            ArgumentError: the role is unknown. It is a ValueError.
        """
        controller = await self.client.controller()
        return await controller.add_member(team, user, role=role)

    async def remove_member(self, team: str, user: str) -> None:
        """Remove a user from a team; from then on none of its login tokens acts for the team."""
        controller = await self.client.controller()
        await controller.remove_member(team, user)

    async def quotas(self, nickname: str = "") -> AccountQuotas:
        """Return what an account may have, and what it has; without a nickname, the caller's own."""
        controller = await self.client.controller()
        return await controller.get_quotas(nickname)

    async def set_quotas(
        self,
        nickname: str,
        *,
        requests_per_second: int | None = None,
        caller_requests_per_second: int | None = None,
        queued_requests: int | None = None,
        queued_bytes: int | None = None,
        runners: int | None = None,
        log_bytes_per_minute: int | None = None,
        data_bytes: int | None = None,
    ) -> Mapping[str, int]:
        """Change what an account may have, and return all its bounds. The controller's owner alone may.

        0 is no bound, and None leaves a bound as it is.

        Args:
            requests_per_second: to its apps, of all callers together.
            caller_requests_per_second: to its apps, of each key; to public apps, of each address.
            queued_requests: those that are not completed.
            queued_bytes: of the bodies of those.
            runners: those that have a process.
            log_bytes_per_minute: of its runners; further lines are dropped.
            data_bytes: in /data.

        Raises:
            ArgumentError: a bound is no whole number. It is a ValueError.
        """
        bounds = {
            "requests_per_second": requests_per_second,
            "caller_requests_per_second": caller_requests_per_second,
            "queued_requests": queued_requests,
            "queued_bytes": queued_bytes,
            "runners": runners,
            "log_bytes_per_minute": log_bytes_per_minute,
            "data_bytes": data_bytes,
        }
        controller = await self.client.controller()
        return await controller.set_quotas(nickname, bounds)

    async def rename(self, nickname: str, new_nickname: str, *, full_name: str | None = None) -> AccountInfo:
        """Give an account another nickname, which moves the paths of its apps. The controller's owner alone may.

        Args:
            full_name: its name for people; None leaves it, unless it was the nickname.

        Raises:
            AlreadyExistsError: another account has the new nickname.
        """
        controller = await self.client.controller()
        return await controller.rename_account(nickname, new_nickname, full_name=full_name)

    async def delete(self, nickname: str) -> bool:
        """Delete an account with everything that it has. The controller's owner alone may.

        What runs for it ends at once, and nothing of it can be brought back.

        Returns:
            Whether everything is removed; if not, the controller goes on with it.

        Raises:
            FailedPreconditionError: it is the account of the controller's owner.
        """
        controller = await self.client.controller()
        return await controller.delete_account(nickname)
