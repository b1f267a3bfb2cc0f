"""Opens what others' code may have put where we look. No link is followed, no pipe waited for, no device touched."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from typing import BinaryIO

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def directory_of(path: Path) -> Generator[int]:
    """Hold the directory of a path's last part. The directory is no link, and those above are trusted.

    Raises:
        OSError: it is missing, or not a directory.
    """
    handle = os.open(path.parent, _HANDLE)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def entered(name: str, directory: int) -> Generator[int]:
    """Open a directory in an open one. Take back the right to do with it what its owner may.

    Raises:
        OSError: it is missing, or not a directory.
    """
    handle = os.open(name, _HANDLE, dir_fd=directory)
    try:
        if os.fstat(handle).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)  # noqa: PTH101 - a directory by its descriptor
        opened = os.open(".", _DIRECTORY, dir_fd=handle)
    finally:
        os.close(handle)
    try:
        yield opened
    finally:
        os.close(opened)


def open_regular(name: str, directory: int) -> BinaryIO:
    """Open a file in an open directory to read it.

    Raises:
        OSError: it is missing, or not a regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
    handle = os.open(name, flags, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return os.fdopen(handle, "rb")


def read_regular(path: Path, most: int) -> bytes:
    """Read a file's first bytes. Its directory may not be a link, either.

    Args:
        most: the number of bytes.

    Raises:
        OSError: it is missing, or not a regular file.
    """
    with directory_of(path) as directory, open_regular(path.name, directory) as file:
        return file.read(most)
