"""The files of apps, each stored under its client's hash."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from fal_server.core.accounts import EachAccount
from fal_server.core.faults import InvalidArgument, NotFound, Unavailable
from fal_server.core.identity import AccountId
from fal_server.ports.content import ContentStore
from fal_server.ports.files import AppFileStore
from fal_server.store.files.content_files import ContentDirectory
from fal_server.store.files.durable import make_directory, sync_directory

_HASH = re.compile(r"[0-9a-f]{64}")


def kept_mode(mode: int) -> int:
    """Return the permissions of a stored file, or of a copy. Its owner can always read it."""
    return mode & 0o777 | 0o400


def original_modes(kept: int) -> tuple[int, int]:
    """Return the modes that are kept as this one. One of them is part of the file's hash."""
    mode = stat.S_IFREG | stat.S_IMODE(kept)
    return mode, mode & ~stat.S_IRUSR


class DiskAppFiles:
    """Implements the port AppFileStore in a directory with 256 subdirectories.

    A file has the permissions that the app sees, because they are part of its hash.

    Args:
        directory: used by one controller; created (mode 0700) if missing.

    Raises:
        Unavailable: the directory cannot be created.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._uses = ContentDirectory(directory)
        make_directory(directory)

    def missing(self, hashes: Sequence[str]) -> Sequence[str]:
        return [file_hash for file_hash in hashes if not self._has(file_hash)]

    def path(self, file_hash: str) -> Path:
        if not self._has(file_hash):
            raise NotFound(f"file with the hash {file_hash[:80]!r}", "upload it, then try again")
        return self._place(file_hash)

    def place(self, draft: Path, file_hash: str, mode: int) -> None:
        """Move a finished draft here. The owner can always read it, because otherwise it could not be copied.

        Raises:
            InvalidArgument: the hash is not a SHA-256.
            Unavailable: the disk cannot be written.
        """
        if _HASH.fullmatch(file_hash) is None:
            raise InvalidArgument("hash", f"hash {file_hash[:80]!r} is not a SHA-256: give 64 hexadecimal digits")
        path = self._place(file_hash)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            draft.chmod(kept_mode(mode))
            draft.replace(path)
            sync_directory(path.parent)
        except OSError as error:
            raise Unavailable(f"the file cannot be kept in {self._directory}: {error.strerror}") from error

    def forget(self, needed: Collection[str], before: datetime) -> int:
        return self._uses.forget(needed, before)

    def _has(self, file_hash: str) -> bool:
        return _HASH.fullmatch(file_hash) is not None and self._uses.touch(self._place(file_hash))

    def _place(self, file_hash: str) -> Path:
        return self._directory / file_hash[:2] / file_hash


class KeptAppFiles(AppFileStore, ContentStore, Protocol):
    """The files of one account's apps, of which retention deletes some."""


class AppFilesOfAccounts:
    """The files of each account's apps, separately. The hash of another account's file gives no access to it.

    Args:
        files_of: returns an account's files.
        accounts: the existing accounts.
    """

    def __init__(
        self, files_of: Callable[[AccountId], KeptAppFiles], accounts: Callable[[], Iterable[AccountId]]
    ) -> None:
        self._each = EachAccount(files_of)
        self._accounts = accounts

    def of(self, account: AccountId) -> KeptAppFiles:
        return self._each.of(account)

    def missing(self, account: AccountId, hashes: Sequence[str]) -> Sequence[str]:
        return self.of(account).missing(hashes)

    def path(self, account: AccountId, file_hash: str) -> Path:
        return self.of(account).path(file_hash)

    def forget(self, needed: Collection[str], before: datetime) -> int:
        return sum(self.of(account).forget(needed, before) for account in self._accounts())
