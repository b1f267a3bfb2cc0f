"""Uploads on disk. Another thread writes them in large pieces, and they are hashed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fal_runner.process.foreign_files import directory_of, entered, open_regular
from fal_runner.process.removal import empty_directory
from fal_server.core.faults import Unavailable
from fal_server.store.files.durable import make_directory

_PIECE_BYTES = 1024 * 1024


class StagedFile:
    """Implements the port Draft as a file, mode 0600.

    Args:
        path: the file's; those who can write beside it may replace it at any time, by a link too.
        directory: that of the file, open.
    """

    def __init__(self, path: Path, directory: int) -> None:
        self.path = path
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor: int | None = os.open(path.name, flags, 0o600, dir_fd=directory)
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

    def fill(self, source: IO[bytes]) -> None:
        """Write all of a file in this thread. It does not wait until the file is on disk."""
        while piece := source.read(_PIECE_BYTES):
            self.size += len(piece)
            self._append([piece])
        self._close(sync=False)

    async def finish(self) -> None:
        await self._flush()
        await asyncio.to_thread(self._close, sync=True)

    def discard(self) -> None:
        self._close(sync=False)
        with contextlib.suppress(OSError), directory_of(self.path) as directory:
            os.unlink(self.path.name, dir_fd=directory)

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
            with directory_of(path) as directory, open_regular(path.name, directory) as source:
                while piece := source.read(_PIECE_BYTES):
                    self.size += len(piece)
                    self._append([piece])
        except OSError as error:
            raise Unavailable(f"a part of the upload cannot be read ({error.strerror}): send the file again") from error

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

    Apps may write beside some of these directories, and replace them by a link, a pipe or a file at any time.

    Args:
        directory: used by one controller; created (mode 0700) if missing, otherwise emptied.

    Raises:
        Unavailable: the directory cannot be created or emptied.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        make_directory(directory.parent)
        try:
            with self._parent() as parent, _made(directory.name, parent):
                empty_directory(directory.name, parent)
        except OSError as error:
            raise Unavailable(f"the directory {directory} cannot be used: {error.strerror}") from error

    def open(self) -> StagedFile:
        path = self._directory / secrets.token_hex(16)
        try:
            with self._parent() as parent, _made(self._directory.name, parent) as directory:
                return StagedFile(path, directory)
        except OSError as error:
            raise _unavailable(path, error) from error

    @contextmanager
    def _parent(self) -> Generator[int]:
        descriptor = os.open(self._directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _made(name: str, parent: int) -> Generator[int]:
    """Open a directory in an open one. Make it if it is missing, or is none."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        os.mkdir(name, 0o700, dir_fd=parent)
    with entered(name, parent) as directory:
        yield directory


def _unavailable(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"{path.parent} does not take the file: {error.strerror}; free some space, then try again")
