"""Handlers for the audit log."""

from __future__ import annotations

from fal_grpc.v1 import audit_pb2 as pb
from fal_server.core.audit import AuditRow
from fal_server.core.faults import InvalidArgument
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import optional_time, timestamp
from fal_server.services.audit import Audit

_MOST_DIGITS = 18


class AuditHandlers:
    """fal.v1.Audit."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def list_audit_entries(
        self, request: pb.ListAuditEntriesRequest, caller: Caller
    ) -> pb.ListAuditEntriesResponse:
        page = await self._audit.page(
            caller.scope,
            since=optional_time(request, "since"),
            before=_before(request.page_token),
            limit=request.page_size,
        )
        return pb.ListAuditEntriesResponse(
            entries=[_entry(row) for row in page.rows],
            next_page_token="" if page.next_before is None else str(page.next_before),
        )

    async def verify_audit(self, request: pb.VerifyAuditRequest, caller: Caller) -> pb.VerifyAuditResponse:
        rows, broken_at = await self._audit.verify(caller.principal)
        return pb.VerifyAuditResponse(rows=rows, broken_at=broken_at)


def _before(token: str) -> int | None:
    if not token:
        return None
    if not (token.isascii() and token.isdigit() and len(token) <= _MOST_DIGITS):
        raise InvalidArgument("page_token", "page_token is not one that ListAuditEntries returned")
    return int(token)


def _entry(row: AuditRow) -> pb.AuditEntry:
    entry = row.entry
    return pb.AuditEntry(
        number=row.sequence,
        at=timestamp(entry.at),
        key_id=entry.key_id,
        action=entry.action,
        target=entry.target,
        source=entry.source,
        request_id=entry.request_id,
        digest=row.digest,
    )
