"""Uploads on disk, written in large pieces by another thread and hashed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from fal_server.core.faults import Unavailable
from fal_server.store.files.durable import make_directory

_PIECE_BYTES = 1024 * 1024


class StagedFile:
    """Implements the port Draft as a file, mode 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        try:
            self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unavailable(path, error) from error

    @property
    def md5(self) -> str:
        """The MD5 of the flushed bytes, in hex."""
        return self._md5.hexdigest()

    def sha256(self, suffix: bytes = b"") -> str:
        """Return the SHA-256 of the flushed bytes and of `suffix`, in hex."""
        digest = self._sha256.copy()
        digest.update(suffix)
        return digest.hexdigest()

    async def write(self, data: bytes) -> None:
        """Append; small parts are written together."""
        self.size += len(data)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= _PIECE_BYTES:
            await self._flush()

    async def append_file(self, path: Path) -> None:
        await self._flush()
        await asyncio.to_thread(self._copy, path)

    async def finish(self) -> None:
        await self._flush()
        await asyncio.to_thread(self._close, sync=True)

    def discard(self) -> None:
        self._close(sync=False)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    async def _flush(self) -> None:
        pieces, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if pieces:
            await asyncio.to_thread(self._append, pieces)

    def _append(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._md5.update(piece)
            self._sha256.update(piece)
            view = memoryview(piece)
            while view:
                try:
                    view = view[os.write(self._open(), view) :]
                except OSError as error:
                    raise _unavailable(self.path, error) from error

    def _copy(self, path: Path) -> None:
        try:
            with path.open("rb") as source:
                while piece := source.read(_PIECE_BYTES):
                    self.size += len(piece)
                    self._append([piece])
        except OSError as error:
            raise _unavailable(path, error) from error

    def _open(self) -> int:
        if self._descriptor is None:
            raise Unavailable("the upload was given up: send the file again")
        return self._descriptor

    def _close(self, *, sync: bool) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            if sync:
                os.fsync(descriptor)
        except OSError as error:
            raise _unavailable(self.path, error) from error
        finally:
            os.close(descriptor)


class StagingDirectory:
    """Implements the port Drafts in a directory.

    Args:
        directory: used by one controller; created (mode 0700) if missing, otherwise emptied.

    Raises:
        Unavailable: the directory cannot be created or read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        make_directory(directory, leftovers="*")

    def open(self) -> StagedFile:
        return StagedFile(self._directory / secrets.token_hex(16))


def _unavailable(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"{path.parent} does not take the file: {error.strerror}; free some space, then try again")
