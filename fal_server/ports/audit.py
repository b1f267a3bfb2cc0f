"""The Protocol of the store of the audit log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol

from fal_server.core.audit import AuditRow
from fal_server.core.identity import AccountId


class AuditStore(Protocol):
    """Rows are added and never changed. Each call is one transaction; its effect is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def append(self, account: AccountId, make: Callable[[AuditRow | None], AuditRow]) -> None:
        """Add a row behind the account's last one.

        Args:
            make: return the row that follows the last one, which is None if there is none. It may be called twice.
        """
        ...

    async def newest(
        self, account: AccountId, since: datetime | None, before: int | None, limit: int
    ) -> Sequence[AuditRow]:
        """Return rows of an account, the newest first.

        Args:
            since: only those from this time on.
            before: only those of a smaller number.
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
        """Return an account's rows of some actions, the newest by time and number first.

        Args:
            since: only those at or after this.
            until: only those before this.
            before: only those behind this time and number.
        """
        ...

    async def from_number(self, account: AccountId, first: int, limit: int) -> Sequence[AuditRow]:
        """Return rows of an account from a number on, the oldest first."""
        ...
