"""The ED25519 key that signs webhooks. It is created once for a database and sealed in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fal_server.ports import Vault
from fal_server.store.sql.database import Database
from fal_server.store.sql.sealed import sealed_once

_NAME = "webhook-signing-key"


class EdSigner:
    """Implements the port WebhookSigner.

    Args:
        key: the private key.
    """

    __slots__ = ("_key", "_public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"EdSigner(kid={self._kid!r})"

    def sign(self, message: bytes) -> str:
        return self._key.sign(message).hex()

    def key_set(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        key = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self._kid, "x": _b64(self._public)}
        return {"keys": [key]}

    @property
    def _kid(self) -> str:
        return _b64(hashlib.sha256(self._public).digest()[:9])


async def load_signer(database: Database, vault: Vault) -> EdSigner:
    """Return the signer of a database. Its key is created at the first call.

    Raises:
        Unavailable: the database cannot be written, or the vault cannot decrypt the key.
    """
    seed = await sealed_once(database, vault, _NAME, lambda: Ed25519PrivateKey.generate().private_bytes_raw().hex())
    return EdSigner(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)))


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
