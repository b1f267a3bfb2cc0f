"""`client.audit` for asyncio: who changed what, and from where."""

# The source of fal/api/audit.py: run `make gen` after a change.

from __future__ import annotations

import builtins
from datetime import datetime
from typing import TYPE_CHECKING

from fal_grpc.adapter.audit import AuditCheck, AuditEntry
from fal_grpc.adapter.values import count
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal.api.opener import AsyncOpener

_PAGE = 1000


class AsyncAuditNamespace:
    """The audit log of the account; `fal audit` on the command line. Use it as `client.audit`.

    Example:
        async with AsyncServerlessClient() as client:
            for entry in await client.audit.list(limit=20):
                print(entry.at, entry.key_id, entry.action, entry.target)
    """

    def __init__(self, client: AsyncOpener) -> None:
        self.client = client

    async def list(self, *, since: datetime | None = None, limit: int = 100) -> builtins.list[AuditEntry]:
        """List entries, newest first.

        Args:
            since: only entries from this time on; a naive one is local time.
            limit: how many at most.

        Raises:
            ArgumentError: the limit is below 1. It is a ValueError.
        """
        most = count("limit", limit)
        if most is None or most < 1:
            raise ArgumentError("limit", f"must be 1 or more, not {limit}")
        controller = await self.client.controller()
        found: builtins.list[AuditEntry] = []
        token = ""
        while len(found) < most:
            size = min(_PAGE, most - len(found))
            entries, token = await controller.list_audit_entries(since=since, page_size=size, page_token=token)
            found.extend(entries)
            if not token:
                break
        return found

    async def verify(self) -> AuditCheck:
        """Check that no entry was changed. It also checks that none between the first and the last is missing."""
        controller = await self.client.controller()
        return await controller.verify_audit()
