"""A request to the queue, its identity, and the platform's own responses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from fal_server.core.faults import UnusableIdempotencyKey
from fal_server.core.identity import AppId
from fal_server.core.queue import Answer, Priority

_LONGEST_KEY = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A submitted request.

    Attributes:
        path: the path and query for the app.
        headers: for the app, without the platform's key and hop-by-hop fields.
        caller: the id of the caller's key; None for a call without one.
        start_seconds: do not start it after this long; None means the app's setting.
        webhook_url: called when the request is completed.
        idempotency_key: a second submission by the caller with the same key returns the first request.
    """

    app_id: AppId
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


def error_answer(status: int, error_type: str, detail: str, *fields: tuple[str, str]) -> Answer:
    """Return a response by the platform itself. The app did not answer the request."""
    headers = (("content-type", "application/json"), ("x-fal-error-type", error_type), *fields)
    body = json.dumps({"detail": detail, "error_type": error_type}).encode()
    return Answer(status=status, headers=headers, body=body)


# Web frameworks answer 499 if the client has closed the connection.
WAS_CANCELLED = "the request was cancelled"
CANCELLED = error_answer(499, "client_cancelled", WAS_CANCELLED)


def idempotency(submission: Submission) -> str | None:
    """Return what identifies repetitions; None without a key. It has the account, and a hash of caller, app and key.

    Raises:
        UnusableIdempotencyKey: the key is empty or too long.
    """
    key = submission.idempotency_key
    if key is None:
        return None
    if not key or len(key) > _LONGEST_KEY:
        raise UnusableIdempotencyKey(f"Idempotency-Key has {len(key)} characters: use 1 to {_LONGEST_KEY}")
    return f"{submission.app_id.account}/{_hash(submission.caller or '', str(submission.app_id), key)}"


def fingerprint(submission: Submission) -> str:
    """Return a hash of the request. It tells a repetition from another request with the same key."""
    return _hash(submission.method, submission.path, hashlib.sha256(submission.body).hexdigest())


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()
