"""The Protocols of files: /data, app files, public files, and incomplete uploads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from fal_server.core.identity import AccountId


class Draft(Protocol):
    """An upload on disk that stays invisible until it is complete."""

    @property
    def path(self) -> Path:
        """The file's path."""
        ...

    @property
    def size(self) -> int:
        """The number of bytes written so far."""
        ...

    @property
    def md5(self) -> str:
        """The MD5 of the bytes so far, in hex. The published clients compare it."""
        ...

    def sha256(self, suffix: bytes = b"") -> str:
        """Return the SHA-256 of the written bytes and `suffix`, in hex."""
        ...

    async def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            Unavailable: the disk cannot be written.
        """
        ...

    async def append_file(self, path: Path) -> None:
        """Append the content of a file.

        Raises:
            Unavailable: the disk cannot be written.
        """
        ...

    async def finish(self) -> None:
        """Wait until all written bytes are on disk.

        Raises:
            Unavailable: the disk cannot be written.
        """
        ...

    def discard(self) -> None:
        """Delete it, unless it was moved to its destination."""
        ...


class Drafts(Protocol):
    """Creates drafts in one directory; those of an earlier controller are deleted."""

    def open(self) -> Draft:
        """Return a new, empty draft.

        Raises:
            Unavailable: the disk cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DataEntry:
    """A file or directory below /data; `path` is the whole path."""

    path: str
    size: int
    is_file: bool
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """An open file; the receiver closes the descriptor."""

    descriptor: int
    name: str


class DataStore(Protocol):
    """The directory that runners see as /data. No link is followed out of it. Blocking.

    `parts` are the names between /data and a file or directory. The methods raise NotFound if it does not exist,
    InvalidArgument if it is of the wrong kind or a link leads out of /data, and Unavailable if the disk fails.
    """

    @property
    def drafts(self) -> Drafts:
        """The drafts on the same file system, which can be moved here."""
        ...

    def entries(self, parts: Sequence[str]) -> list[DataEntry]:
        """Return the entries of a directory, by name."""
        ...

    def open(self, parts: Sequence[str]) -> OpenFile:
        """Open a regular file."""
        ...

    def place(self, draft: Path, parts: Sequence[str]) -> None:
        """Move a finished draft here, replacing an existing file. Missing directories are created."""
        ...

    def extract(self, archive: Path, parts: Sequence[str], most_bytes: int | None = None) -> bool:
        """Unpack a zip archive into a directory. The directory is created if missing. Each file appears complete.

        Returns:
            False, with nothing unpacked, if the files have more than `most_bytes`.
        """
        ...

    def used(self) -> int:
        """Return the total size of the files, without those being received."""
        ...

    def rename(self, parts: Sequence[str], destination: Sequence[str]) -> None:
        """Move a file or directory.

        Raises:
            AlreadyExists: the destination is a non-empty directory.
        """
        ...

    def delete(self, parts: Sequence[str]) -> None:
        """Delete a file, or a directory with its content."""
        ...


class AppFileStore(Protocol):
    """The files of apps, by the client's hash: SHA-256 of the content and the decimal mode."""

    def path(self, file_hash: str) -> Path:
        """Return the path of the file. The file has the permissions that the app sees. Blocking.

        Raises:
            NotFound: it was not uploaded.
            Unavailable: it is elsewhere, and cannot be fetched now.
        """
        ...

    def missing(self, hashes: Sequence[str]) -> Sequence[str]:
        """Return those that were not uploaded; note the use of the others. Blocking.

        Raises:
            Unavailable: they are elsewhere, and it does not answer.
        """
        ...

    def place(self, draft: Path, file_hash: str, mode: int) -> None:
        """Move a finished draft here under its hash, with these permissions. Blocking."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """A file that was uploaded to be downloaded from its address.

    Attributes:
        account: the account of the key or runner that uploaded it.
        object_id: cannot be guessed, and suffices to download the file.
        expires_at: when it is deleted; None keeps it.
        etag: the MD5 of the content, in hex.
    """

    account: AccountId
    object_id: str
    name: str
    content_type: str
    size: int
    etag: str
    created_at: datetime
    expires_at: datetime | None


class ObjectStore(Protocol):
    """Public files, which are downloaded from their address. Blocking."""

    def place(self, draft: Path, stored: StoredObject) -> None:
        """Move a finished draft here, durably.

        Raises:
            Unavailable: it cannot be stored now.
        """
        ...

    def get(self, object_id: str) -> tuple[StoredObject, Path]:
        """Return the description of a file, and the path of its content.

        Raises:
            NotFound: there is no such file.
            Unavailable: it is elsewhere, and cannot be fetched now.
        """
        ...

    def forget(self, now: datetime) -> int:
        """Delete expired files, and return how many."""
        ...

    def forget_account(self, account: AccountId) -> int:
        """Delete the files of an account, and return how many.

        Raises:
            Unavailable: they cannot be deleted now.
        """
        ...
