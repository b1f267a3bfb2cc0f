"""The Protocol of the store of the audit log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol

from fal_server.core.audit import AuditRow
from fal_server.core.identity import AccountId


class AuditStore(Protocol):
    """Audit rows, which are added and never changed. Each call is one transaction, which is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def append(self, account: AccountId, make: Callable[[AuditRow | None], AuditRow]) -> None:
        """Add a row after the account's last one.

        Args:
            make: returns the row that follows the last one, or the first row for None. It may be called twice.
        """
        ...

    async def newest(
        self, account: AccountId, since: datetime | None, before: int | None, limit: int
    ) -> Sequence[AuditRow]:
        """Return rows of an account, newest first.

        Args:
            since: only those from this time on.
            before: only those with a smaller number.
        """
        ...

    async def of_actions(
        self,
        account: AccountId,
        actions: Collection[str],
        since: datetime,
        until: datetime,
        before: tuple[datetime, int] | None,
        limit: int,
    ) -> Sequence[AuditRow]:
        """Return an account's rows with certain actions, newest first. The order is by time and number.

        Args:
            since: only those at or after this.
            until: only those before this.
            before: only those after this time and number in that order.
        """
        ...

    async def from_number(self, account: AccountId, first: int, limit: int) -> Sequence[AuditRow]:
        """Return rows of an account from a number on, oldest first."""
        ...
