"""The audit log: who changed what, from where, in a chain in which no row can be changed or left out unseen."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fal_server.core.identity import AccountId

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PEER_PREFIX = "fal-peer/"
"""What the name of a connection begins with that the shared port passes on; its caller's address and a slash follow."""
NOTHING_BEFORE = ""
"""In place of the digest before an account's first row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Something that a caller was permitted to change. It has names and ids, and never values.

    Attributes:
        action: the method of gRPC, or method and path of HTTP.
        target: what it names, as `name=value` with commas between.
        source: the address that it came from; empty if that is not known.
        request_id: names the call in the controller's log.
    """

    account: AccountId
    at: datetime
    key_id: str
    action: str
    target: str
    source: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """An entry in its account's chain.

    Attributes:
        sequence: from 1 on, without a gap.
        digest: of the entry and of the row before.
    """

    sequence: int
    entry: AuditEntry
    digest: str


def following(secret: bytes, before: AuditRow | None, entry: AuditEntry) -> AuditRow:
    """Return the row of an entry behind the last one of its account."""
    sequence = 1 if before is None else before.sequence + 1
    previous = NOTHING_BEFORE if before is None else before.digest
    return AuditRow(sequence=sequence, entry=entry, digest=_digest(secret, previous, sequence, entry))


def first_break(secret: bytes, before: AuditRow | None, rows: Iterable[AuditRow]) -> int | None:
    """Return the number of the first row that does not follow those before it; None if all do.

    Args:
        before: the row before the first of `rows`.
        rows: oldest first.
    """
    for row in rows:
        wanted = following(secret, before, row.entry)
        if row.sequence != wanted.sequence or not hmac.compare_digest(row.digest, wanted.digest):
            return wanted.sequence
        before = row
    return None


def _digest(secret: bytes, previous: str, sequence: int, entry: AuditEntry) -> str:
    microseconds = (entry.at - _EPOCH) // timedelta(microseconds=1)
    text = json.dumps(
        [
            previous,
            sequence,
            entry.account,
            microseconds,
            entry.key_id,
            entry.action,
            entry.target,
            entry.source,
            entry.request_id,
        ]
    )
    return hmac.digest(secret, text.encode(), hashlib.sha256).hex()
