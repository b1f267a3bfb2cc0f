"""Files named by a hash, in 256 subdirectories: their use and deletion."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from fal_server.core.faults import Unavailable
from fal_server.store.files.durable import DRAFT_PREFIX


class ContentDirectory:
    """Keeps each file's last use as its modification time.

    Args:
        directory: contains the files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()

    def touch(self, path: Path) -> bool:
        """Record the use of a file, and return whether it exists. The file is then not deleted soon."""
        with self._lock:
            if not path.is_file():
                return False
            with suppress(OSError):  # on a disk that cannot be written, nothing is deleted either
                os.utime(path)
            return True

    def forget(self, needed: Collection[str], before: datetime) -> int:
        """Delete unneeded files that were not used since `before`. Return how many were deleted.

        Raises:
            Unavailable: the disk cannot be read.
        """
        count = 0
        try:
            for path in self._directory.glob("[0-9a-f][0-9a-f]/*"):
                if path.name not in needed and not path.name.startswith(DRAFT_PREFIX):
                    count += self._delete(path, before.timestamp())
        except OSError as error:
            raise Unavailable(f"the directory {self._directory} cannot be cleared up: {error.strerror}") from error
        return count

    def discard(self, path: Path, before: datetime) -> None:
        """Delete a file unless it is gone or was used since `before`.

        Raises:
            Unavailable: the disk cannot be written.
        """
        try:
            self._delete(path, before.timestamp())
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Unavailable(f"the file {path} cannot be deleted: {error.strerror}") from error

    def _delete(self, path: Path, before: float) -> bool:
        with self._lock:  # not between a check for the file and its use
            if path.stat().st_mtime >= before:
                return False
            path.unlink()
            return True
