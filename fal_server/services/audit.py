"""The audit log: lists it, and verifies that it is unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fal_server.access.audit import Recorder
from fal_server.core.audit import AuditRow
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import Principal, Scope
from fal_server.ports.audit import AuditStore

MOST_ON_A_PAGE = 1000
_USUAL_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Some rows, newest first. `next_before` is for the next page, None at the end."""

    rows: Sequence[AuditRow]
    next_before: int | None


class Audit:
    """The use cases of the audit log."""

    def __init__(self, store: AuditStore, recorder: Recorder) -> None:
        self._store = store
        self._recorder = recorder

    async def page(
        self, scope: Scope, *, since: datetime | None = None, before: int | None = None, limit: int = 0
    ) -> AuditPage:
        """Return rows of the caller's account, newest first.

        Args:
            limit: 0 means the default number.

        Raises:
            InvalidArgument: the limit is out of range.
        """
        if not 0 <= limit <= MOST_ON_A_PAGE:
            raise InvalidArgument("page_size", f"page_size is {limit}: give 1 to {MOST_ON_A_PAGE}")
        size = limit or _USUAL_PAGE
        rows = await self._store.newest(scope.account, since, before, size)
        return AuditPage(rows=rows, next_before=rows[-1].sequence if len(rows) == size else None)

    async def verify(self, caller: Principal) -> tuple[int, int | None]:
        """Check the chain; see `Recorder.verify`."""
        return await self._recorder.verify(caller)
