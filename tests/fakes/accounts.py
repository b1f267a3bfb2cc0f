"""Accounts and members in memory, and the use cases on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

from fal_server.access.acting import Teams
from fal_server.access.audit import Recorder
from fal_server.core.accounts import Account, DeletedAccount, Environment, Key, KnownAccounts, TeamMember
from fal_server.core.identity import AccountId, Principal
from fal_server.core.quotas import Quotas
from fal_server.live.backlog import Backlog
from fal_server.services.account_quotas import AccountQuotas
from fal_server.services.accounts import Accounts
from fal_server.services.log_bounds import LogBounds


class FakeAccountStore:
    """The AccountStore port in memory."""

    def __init__(self) -> None:
        self.accounts: list[Account] = []
        self.saved: dict[tuple[AccountId, AccountId], TeamMember] = {}

    async def all(self) -> Sequence[Account]:
        return self.accounts

    async def add(self, account: Account, environment: Environment, key: Key) -> None:
        self.accounts.append(account)

    async def rename(self, account: AccountId, nickname: str, full_name: str) -> bool:
        raise NotImplementedError

    async def save_quotas(self, account: AccountId, quotas: Quotas) -> bool:
        found = [each for each in self.accounts if each.id == account]
        self.accounts = [replace(each, quotas=quotas) if each in found else each for each in self.accounts]
        return bool(found)

    async def delete(self, account: AccountId, at: datetime) -> DeletedAccount | None:
        raise NotImplementedError

    async def deleted(self) -> Sequence[DeletedAccount]:
        raise NotImplementedError

    async def erase(self, account: AccountId) -> int:
        raise NotImplementedError

    async def forget(self, account: AccountId) -> bool:
        raise NotImplementedError

    async def members(self, team: AccountId) -> Sequence[TeamMember]:
        return [member for member in self.saved.values() if member.team == team]

    async def memberships(self, user: AccountId) -> Sequence[TeamMember]:
        return [member for member in self.saved.values() if member.user == user]

    async def save_member(self, member: TeamMember) -> None:
        self.saved[member.team, member.user] = member

    async def remove_member(self, team: AccountId, user: AccountId) -> bool:
        return self.saved.pop((team, user), None) is not None


class NoAudit(Recorder):
    """Records nothing."""

    def __init__(self) -> None:
        pass

    async def record(
        self, caller: Principal, action: str, target: str, *, source: str = "", request_id: str = ""
    ) -> None:
        pass


def teams_of(
    authenticator: object, tokens: object, accounts: KnownAccounts, store: FakeAccountStore | None = None
) -> Teams:
    """Return the memberships; without a store there are none."""
    return Teams(store or FakeAccountStore(), accounts, cast("Any", tokens), cast("Any", authenticator))


def accounts_of(accounts: KnownAccounts, store: FakeAccountStore | None = None) -> Accounts:
    """Return the use cases of accounts, for lists only."""
    nothing = cast("Any", None)
    return Accounts(store or FakeAccountStore(), accounts, teams_of(None, None, accounts, store), nothing, nothing)


def quotas_of(accounts: KnownAccounts) -> AccountQuotas:
    """Return the use cases of quotas, for accounts without usage."""
    nothing = cast("Any", SimpleNamespace(runners=[], used=_none_used))
    each = cast("Any", SimpleNamespace(of=lambda _: nothing))
    clock = cast("Any", None)
    store = FakeAccountStore()
    bounds = LogBounds(accounts.quotas, clock)
    return AccountQuotas(store, accounts, accounts_of(accounts, store), Backlog(clock), nothing, bounds, each)


async def _none_used() -> int:
    return 0
