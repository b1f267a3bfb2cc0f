"""Files by the hash of their content, spread over 256 subdirectories: when they were last used, and deleting them."""

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
    """The times at which files were last put or asked for: those of their last change, which nothing else changes.

    Args:
        directory: holds them.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()

    def touch(self, path: Path) -> bool:
        """Note that a file is used; False where it is not there. It is not deleted soon from then on."""
        with self._lock:
            if not path.is_file():
                return False
            with suppress(OSError):  # on a disk that takes nothing, nothing is deleted either
                os.utime(path)
            return True

    def forget(self, needed: Collection[str], before: datetime) -> int:
        """Delete the files whose names are not needed, and that were not used since; how many.

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

    def _delete(self, path: Path, before: float) -> bool:
        with self._lock:  # not between somebody's look and use of it
            if path.stat().st_mtime >= before:
                return False
            path.unlink()
            return True
