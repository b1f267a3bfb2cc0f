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
        """List the caller's account and the teams that it belongs to.

        Args:
            everything: list all accounts of the controller; only its owner may.
        """
        controller = await self.client.controller()
        return await controller.list_accounts(everything=everything)

    async def create(
        self, nickname: str, *, kind: AccountKind | str = AccountKind.TEAM, full_name: str | None = None
    ) -> NewAccount:
        """Create an account and its first key, which may do everything. Only the controller's owner may create one.

        Args:
            nickname: the first part of the paths of its apps: 1 to 40 lower-case letters, digits and hyphens.
            kind: "team", or "user" for one person.
            full_name: its name for people; None means the nickname.

        Raises:
            ArgumentError: the kind is unknown. It is a ValueError.
            AlreadyExistsError: the nickname is taken.
        """
        controller = await self.client.controller()
        return await controller.create_account(nickname, kind=kind, full_name=full_name)

    async def members(self, team: str) -> builtins.list[TeamMember]:
        """List the members of a team, oldest first."""
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
        """Remove a user from a team. The user's login tokens then no longer act for the team."""
        controller = await self.client.controller()
        await controller.remove_member(team, user)

    async def quotas(self, nickname: str = "") -> AccountQuotas:
        """Return an account's quotas and usage; without a nickname, the caller's."""
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
        """Change an account's quotas, and return all of them. Only the controller's owner may.

        0 removes a limit, and None leaves it unchanged.

        Args:
            requests_per_second: to its apps, by all callers together.
            caller_requests_per_second: to its apps, by each key; to public apps, by each address.
            queued_requests: requests that are not completed.
            queued_bytes: the size of their bodies.
            runners: runners that have a process.
            log_bytes_per_minute: of its runners; further lines are dropped.
            data_bytes: in /data.

        Raises:
            ArgumentError: a limit is not a whole number. It is a ValueError.
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
        """Rename an account, which moves the paths of its apps. Only the controller's owner may.

        Args:
            full_name: its name for people; None keeps it, unless it was the nickname.

        Raises:
            AlreadyExistsError: another account has the new nickname.
        """
        controller = await self.client.controller()
        return await controller.rename_account(nickname, new_nickname, full_name=full_name)

    async def delete(self, nickname: str) -> bool:
        """Delete an account with everything that it has. Only the controller's owner may.

        All its runners end at once, and nothing can be restored.

        Returns:
            Whether everything is removed; if not, the controller continues in the background.

        Raises:
            FailedPreconditionError: it is the account of the controller's owner.
        """
        controller = await self.client.controller()
        return await controller.delete_account(nickname)
