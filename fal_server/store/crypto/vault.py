"""Encryption of secrets at rest: AES-256-GCM under one master key."""

from __future__ import annotations

import hashlib
import os
from io import BytesIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from fal_server.core.faults import Unavailable

KEY_BYTES = 32
_VERSION = b"\x01"
_BYTES_VERSION = b"\x02"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_PREFIX_BYTES = len(_VERSION) + _KEY_ID_BYTES
_TAG_BYTES = 16
# Larger values are processed in such parts, because each further copy of a body counts.
_PART_BYTES = 1024 * 1024


class AesVault:
    """Implements the port Vault. A sealed value is version, key id, random nonce and ciphertext with tag.

    Texts have version 1 and bytes version 2; earlier versions sealed bytes as texts of their Latin-1 characters.
    Version, key id and context are authenticated, so a value cannot replace another secret unnoticed.

    Args:
        key: the master key, 32 bytes.

    Raises:
        ValueError: the key has another length.
    """

    __slots__ = ("_aes", "_cipher", "_key_id", "_prefix")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = AESGCM(key)
        self._aes = AES(key)
        self._key_id = hashlib.sha256(b"fal-grpc master key id\0" + key).digest()[:_KEY_ID_BYTES]
        self._prefix = _VERSION + self._key_id

    def __repr__(self) -> str:
        return f"AesVault(key_id={self._key_id.hex()})"

    def seal(self, context: str, value: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return self._prefix + nonce + self._cipher.encrypt(nonce, value.encode(), self._bound_to(context))

    def open(self, context: str, sealed: bytes) -> str:
        self._check(context, sealed, _VERSION)
        nonce = sealed[_PREFIX_BYTES : _PREFIX_BYTES + _NONCE_BYTES]
        try:
            value = self._cipher.decrypt(nonce, sealed[_PREFIX_BYTES + _NONCE_BYTES :], self._bound_to(context))
        except (InvalidTag, ValueError):
            raise _damaged(context) from None
        return value.decode()

    def seal_bytes(self, context: str, value: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        prefix = _BYTES_VERSION + self._key_id
        if len(value) <= _PART_BYTES:
            return prefix + nonce + self._cipher.encrypt(nonce, value, self._bound_to(context, prefix))
        cipher = Cipher(self._aes, GCM(nonce)).encryptor()
        cipher.authenticate_additional_data(self._bound_to(context, prefix))
        sealed = BytesIO()  # its getvalue() makes no copy
        sealed.write(prefix + nonce)
        plain = memoryview(value)
        for start in range(0, len(plain), _PART_BYTES):
            sealed.write(cipher.update(plain[start : start + _PART_BYTES]))
        cipher.finalize()
        sealed.write(cipher.tag)
        return sealed.getvalue()

    def open_bytes(self, context: str, sealed: bytes) -> bytes:
        if sealed[: len(_VERSION)] == _VERSION:
            return self.open(context, sealed).encode("latin-1")
        self._check(context, sealed, _BYTES_VERSION)
        prefix = sealed[:_PREFIX_BYTES]
        nonce = sealed[_PREFIX_BYTES : _PREFIX_BYTES + _NONCE_BYTES]
        value = BytesIO()
        try:
            cipher = Cipher(self._aes, GCM(nonce, sealed[-_TAG_BYTES:])).decryptor()
            cipher.authenticate_additional_data(self._bound_to(context, prefix))
            secret = memoryview(sealed)[_PREFIX_BYTES + _NONCE_BYTES : -_TAG_BYTES]
            for start in range(0, len(secret), _PART_BYTES):
                value.write(cipher.update(secret[start : start + _PART_BYTES]))
            cipher.finalize()
        except (InvalidTag, ValueError):
            raise _damaged(context) from None
        return value.getvalue()

    def _check(self, context: str, sealed: bytes, version: bytes) -> None:
        if sealed[: len(version)] != version:
            raise Unavailable(f"{context} was sealed in a form that this version does not know: use a newer version")
        if sealed[len(version) : _PREFIX_BYTES] != self._key_id:
            raise Unavailable(f"{context} was sealed with another master key: start with that key")

    def _bound_to(self, context: str, prefix: bytes | None = None) -> bytes:
        return (prefix or self._prefix) + context.encode()


def _damaged(context: str) -> Unavailable:
    return Unavailable(f"{context} was changed or damaged in the database: set it again")
