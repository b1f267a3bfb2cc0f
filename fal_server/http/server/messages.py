"""HTTP/1.1 in bytes: hop-by-hop fields, status phrases, and error bodies."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final, TypeAlias

Headers: TypeAlias = "list[tuple[bytes, bytes]]"

# RFC 9110, 7.6.1: these concern one connection and are never forwarded.
HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


def reason(status: int) -> bytes:
    """Return the phrase of a status line. It is empty for a number without one."""
    return REASONS.get(status, b"")


def tokens(value: bytes) -> list[bytes]:
    """Split a comma-separated field, in lower case: `Keep-Alive, Upgrade` -> [keep-alive, upgrade]."""
    return [token for part in value.lower().split(b",") if (token := part.strip())]


def error_body(detail: str, error_type: str) -> bytes:
    """Return the body of an error of the gateway."""
    return json.dumps({"detail": detail, "error_type": error_type}).encode()


def origin_form(target: bytes) -> bytes:
    """Return the path of an absolute target: `http://host/path` -> `/path` (RFC 9112, 3.2.2)."""
    _, _, rest = target.partition(b"://")
    _, slash, path = rest.partition(b"/")
    return slash + path or b"/"
