"""The Protocol of the store of the request history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from fal_server.core.identity import AccountId
from fal_server.core.payloads import KeptPayload
from fal_server.core.requests import MinuteKey, RequestPage, RequestQuery, RequestRecord, RequestStats


class RequestStore(Protocol):
    """Ended requests. Each call is one transaction, which is durable when it returns.

    Every method raises Unavailable if the database cannot be used.
    """

    async def add(self, records: Sequence[RequestRecord], minutes: Mapping[MinuteKey, RequestStats]) -> None:
        """Store requests, and add statistics to their minutes. A request that is already stored stays unchanged."""
        ...

    async def page(self, account: AccountId, query: RequestQuery) -> RequestPage:
        """Return requests of an account, those that ended last first.

        Raises:
            InvalidArgument: the cursor does not come from this store.
        """
        ...

    async def minutes(
        self, account: AccountId, app_name: str | None, since: datetime, until: datetime
    ) -> Sequence[tuple[MinuteKey, RequestStats]]:
        """Return the statistics of minutes that begin in a span, oldest first.

        Args:
            app_name: with the environment's suffix; None for all apps of the account.
            since: begin at or after this.
            until: begin before this.
        """
        ...

    async def add_payloads(self, payloads: Sequence[KeptPayload]) -> None:
        """Store what requests sent and got, sealed. A request whose payload is already stored keeps it."""
        ...

    async def payload(self, account: AccountId, request_id: str) -> KeptPayload | None:
        """Return what a request sent and got. None if nothing of it is stored.

        Raises:
            Unavailable: it was sealed with another master key, or is damaged.
        """
        ...

    async def forget(self, before: datetime) -> int:
        """Delete requests that ended before a time, and statistics of earlier minutes. Return how many requests.

        Their payloads go with them.
        """
        ...
