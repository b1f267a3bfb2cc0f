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
        may_be: returns whether there can be something by a key; `tidy` deletes other copies.

    Raises:
        Unavailable: the directory cannot be created or read.
    """

    def __init__(
        self, directory: Path, *, most_bytes: int = MOST_BYTES, may_be: Callable[[str], bool] = lambda _: True
    ) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        self._may_be = may_be
        make_directory(directory, leftovers=f"{DRAFT_PREFIX}*")

    def find(self, key: str, is_whole: Callable[[Path], bool]) -> Path | None:
        """Return the path of a whole copy; None if there is none."""
        path = self._directory / key
        try:
            os.utime(path)
            return path if is_whole(path) else None
        except OSError:
            return None

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
                    file.flush()
                    os.fsync(descriptor)
                return self.take(key, draft, mode)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable(f"a copy cannot be kept in {self._directory}: {error.strerror}") from error

    def take(self, key: str, draft: Path, mode: int) -> Path:
        """Move a file here as a copy. It is on disk already.

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
        """Delete the oldest copies beyond the total size, and unknown ones."""
        found: list[tuple[float, int, Path]] = []
        before = time.time() - _KEPT_SECONDS
        for path in self._directory.rglob("*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                if not path.is_file():
                    continue
                if status.st_mtime < before and not self._may_be(str(path.relative_to(self._directory))):
                    path.unlink()
                    continue
                found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for used_at, size, path in sorted(found):
            if total <= self._most_bytes or used_at >= before:
                return
            path.unlink(missing_ok=True)
            total -= size
