"""Bytes at rest: pickled code, files that were deployed, and the encryption of what is secret."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Protocol


class Blobs(Protocol):
    """Immutable bytes by the SHA-256 of their content: pickled callables and app files."""

    async def put(self, content: bytes) -> str:
        """Keep; the hash. Durable and whole when it returns."""
        ...

    def path(self, blob: str) -> Path:
        """Where the bytes are on this machine.

        Raises:
            NotFound: there is no such blob.
        """
        ...


class ContentStore(Protocol):
    """Content by its hash, of which nobody may need some any more. Blocking."""

    def forget(self, needed: Collection[str], before: datetime) -> int:
        """Delete what is not needed and was last put or asked for before this moment; how many.

        Raises:
            Unavailable: the disk cannot be read.
        """
        ...


class DeployedFiles(Protocol):
    """The files that go with apps, by the hash that a deploy gives; each has the permissions that it is to have."""

    def path(self, file_hash: str, /) -> Path:
        """Where the file is on this machine.

        Raises:
            NotFound: it was not uploaded.
        """
        ...


class Vault(Protocol):
    """Encryption of what is secret at rest."""

    def seal(self, context: str, value: str) -> bytes:
        """Encrypt; `context` (which secret it is) must be the same at opening."""
        ...

    def open(self, context: str, sealed: bytes) -> str:
        """Decrypt.

        Raises:
            Unavailable: the master key is not the one it was sealed with, or the bytes were changed.
        """
        ...
