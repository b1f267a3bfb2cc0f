"""Encryption of secrets at rest: AES-256-GCM under one master key."""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fal_server.core.faults import Unavailable

KEY_BYTES = 32
_VERSION = b"\x01"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_PREFIX_BYTES = len(_VERSION) + _KEY_ID_BYTES


class AesVault:
    """Implements the port Vault. A sealed value is version, key id, random nonce and ciphertext with tag.

    Version, key id and context are authenticated, so a value cannot replace another secret unnoticed.

    Args:
        key: the master key, 32 bytes.

    Raises:
        ValueError: the key has another length.
    """

    __slots__ = ("_cipher", "_prefix")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = AESGCM(key)
        key_id = hashlib.sha256(b"fal-grpc master key id\0" + key).digest()[:_KEY_ID_BYTES]
        self._prefix = _VERSION + key_id

    def __repr__(self) -> str:
        return f"AesVault(key_id={self._prefix[len(_VERSION) :].hex()})"

    def seal(self, context: str, value: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return self._prefix + nonce + self._cipher.encrypt(nonce, value.encode(), self._bound_to(context))

    def open(self, context: str, sealed: bytes) -> str:
        if sealed[: len(_VERSION)] != _VERSION:
            raise Unavailable(f"{context} was sealed in a form that this version does not know: use a newer version")
        if sealed[:_PREFIX_BYTES] != self._prefix:
            raise Unavailable(f"{context} was sealed with another master key: start with that key")
        nonce = sealed[_PREFIX_BYTES : _PREFIX_BYTES + _NONCE_BYTES]
        try:
            value = self._cipher.decrypt(nonce, sealed[_PREFIX_BYTES + _NONCE_BYTES :], self._bound_to(context))
        except (InvalidTag, ValueError):
            raise Unavailable(f"{context} was changed or damaged in the database: set it again") from None
        return value.decode()

    def _bound_to(self, context: str) -> bytes:
        return self._prefix + context.encode()
