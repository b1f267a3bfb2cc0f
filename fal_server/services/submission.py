"""A request as it is handed in to the queue, what it is known by, and the platform's own answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from fal_server.core.faults import UnusableIdempotencyKey
from fal_server.core.identity import AccountId
from fal_server.core.queue import Answer, Priority

_LONGEST_KEY = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request as it was handed in.

    Attributes:
        path: what the app is asked for, with the query.
        headers: for the app: without the platform's key and without those of one connection.
        caller: the id of the caller's key; None for a public call.
        start_seconds: nothing is begun after so long; None leaves that to the app.
        webhook_url: who is told of the end.
        idempotency_key: a second submission of the caller with the same key is the first one.
    """

    account: AccountId
    app_name: str
    path: str
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = field(repr=False, default=())
    body: bytes = field(repr=False, default=b"")
    caller: str | None = None
    priority: Priority = Priority.NORMAL
    hint: str | None = None
    start_seconds: float | None = None
    no_retry: bool = False
    webhook_url: str | None = field(repr=False, default=None)
    idempotency_key: str | None = None


def refusal(status: int, error_type: str, detail: str, *fields: tuple[str, str]) -> Answer:
    """An answer of the platform's own, where the app gave none."""
    headers = (("content-type", "application/json"), ("x-fal-error-type", error_type), *fields)
    body = json.dumps({"detail": detail, "error_type": error_type}).encode()
    return Answer(status=status, headers=headers, body=body)


# 499 is what the app's own framework answers where the caller has gone.
CANCELLED = refusal(499, "client_cancelled", "the request was cancelled")


def idempotency(submission: Submission) -> str | None:
    """What a repeated submission is known by: account, and a hash of caller, app and Idempotency-Key; None without.

    Raises:
        UnusableIdempotencyKey: the key is empty or too long.
    """
    key = submission.idempotency_key
    if key is None:
        return None
    if not key or len(key) > _LONGEST_KEY:
        raise UnusableIdempotencyKey(f"Idempotency-Key has {len(key)} characters: use 1 to {_LONGEST_KEY}")
    return f"{submission.account}/{_hash(submission.caller or '', submission.app_name, key)}"


def fingerprint(submission: Submission) -> str:
    """A hash of what is asked, to tell a repetition from another request under the same key."""
    return _hash(submission.method, submission.path, hashlib.sha256(submission.body).hexdigest())


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()
