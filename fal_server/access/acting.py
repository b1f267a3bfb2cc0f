"""Callers who act for a team: members and holders of login tokens."""

from __future__ import annotations

from fal_server.access.authentication import Authenticator, principal_of
from fal_server.access.permissions import ROLE_PERMISSIONS, common
from fal_server.access.tokens import Tokens
from fal_server.core.accounts import Account, AccountKind, KnownAccounts, Role
from fal_server.core.faults import NotFound, PermissionDenied, Unauthenticated
from fal_server.core.identity import AccountId, Principal, Scope, membership_of
from fal_server.ports.accounts import AccountStore

USER_ID = "fal-user-id"
"""The metadata key of the account that a caller acts for; the HTTP header has the prefix `x-`."""


class Teams:
    """Lets callers act for teams.

    Args:
        authenticator: drops a key that has ended.
    """

    def __init__(
        self, store: AccountStore, accounts: KnownAccounts, tokens: Tokens, authenticator: Authenticator
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._tokens = tokens
        self._authenticator = authenticator

    async def bearer(self, token: str, user_id: str) -> Principal:
        """Return the caller with a login token.

        Args:
            user_id: of the account that it acts for; empty means the account of the token's key.

        Raises:
            Unauthenticated: the token is not valid, or its key has ended.
            NotFound: it is not a member of that team.
        """
        key = await self._tokens.login(token)
        if key is None:
            raise Unauthenticated(
                "the login token is not valid, has expired, or its key has ended: `fal auth token` makes another one"
            )
        self._authenticator.open_calls.check(key.key_id)
        principal = principal_of(key)
        team = self._accounts.of_user_id(user_id) if user_id else None
        if not user_id or (team is not None and team.id == key.account):
            return principal
        acting = None if team is None else await self.acting_for(principal, team)
        if acting is None:
            raise _no_team(user_id)
        return acting

    def require_own(self, principal: Principal, user_id: str) -> None:
        """Refuse a key that is to act for another account.

        Raises:
            PermissionDenied: the key belongs to another account; the message names it.
        """
        mine = self._accounts.of(principal.scope.account)
        if user_id and user_id != mine.user_id:
            raise PermissionDenied(
                f"key {principal.key_id} belongs to {mine.nickname} and acts for nobody else: use a key of the other "
                "account, or a login token (`fal auth token`) of a member"
            )

    def begins(self, user: AccountId, team: AccountId) -> None:
        """Let a user act for a team from now on. The store already has the membership."""
        self._authenticator.open_calls.begin_membership(membership_of(user, team))

    def has_changed(self, user: AccountId, team: AccountId, why: str) -> None:
        """End a user's calls for a team, except the current one."""
        self._authenticator.open_calls.end_membership(membership_of(user, team), why, for_good=False)

    def has_ended(self, user: AccountId, team: AccountId, why: str) -> None:
        """End a user's calls for a team, except the current one. Refuse new ones."""
        self._authenticator.open_calls.end_membership(membership_of(user, team), why, for_good=True)

    async def acting_for(self, principal: Principal, team: Account) -> Principal | None:
        """Return the caller with its permissions in a team. This is its own account, or one that it belongs to.

        Returns:
            None if it is neither, so that the team does not exist for it.
        """
        if team.id == principal.scope.account:
            return principal
        role = await self._role(principal, team)
        if role is None or principal.scope.restrictions.limit:  # a part of an account includes no team
            return None
        return Principal(
            key_id=principal.key_id,
            scope=Scope(account=team.id, permissions=common(principal.scope.permissions, ROLE_PERMISSIONS[role])),
            role=f"{role.value} of {team.nickname}",
            membership=membership_of(principal.scope.account, team.id),
        )

    async def _role(self, principal: Principal, team: Account) -> Role | None:
        if team.kind is not AccountKind.TEAM:
            return None
        members = await self._store.members(team.id)
        return next((member.role for member in members if member.user == principal.scope.account), None)


def _no_team(user_id: str) -> NotFound:
    return NotFound(f"team {user_id[:80]!r}", "you are not a member of such a team; `fal teams list` shows yours")
