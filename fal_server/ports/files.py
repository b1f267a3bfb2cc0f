"""The Protocols of files: /data, the files of apps, public files, and content that is on its way in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from fal_server.core.identity import AccountId


class Draft(Protocol):
    """Content that comes in, in a file that nobody sees until it is whole."""

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...

    @property
    def md5(self) -> str:
        """MD5 of what was written so far, hexadecimal: the published clients compare it."""
        ...

    def sha256(self, suffix: bytes = b"") -> str:
        """SHA-256 of what was written so far, and `suffix` after it, hexadecimal."""
        ...

    async def write(self, data: bytes) -> None:
        """Append.

        Raises:
            Unavailable: the disk does not take it.
        """
        ...

    async def append_file(self, path: Path) -> None:
        """Append the content of a file.

        Raises:
            Unavailable: the disk does not take it.
        """
        ...

    async def finish(self) -> None:
        """Everything was written: return when it is on disk.

        Raises:
            Unavailable: the disk does not take it.
        """
        ...

    def discard(self) -> None:
        """Delete it, where it has not been taken over under another name."""
        ...


class Drafts(Protocol):
    """Makes drafts, all in one directory; what an earlier controller left of them is gone."""

    def open(self) -> Draft:
        """A new one.

        Raises:
            Unavailable: the disk does not take it.
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
    """A file that is open for reading; who has it closes the descriptor."""

    descriptor: int
    name: str


class DataStore(Protocol):
    """The directory that runners see as /data. Names are the parts below it; no link leads out of it. Blocking.

    Its methods raise NotFound for what is not there, Invalid for a path that leads out of it or to the wrong kind of
    thing, and Unavailable where the disk fails.
    """

    @property
    def drafts(self) -> Drafts:
        """Drafts on the same file system."""
        ...

    def entries(self, parts: Sequence[str]) -> list[DataEntry]:
        """What is in a directory, by name."""
        ...

    def open(self, parts: Sequence[str]) -> OpenFile:
        """Open a regular file."""
        ...

    def place(self, draft: Path, parts: Sequence[str]) -> None:
        """Give a finished draft its name, in the place of a file that is there; directories on the way are made."""
        ...

    def extract(self, archive: Path, parts: Sequence[str]) -> None:
        """Put the content of a zip archive into a directory, which is made; each file appears whole."""
        ...

    def rename(self, parts: Sequence[str], destination: Sequence[str]) -> None:
        """Move a file or directory; AlreadyExists where a directory that is not empty is at the destination."""
        ...

    def delete(self, parts: Sequence[str]) -> None:
        """Delete a file, or a directory with all that is in it."""
        ...


class AppFileStore(Protocol):
    """The files of apps, by the hash that clients give them: SHA-256 of the content and the decimal mode."""

    def path(self, file_hash: str) -> Path:
        """Where the file is; it has the permissions that it is to have beside the app.

        Raises:
            NotFound: it was not uploaded.
        """
        ...

    def has(self, file_hash: str) -> bool:
        """Whether it was uploaded."""
        ...

    def place(self, draft: Path, file_hash: str, mode: int) -> None:
        """Keep a finished draft under its hash, with these permissions. Blocking."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """A file that was uploaded to be fetched by its address.

    Attributes:
        account: whose key or runner uploaded it.
        object_id: cannot be guessed; who knows it may fetch the file.
        expires_at: when it is deleted; None keeps it.
        etag: MD5 of the content, hexadecimal.
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
    """The files that are fetched by their address. Blocking."""

    def place(self, draft: Path, stored: StoredObject) -> None:
        """Keep a finished draft; whole and on disk when it returns.

        Raises:
            Unavailable: the disk does not take it.
        """
        ...

    def get(self, object_id: str) -> tuple[StoredObject, Path]:
        """What is known of it, and where its content is.

        Raises:
            NotFound: there is none.
        """
        ...

    def forget(self, now: datetime) -> int:
        """Delete what has expired; how many."""
        ...
