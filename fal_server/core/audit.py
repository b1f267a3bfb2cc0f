"""The audit log: who changed what, and from where. It is a chain that shows any changed or missing row."""

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
"""Prefix of a connection's name on the shared port; the caller's address and a slash follow."""
NOTHING_BEFORE = ""
"""Replaces the previous digest for an account's first row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A permitted change by a caller. It contains names and ids, and never values.

    Attributes:
        action: the gRPC method, or HTTP method and path.
        target: the objects that it names, as `name=value` separated by commas.
        source: the caller's address; empty if unknown.
        request_id: the call's id in the controller's log.
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
        sequence: counts from 1, without gaps.
        digest: of the entry and of the previous row.
    """

    sequence: int
    entry: AuditEntry
    digest: str


def following(secret: bytes, before: AuditRow | None, entry: AuditEntry) -> AuditRow:
    """Return an entry's row, which follows the last one of its account."""
    sequence = 1 if before is None else before.sequence + 1
    previous = NOTHING_BEFORE if before is None else before.digest
    return AuditRow(sequence=sequence, entry=entry, digest=_digest(secret, previous, sequence, entry))


def first_break(secret: bytes, before: AuditRow | None, rows: Iterable[AuditRow]) -> int | None:
    """Return the number of the first row that breaks the chain. None if each follows its predecessor.

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
