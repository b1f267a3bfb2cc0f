"""The files of apps, one file each, named by the hash that clients give them."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from fal_server.core.faults import InvalidArgument, NotFound, Unavailable
from fal_server.store.files.content_files import ContentDirectory
from fal_server.store.files.durable import sync_directory

_HASH = re.compile(r"[0-9a-f]{64}")


class DiskAppFiles:
    """The AppFileStore port in a directory, spread over 256 subdirectories.

    A file carries the permissions that it is to have beside the app, since they are part of what its hash means.

    Args:
        directory: of one controller alone; made (mode 0700) where it is missing.

    Raises:
        Unavailable: the directory cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._uses = ContentDirectory(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"the directory {directory} cannot be used: {error.strerror}") from error

    def has(self, file_hash: str) -> bool:
        """Whether it was uploaded. Who asks is about to deploy it, so it stays."""
        return _HASH.fullmatch(file_hash) is not None and self._uses.touch(self._place(file_hash))

    def path(self, file_hash: str) -> Path:
        """Where the file is.

        Raises:
            NotFound: it was not uploaded.
        """
        if not self.has(file_hash):
            raise NotFound(f"no file with the hash {file_hash[:80]!r} was uploaded: upload it, then try again")
        return self._place(file_hash)

    def place(self, draft: Path, file_hash: str, mode: int) -> None:
        """Keep a finished draft under its hash. The owner can always read it: what nobody can read cannot be copied.

        Raises:
            InvalidArgument: that is no SHA-256.
            Unavailable: the disk does not take it.
        """
        if _HASH.fullmatch(file_hash) is None:
            raise InvalidArgument("hash", f"hash {file_hash[:80]!r} is no SHA-256: give 64 hexadecimal digits")
        path = self._place(file_hash)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            draft.chmod(mode & 0o777 | 0o400)
            draft.replace(path)
            sync_directory(path.parent)
        except OSError as error:
            raise Unavailable(f"the file cannot be kept in {self._directory}: {error.strerror}") from error

    def forget(self, needed: Collection[str], before: datetime) -> int:
        """Delete what is not needed and was not asked for since; how many. Blocking.

        Raises:
            Unavailable: the disk cannot be read.
        """
        return self._uses.forget(needed, before)

    def _place(self, file_hash: str) -> Path:
        return self._directory / file_hash[:2] / file_hash
