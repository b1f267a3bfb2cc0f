"""HTTP/1.1 in bytes: hop-by-hop fields, status phrases, error bodies, and request ids."""

from __future__ import annotations

import json
import os
import uuid
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
_BATCH: Final = 256


def reason(status: int) -> bytes:
    """Return the phrase of a status line. It is empty for a number without one."""
    return REASONS.get(status, b"")


def tokens(value: bytes) -> list[bytes]:
    """Split a comma-separated field, in lower case: `Keep-Alive, Upgrade` -> [keep-alive, upgrade]."""
    return [token for part in value.lower().split(b",") if (token := part.strip())]


def error_body(detail: str, error_type: str) -> bytes:
    """Return the body of an error of the gateway."""
    return json.dumps({"detail": detail, "error_type": error_type}).encode()


class RequestIds:
    """Generates ids in the form of a version 4 UUID, cheaply. Each has 48 random bits and its batch's end.

    They only identify requests, so they need not be unguessable.
    """

    __slots__ = ("_at", "_ending", "_hex")

    def __init__(self) -> None:
        self._ending = self._hex = ""
        self._at = 0

    def next(self) -> str:
        """Return a new id."""
        at = self._at
        if at >= len(self._hex):
            self._ending = str(uuid.UUID(bytes=os.urandom(16), version=4))[13:]
            self._hex = os.urandom(6 * _BATCH).hex()
            at = 0
        self._at = at + 12
        return f"{self._hex[at : at + 8]}-{self._hex[at + 8 : at + 12]}{self._ending}"


def origin_form(target: bytes) -> bytes:
    """Return the path of an absolute target: `http://host/path` -> `/path` (RFC 9112, 3.2.2)."""
    _, _, rest = target.partition(b"://")
    _, slash, path = rest.partition(b"/")
    return slash + path or b"/"
