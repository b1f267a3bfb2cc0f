"""Shows accounts' quotas and usage, and sets the quotas."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fal_server.access.permissions import allows
from fal_server.core.accounts import Account, EachAccount, KnownAccounts
from fal_server.core.faults import NotFound
from fal_server.core.identity import Principal
from fal_server.core.quotas import Quotas
from fal_server.core.runners import NO_PROCESS
from fal_server.live.backlog import Backlog
from fal_server.live.fleet import Fleet
from fal_server.ports.accounts import AccountStore
from fal_server.services.accounts import Accounts
from fal_server.services.files import Files
from fal_server.services.log_bounds import LogBounds


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotasView:
    """An account's quotas, and its usage of amounts by the quotas' names."""

    account: Account
    used: Mapping[str, int]

    @property
    def quotas(self) -> Quotas:
        return self.account.quotas


class AccountQuotas:
    """The use cases of quotas."""

    def __init__(
        self,
        store: AccountStore,
        known: KnownAccounts,
        accounts: Accounts,
        backlog: Backlog,
        fleet: Fleet,
        log_bounds: LogBounds,
        data: EachAccount[Files],
    ) -> None:
        self._store = store
        self._known = known
        self._accounts = accounts
        self._backlog = backlog
        self._fleet = fleet
        self._log_bounds = log_bounds
        self._data = data
        self._changes = asyncio.Lock()

    async def of(self, caller: Principal, nickname: str) -> QuotasView:
        """Return the quotas of an account.

        Args:
            nickname: empty means the caller's own.

        Raises:
            NotFound: there is no such account for this caller.
            PermissionDenied: the caller's role does not permit it.
        """
        account = await self._accounts.readable(caller, nickname)
        return QuotasView(account=account, used=await self._used(account))

    async def of_caller(self, caller: Principal) -> QuotasView:
        """Return a caller's quotas. Their usage is included if the caller may read the whole account."""
        account = self._accounts.account_of(caller)
        may_read = allows(caller, "account:read") and not caller.scope.restrictions.limit
        return QuotasView(account=account, used=await self._used(account) if may_read else {})

    async def _used(self, account: Account) -> Mapping[str, int]:
        held = self._backlog.held(account.id)
        here = [r for r in self._fleet.runners if r.account == account.id and r.state not in NO_PROCESS]
        return {
            "queued_requests": held.requests,
            "queued_bytes": held.size,
            "runners": len(here),
            "log_bytes_per_minute": self._log_bounds.used(account.id),
            "data_bytes": await self._data.of(account.id).used(),
        }

    async def change(self, nickname: str, changes: Mapping[str, int]) -> Account:
        """Change some quotas of an account.

        Raises:
            NotFound: there is no such account.
            InvalidArgument: a limit is negative or too large.
        """
        async with self._changes:
            account = self._known.named(nickname)
            if account is None:
                raise NotFound(f"account {nickname[:80]!r}", "`fal teams list --all` shows which exist")
            changed = replace(account, quotas=account.quotas.changed(changes))
            await self._store.save_quotas(account.id, changed.quotas)
            changed = replace(self._known.of(account.id), quotas=changed.quotas)  # it may have another name by now
            self._known.add(changed)
        return changed
