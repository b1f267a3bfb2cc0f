"""Immutable bytes as files named by the SHA-256 of their content."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
from pathlib import Path

from fal_server.core.faults import NotFound, Unavailable

_HASH = re.compile(r"[0-9a-f]{64}")


class FileBlobs:
    """The Blobs port in a directory, one file a blob, spread over 256 subdirectories.

    A file appears under its name only when it is whole and on disk, and is never written again; so reading needs no
    check of the content.

    Args:
        directory: made (mode 0700) where it is missing.

    Raises:
        Unavailable: the directory cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"the directory {directory} cannot be made: {error.strerror}") from error

    async def put(self, content: bytes) -> str:
        """Keep; the hash. Durable and whole when it returns.

        Raises:
            Unavailable: it cannot be written, as when the disk is full.
        """
        return await asyncio.to_thread(self._put, content)

    def path(self, blob: str) -> Path:
        """Where the bytes are on this machine.

        Raises:
            NotFound: there is no such blob.
        """
        path = self._place(blob) if _HASH.fullmatch(blob) else None
        if path is None or not path.is_file():
            raise NotFound(f"no content with the hash {blob[:80]!r} was uploaded: upload it, then try again")
        return path

    def _put(self, content: bytes) -> str:
        blob = hashlib.sha256(content).hexdigest()
        path = self._place(blob)
        try:
            if path.is_file() and path.stat().st_size == len(content):
                return blob
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _write_whole(path, content)
        except OSError as error:
            raise Unavailable(f"{len(content)} bytes cannot be kept in {self._directory}: {error.strerror}") from error
        return blob

    def _place(self, blob: str) -> Path:
        return self._directory / blob[:2] / blob


def _write_whole(path: Path, content: bytes) -> None:
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    for directory in (path.parent, path.parent.parent):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
