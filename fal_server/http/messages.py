"""HTTP/1.1 in bytes: the header fields that end at a hop, status lines, and whole answers in JSON."""

from __future__ import annotations

import json
import os
from http import HTTPStatus
from typing import Final, TypeAlias

Headers: TypeAlias = "list[tuple[bytes, bytes]]"

# RFC 9110, 7.6.1: these speak of one connection and are never passed on.
HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_BATCH: Final = 256


def reason(status: int) -> bytes:
    """The phrase of a status line; empty for a number without one."""
    return REASONS.get(status, b"")


def tokens(value: bytes) -> list[bytes]:
    """A comma-separated field in lower case: `Keep-Alive, Upgrade` -> [keep-alive, upgrade]."""
    return [token for part in value.lower().split(b",") if (token := part.strip())]


def error_body(detail: str, error_type: str) -> bytes:
    """The body of every error that the gateway answers."""
    return json.dumps({"detail": detail, "error_type": error_type}).encode()


class RequestIds:
    """Random ids in the form of a version 4 UUID; made in batches, because asking the kernel for each costs more."""

    __slots__ = ("_at", "_hex")

    def __init__(self) -> None:
        self._hex = ""
        self._at = 0

    def next(self) -> str:
        """A new id."""
        at = self._at
        if at >= len(self._hex):
            self._hex = os.urandom(16 * _BATCH).hex()
            at = 0
        self._at = at + 32
        word = self._hex
        variant = "89ab"[int(word[at + 16], 16) & 3]
        return (
            f"{word[at : at + 8]}-{word[at + 8 : at + 12]}-4{word[at + 13 : at + 16]}-"
            f"{variant}{word[at + 17 : at + 20]}-{word[at + 20 : at + 32]}"
        )
