"""The Protocol of the store of the request history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from fal_server.core.identity import AccountId
from fal_server.core.requests import MinuteKey, RequestPage, RequestQuery, RequestRecord, RequestStats


class RequestStore(Protocol):
    """Requests that have ended. Each call is one transaction; its effect is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def add(self, records: Sequence[RequestRecord], minutes: Mapping[MinuteKey, RequestStats]) -> None:
        """Store requests, and add numbers to those that the minutes have. A request that is stored stays as it is."""
        ...

    async def page(self, account: AccountId, query: RequestQuery) -> RequestPage:
        """Return requests of an account, those that ended last first.

        Raises:
            InvalidArgument: the cursor was not given out by this store.
        """
        ...

    async def minutes(
        self, account: AccountId, app_name: str | None, since: datetime, until: datetime
    ) -> Sequence[tuple[MinuteKey, RequestStats]]:
        """Return the numbers of the minutes that begin in a span, the oldest first.

        Args:
            app_name: with the environment's suffix; None for all apps of the account.
            since: begin at or after this.
            until: begin before this.
        """
        ...

    async def forget(self, before: datetime) -> int:
        """Delete requests that ended before a time, and the numbers of the minutes before; return how many requests."""
        ...
