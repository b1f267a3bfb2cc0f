"""Webhooks: their bodies, the signed message, and their deliveries."""

from __future__ import annotations

import codecs
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from fal_server.core.json_reader import read_json
from fal_server.core.queue import Answer

MOST_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt to deliver a webhook.

    Attributes:
        status: of the receiver's response; None if there was none.
        error: why it failed; None if it succeeded (2xx).
    """

    request_id: str
    number: int
    at: datetime
    status: int | None = None
    error: str | None = None


def payload(request_id: str, answer: Answer, error: str | None) -> bytes:
    """Return the body of a webhook. It is the response as JSON, and whether it was a success."""
    content = b"null"
    problem: str | None = None
    if answer.body:
        try:
            read_json(answer.body)
            # The body is not serialized again: not everything that can be parsed can be written.
            content = answer.body.removeprefix(codecs.BOM_UTF8)
        except ValueError:
            problem = "the app's answer is not JSON: read it at the response_url"
    failed = answer.status >= 400
    document: dict[str, object] = {
        "request_id": request_id,
        "gateway_request_id": request_id,
        "status": "ERROR" if failed else "OK",
        "error": (error or f"the app answered {answer.status}") if failed else None,
    }
    if problem is not None:
        document["payload_error"] = problem
    return json.dumps(document)[:-1].encode() + b', "payload": ' + content + b"}"


def message(request_id: str, user_id: str, timestamp: int, body: bytes) -> bytes:
    """Return the message to sign. It is request id, user id, Unix time and the body's SHA-256 in hex, one per line."""
    return "\n".join((request_id, user_id, str(timestamp), hashlib.sha256(body).hexdigest())).encode()


def signature_headers(request_id: str, user_id: str, timestamp: int, signature: str) -> tuple[tuple[str, str], ...]:
    """Return the headers that carry a signature."""
    return (
        ("x-fal-webhook-request-id", request_id),
        ("x-fal-webhook-user-id", user_id),
        ("x-fal-webhook-timestamp", str(timestamp)),
        ("x-fal-webhook-signature", signature),
    )
