"""Copies on this machine of what is in the bucket."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from fal_server.core.faults import Unavailable
from fal_server.store.files.durable import DRAFT_PREFIX, make_directory

# Who was given a path opens the file within this time.
_KEPT_SECONDS = 600.0
MOST_BYTES = 50 * 1024**3


class Copies:
    """Files named by key. Those used last stay, up to a total size.

    Args:
        directory: used by one controller; created (mode 0700) if missing.
        most_bytes: beyond this, `tidy` deletes what was not used for some time.

    Raises:
        Unavailable: the directory cannot be created or read.
    """

    def __init__(self, directory: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        make_directory(directory, leftovers=f"{DRAFT_PREFIX}*")

    def find(self, key: str) -> Path | None:
        """Return the path of a copy; None if there is none."""
        path = self._directory / key
        try:
            os.utime(path)
        except OSError:
            return None
        return path

    def fill(self, key: str, write: Callable[[IO[bytes]], int]) -> Path:
        """Make a copy of what a function writes; none if it raises.

        Args:
            write: writes to the file, and returns the copy's mode.

        Raises:
            Unavailable: the disk cannot be written.
        """
        try:
            descriptor, name = tempfile.mkstemp(dir=self._directory, prefix=DRAFT_PREFIX)
            draft = Path(name)
            try:
                with os.fdopen(descriptor, "w+b") as file:
                    mode = write(file)
                return self.take(key, draft, mode)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable(f"a copy cannot be kept in {self._directory}: {error.strerror}") from error

    def take(self, key: str, draft: Path, mode: int) -> Path:
        """Move a file here as a copy.

        Raises:
            OSError: the disk cannot be written.
        """
        path = self._directory / key
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.chmod(mode)
        draft.replace(path)
        return path

    def drop(self, key: str) -> None:
        """Delete a copy, if there is one."""
        with suppress(FileNotFoundError):
            (self._directory / key).unlink()

    def tidy(self) -> None:
        """Delete the least recently used copies beyond the total size."""
        found: list[tuple[float, int, Path]] = []
        for path in self._directory.rglob("*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                if path.is_file():
                    found.append((status.st_mtime, status.st_size, path))
        total, before = sum(size for _, size, _ in found), time.time() - _KEPT_SECONDS
        for used_at, size, path in sorted(found):
            if total <= self._most_bytes or used_at >= before:
                return
            path.unlink(missing_ok=True)
            total -= size
