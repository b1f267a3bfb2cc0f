"""The audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fal_grpc.adapter.values import to_datetime, to_timestamp

if TYPE_CHECKING:
    from fal_grpc.v1 import audit_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A permitted action of a caller, recorded before it was carried out.

    Attributes:
        number: counts from 1, without gaps.
        action: the method, such as "Secrets.SetSecret", or an HTTP method and path.
        target: the object that the request names, such as "name=TOKEN"; never a value.
        source: the caller's address; empty if unknown.
        request_id: the call's id in the controller's log.
        digest: covers this entry and all earlier ones.
    """

    number: int
    at: datetime
    key_id: str
    action: str
    target: str
    source: str
    request_id: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCheck:
    """Whether the audit log is intact. `broken_at` is the first entry that was changed or is missing."""

    entries: int
    broken_at: int | None


def page(message: audit_pb2.ListAuditEntriesResponse) -> tuple[Sequence[AuditEntry], str]:
    """Return the entries and the token of the next page. The token is empty on the last page."""
    return [_entry(each) for each in message.entries], message.next_page_token


def check(message: audit_pb2.VerifyAuditResponse) -> AuditCheck:
    return AuditCheck(entries=message.rows, broken_at=message.broken_at if message.HasField("broken_at") else None)


def list_request(*, since: datetime | None, page_size: int, page_token: str) -> audit_pb2.ListAuditEntriesRequest:
    from fal_grpc.v1 import audit_pb2

    return audit_pb2.ListAuditEntriesRequest(
        since=None if since is None else to_timestamp(since, argument="since"),
        page_size=page_size,
        page_token=page_token,
    )


def verify_request() -> audit_pb2.VerifyAuditRequest:
    from fal_grpc.v1 import audit_pb2

    return audit_pb2.VerifyAuditRequest()


def _entry(message: audit_pb2.AuditEntry) -> AuditEntry:
    return AuditEntry(
        number=message.number,
        at=to_datetime(message.at),
        key_id=message.key_id,
        action=message.action,
        target=message.target,
        source=message.source,
        request_id=message.request_id,
        digest=message.digest,
    )
