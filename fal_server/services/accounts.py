"""Accounts and the members of teams: creates, lists and changes them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fal_server.access.acting import Teams
from fal_server.access.permissions import ROLE_PERMISSIONS, SEE_ALL_ACCOUNTS, allows, excess, require
from fal_server.aio.tasks import run_to_completion
from fal_server.core.accounts import (
    Account,
    AccountKind,
    DeletedAccount,
    Environment,
    KnownAccounts,
    Role,
    TeamMember,
    checked_nickname,
)
from fal_server.core.faults import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from fal_server.core.identity import LOCAL, AccountId, Principal
from fal_server.core.names import MAIN, checked_text
from fal_server.ports import Clock
from fal_server.ports.accounts import AccountStore
from fal_server.services.keys import Keys

FIRST_KEY = "made with the account"
MOST_ACCOUNTS = 1000
MOST_MEMBERS = 1000
_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """An account as a caller sees it. `role` is None for its own, and for one that it does not belong to."""

    account: Account
    role: Role | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """A member, and the account of the user."""

    member: TeamMember
    user: Account


class Accounts:
    """The use cases of accounts.

    Args:
        known: gets each new account.
        teams: decides for which teams a caller may act.
    """

    def __init__(self, store: AccountStore, known: KnownAccounts, teams: Teams, keys: Keys, clock: Clock) -> None:
        self._store = store
        self._known = known
        self._teams = teams
        self._keys = keys
        self._clock = clock
        self._changes = asyncio.Lock()

    def account_of(self, caller: Principal) -> Account:
        """Return the caller's account."""
        return self._known.of(caller.scope.account)

    async def list(self, caller: Principal, *, everything: bool = False) -> Sequence[AccountView]:
        """Return the caller's account, then its teams by nickname.

        Args:
            everything: all accounts of the controller.

        Raises:
            PermissionDenied: `everything` is set, but the caller is not the controller's owner.
        """
        mine = self.account_of(caller)
        roles = {member.team: member.role for member in await self._store.memberships(mine.id)}
        if everything:
            require(caller, SEE_ALL_ACCOUNTS)
        others = [each for each in self._known.all() if each.id != mine.id and (everything or each.id in roles)]
        return [AccountView(account=mine), *(AccountView(account=each, role=roles.get(each.id)) for each in others)]

    async def create(
        self, nickname: str, kind: AccountKind, full_name: str | None = None
    ) -> tuple[Account, tuple[str, str]]:
        """Create an account, its environment `main`, and a key. The key may do everything in it.

        Returns:
            The account, and the key's id and secret, which can never be read again.

        Raises:
            InvalidArgument: the nickname or the full name is not valid.
            AlreadyExists: the nickname is taken.
            ResourceExhausted: there are too many accounts.
        """
        checked_nickname(nickname)
        shown = checked_text(full_name or nickname, "full_name", _LONGEST_NAME)
        account_id = AccountId(secrets.token_hex(8))
        account = Account(
            id=account_id, nickname=nickname, kind=kind, user_id=f"{kind.value}|{account_id}", full_name=shown
        )
        key, secret = self._keys.new_master(account_id, FIRST_KEY)
        main = Environment(
            account=account_id, name=MAIN, description=None, is_default=True, created_at=self._clock.now()
        )
        async with self._changes:
            if self._known.named(nickname) is not None:
                raise AlreadyExists(f"account {nickname!r} exists already: choose another nickname")
            if len(self._known.all()) >= MOST_ACCOUNTS:
                raise ResourceExhausted(f"there are {MOST_ACCOUNTS} accounts already")
            await self._store.add(account, main, key)
            self._known.add(account)
        return account, (key.key_id, secret)

    async def rename(self, nickname: str, new_nickname: str, full_name: str | None = None) -> Account:
        """Rename an account. The paths of its apps change, and its keys stay.

        Args:
            full_name: None keeps it, unless it was the nickname.

        Raises:
            InvalidArgument: the new nickname or the full name is not valid.
            NotFound: there is no such account.
            AlreadyExists: another account has the new nickname.
        """
        checked_nickname(new_nickname, "new_nickname")
        async with self._changes:
            before = self._known.named(nickname)
            if before is None:
                raise NotFound(f"account {nickname[:80]!r}", "`fal teams list --all` shows which exist")
            taken = self._known.named(new_nickname)
            if taken is not None and taken.id != before.id:
                raise AlreadyExists(f"account {new_nickname!r} exists already: choose another nickname")
            kept = new_nickname if before.full_name == before.nickname else before.full_name
            shown = checked_text(kept if full_name is None else full_name, "full_name", _LONGEST_NAME)
            await self._store.rename(before.id, new_nickname, shown)
            # Its quotas may have changed meanwhile.
            after = replace(self._known.of(before.id), nickname=new_nickname, full_name=shown)
            self._known.add(after)
        return after

    async def end(self, nickname: str) -> DeletedAccount:
        """Delete an account for its users. None of its keys works any more, and their calls end.

        The account's data still exists.

        Raises:
            NotFound: there is no such account.
            FailedPrecondition: it is the account of the controller's owner.
        """
        async with self._changes:
            account = self._known.named(nickname)
            if account is None:
                raise NotFound(f"account {nickname[:80]!r}", "`fal teams list --all` shows which exist")
            if account.id == LOCAL:
                raise FailedPrecondition(
                    f"account {account.nickname} is the one of the controller's owner, without which nobody could make "
                    "others: it stays"
                )
            return await run_to_completion(self._end(account))

    async def _end(self, account: Account) -> DeletedAccount:
        memberships = [*await self._store.members(account.id), *await self._store.memberships(account.id)]
        deleted = await self._store.delete(account.id, min(self._clock.now(), self._clock.wall()))
        if deleted is None:
            raise NotFound(f"account {account.nickname!r}", "`fal teams list --all` shows which exist")
        self._known.remove(account.id)
        for key_id in deleted.keys:
            self._keys.has_ended(key_id)
        for member in memberships:
            self._teams.has_ended(member.user, member.team, f"account {account.nickname} was deleted")
        return deleted

    async def members(self, caller: Principal, team: str) -> Sequence[MemberView]:
        """Return the members of a team, oldest first.

        Raises:
            NotFound: there is no such team for this caller.
            InvalidArgument: the account is a user.
            PermissionDenied: the caller's role does not permit it.
        """
        account = await self._team(caller, team, "account:read")
        members = await self._store.members(account.id)
        return [MemberView(member=member, user=self._known.of(member.user)) for member in members]

    async def save_member(self, caller: Principal, team: str, user: str, role: Role) -> MemberView:
        """Add a user to a team, or give a member another role.

        Raises:
            NotFound: there is no such team for this caller, or no such user.
            InvalidArgument: the account is a user.
            PermissionDenied: the caller's role does not permit it, or has fewer permissions than the old or new role.
            ResourceExhausted: the team has too many members.
        """
        account = await self._team(caller, team, "account:write")
        who = self._user(user)
        async with self._changes:
            members = await self._store.members(account.id)
            before = next((member for member in members if member.user == who.id), None)
            await self._require_role(caller, account, role if before is None else before.role, role)
            if before is None and len(members) >= MOST_MEMBERS:
                raise ResourceExhausted(f"team {account.nickname} has {MOST_MEMBERS} members already")
            member = TeamMember(team=account.id, user=who.id, role=role, added_at=self._clock.now())
            await self._store.save_member(member)
            self._teams.begins(who.id, account.id)
            if before is not None and before.role is not role:
                self._teams.has_changed(
                    who.id, account.id, f"you are {role.value} of {account.nickname} now: call again"
                )
        return MemberView(member=member, user=who)

    async def remove_member(self, caller: Principal, team: str, user: str) -> None:
        """Remove a user from a team. Raises the errors of `save_member`."""
        account = await self._team(caller, team, "account:write")
        async with self._changes:
            members = await self._store.members(account.id)
            who = self._known.named(user)
            before = next((member for member in members if who is not None and member.user == who.id), None)
            if before is None:
                raise NotFound(f"member {user[:80]!r}", f"`fal teams members {account.nickname}` shows who is one")
            await self._require_role(caller, account, before.role)
            await self._store.remove_member(account.id, before.user)
            self._teams.has_ended(before.user, account.id, f"you are not a member of {account.nickname} any more")

    async def readable(self, caller: Principal, nickname: str) -> Account:
        """Return an account that the caller may read; empty means its own.

        Raises:
            NotFound: there is no such account for this caller.
            PermissionDenied: the caller's role does not permit it.
        """
        mine = self.account_of(caller)
        found = self._known.named(nickname) if nickname else mine
        acting = None if found is None else await self._acting(caller, found)
        if found is None or acting is None:
            raise NotFound(
                f"account {nickname[:80]!r}", f"your key is of {mine.nickname}; `fal teams list` shows yours"
            )
        require(acting, "account:read")
        return found

    async def _team(self, caller: Principal, nickname: str, permission: str) -> Account:
        found = self._known.named(nickname)
        acting = None if found is None else await self._acting(caller, found)
        if found is None or acting is None:
            raise NotFound(
                f"team {nickname[:80]!r}", "you are not a member of such a team; `fal teams list` shows yours"
            )
        require(acting, permission)
        if found.kind is not AccountKind.TEAM:
            raise InvalidArgument(
                "team", f"account {found.nickname!r} is a user's and has no members: `fal teams list` shows teams"
            )
        return found

    async def _acting(self, caller: Principal, team: Account) -> Principal | None:
        """Return the caller with its permissions in a team. The controller's owner need not be a member."""
        if allows(caller, SEE_ALL_ACCOUNTS):
            return caller
        return await self._teams.acting_for(caller, team)

    def _user(self, nickname: str) -> Account:
        found = self._known.named(nickname)
        if found is None or found.kind is not AccountKind.USER:
            raise NotFound(f"user {nickname[:80]!r}", "ask the controller's owner to create the account")
        return found

    async def _require_role(self, caller: Principal, team: Account, *roles: Role) -> None:
        """Refuse a caller who assigns or removes a role beyond its own. Such a role has more permissions."""
        acting = await self._acting(caller, team)
        held = frozenset[str]() if acting is None else acting.scope.permissions
        beyond = next((role for role in roles if excess(ROLE_PERMISSIONS[role], held)), None)
        if beyond is not None:
            raise PermissionDenied(
                f"the role {beyond.value} may do more in {team.nickname} than you may: ask one of its owners"
            )
