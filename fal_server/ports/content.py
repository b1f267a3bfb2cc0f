"""The Protocols of stored content: pickled code, deployed files, secrets' encryption."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from fal_server.core.identity import AccountId


class Blobs(Protocol):
    """Immutable bytes, named by their SHA-256: pickled callables and app files."""

    async def put(self, content: bytes) -> str:
        """Store the content durably and return its hash.

        Raises:
            Unavailable: it cannot be stored now.
        """
        ...

    def path(self, blob: str) -> Path:
        """Return the path of the bytes on this machine. Blocking.

        Raises:
            NotFound: there is no such blob.
            Unavailable: it is elsewhere, and cannot be fetched now.
        """
        ...

    def discard(self, blobs: Collection[str], before: datetime) -> None:
        """Delete those of these blobs that were last put before this time. Blocking.

        Raises:
            Unavailable: it cannot be deleted now.
        """
        ...


class ContentStore(Protocol):
    """Content by its hash, which retention deletes once nobody needs it. Blocking."""

    def forget(self, needed: Collection[str], before: datetime) -> int:
        """Delete unneeded content, last put or requested before this time. Return how many were deleted.

        Raises:
            Unavailable: it cannot be deleted now.
        """
        ...


class UploadedFiles(Protocol):
    """What was uploaded of the files of apps, by the deploy's hash."""

    def missing(self, account: AccountId, hashes: Sequence[str], /) -> Sequence[str]:
        """Return the hashes of those that an account did not upload. Blocking, but no file is fetched.

        Raises:
            Unavailable: they are elsewhere, and it does not answer.
        """
        ...


class DeployedFiles(Protocol):
    """The files of apps, by the deploy's hash. They have the permissions that apps see."""

    def path(self, account: AccountId, file_hash: str, /) -> Path:
        """Return the path of an account's file on this machine. Blocking.

        Raises:
            NotFound: the account did not upload it.
            Unavailable: it is elsewhere, and cannot be fetched now.
        """
        ...


class Vault(Protocol):
    """Encryption of secrets at rest."""

    def seal(self, context: str, value: str) -> bytes:
        """Encrypt a value.

        Args:
            context: identifies the secret; `open` needs the same, so that no sealed value can replace another.
            value: the plain text.
        """
        ...

    def seal_bytes(self, context: str, value: bytes) -> bytes:
        """Encrypt bytes, with one copy of them at a time."""
        ...

    def open_bytes(self, context: str, sealed: bytes) -> bytes:
        """Decrypt sealed bytes; see `open`."""
        ...

    def open(self, context: str, sealed: bytes) -> str:
        """Decrypt a sealed value.

        Raises:
            Unavailable: it was sealed with another master key or context, or the bytes were changed.
        """
        ...
