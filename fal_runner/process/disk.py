"""Measures what directories hold on disk. It also measures those whose owner does not want that."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_BLOCK = 512  # the unit of st_blocks, see stat(2)
_LONG_PATH = 3000  # the kernel takes 4,095 bytes
_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def used_on_disk(places: Sequence[Path], processes: Sequence[int]) -> int:
    """Return the bytes on disk of all files in some directories.

    Args:
        processes: their open files count too if they have been deleted.
    """
    counted: dict[tuple[int, int], int] = {}
    devices: set[int] = set()
    for place in places:
        with suppress(OSError):
            devices.add(place.stat().st_dev)
            for found in files_below(place):
                counted[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK
    for pid in processes:
        for found in _open_files(pid):
            if found.st_nlink == 0 and found.st_dev in devices:
                counted[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK
    return sum(counted.values())


def files_below(root: Path, without: Collection[str] = ()) -> Iterator[os.stat_result]:
    """Yield the status of everything below a directory, without following links.

    An app may remove read permission from its directories, which is then restored, and nest them so deep that no path
    reaches them.

    Args:
        without: names at the top that do not count.
    """
    device = root.stat().st_dev
    waiting: list[list[str]] = [[]]
    while waiting:
        names = waiting.pop()
        with suppress(OSError), _entries(root, names) as entries:  # it has just been deleted or renamed
            for entry in entries:
                if not names and entry.name in without:
                    continue
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    yield found
                    if stat.S_ISDIR(found.st_mode) and found.st_dev == device:
                        waiting.append([*names, entry.name])


class _entries:  # noqa: N801 - it reads as a function
    """Lists a directory by its path, or step by step. It goes step by step if the path is too long."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self._fd = _opened(root, names)

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        self._scan = os.scandir(self._fd)
        return self._scan

    def __exit__(self, *_: object) -> None:
        self._scan.close()
        os.close(self._fd)


def _opened(root: Path, names: Sequence[str]) -> int:
    here = os.open(root, _OPEN)
    try:
        while names:
            take, length = 1, len(names[0])
            while take < len(names) and length < _LONG_PATH:
                length += len(os.fsencode(names[take])) + 1
                take += 1
            there = os.open("/".join(names[:take]), _OPEN, dir_fd=here)
            os.close(here)
            here, names = there, names[take:]
        try:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
        except PermissionError:
            os.chmod(f"/proc/self/fd/{here}", 0o700)  # noqa: PTH101 - a directory by its descriptor
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def _open_files(pid: int) -> Iterator[os.stat_result]:
    directory = f"/proc/{pid}/fd"
    with suppress(OSError):  # it has ended
        for name in os.listdir(directory):  # noqa: PTH208
            with suppress(OSError):
                found = os.stat(f"{directory}/{name}")  # noqa: PTH116
                if stat.S_ISREG(found.st_mode):
                    yield found
