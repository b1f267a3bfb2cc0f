"""Directories of environments in progress. They are inside the cache, so that packages can be links.

The kernel makes no hard link between two mounts of a sandbox. So the environment is built in a directory of the cache,
and the sandbox has the cache at the place of the environments. There the environment has its final path, to which it
moves when it is built.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fal_runner.process.removal import discard_tree

NAME = re.compile(r"[0-9a-f]{64}-[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlace:
    """The directories of a build.

    Attributes:
        environment: the final path, which the environment's scripts contain.
        built: the path of the environment until it is finished.
        cache: holds the account's packages.
    """

    environment: Path
    built: Path
    cache: Path

    @property
    def is_staged(self) -> bool:
        """Whether the environment is built in the cache and moved afterwards."""
        return self.built != self.environment

    def finish(self) -> None:
        """Move the environment to its path, which is an empty directory.

        Raises:
            OSError: the disk cannot be written to.
        """
        if self.is_staged:
            self.built.rename(self.environment)


@contextmanager
def place_of(environment: Path, cache: Path, *, in_sandbox: bool) -> Generator[BuildPlace]:
    """Prepare the directories of a build. Delete the environment unless it is finished.

    Args:
        environment: an empty directory.
        cache: created if it is missing.
        in_sandbox: whether the build runs in a sandbox; without one, links work between any directories.

    Raises:
        OSError: the disk cannot be written to.
    """
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged, lock = cache / environment.name, None
    if in_sandbox and _mount(cache) == _mount(environment):
        try:
            staged.mkdir(mode=0o700)
            lock = _locked(staged)
        except FileExistsError:  # another controller with this cache is building one of the same name
            lock = None
    try:
        built = environment if lock is None else staged
        yield BuildPlace(environment=environment, built=built, cache=cache)
    finally:
        if lock is not None:
            discard_tree(staged)
            os.close(lock)


def is_locked(directory: Path) -> bool:
    """Return whether a controller is building in a directory. False if that is gone, or none."""
    try:
        os.close(_locked(directory))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    except OSError as error:
        return error.errno != errno.ELOOP
    return False


def remove_abandoned(cache: Path) -> None:
    """Delete what builds of killed controllers left in a cache.

    Packages write there, so anything may have such a name.
    """
    for directory in cache.iterdir():
        if NAME.fullmatch(directory.name) and not is_locked(directory):
            discard_tree(directory)


def _mount(directory: Path) -> str:
    """Return the id of the mount that a directory is on. Nothing moves between two, even of one file system."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    finally:
        os.close(descriptor)
    return next(line for line in lines if line.startswith("mnt_id:"))


def _locked(directory: Path) -> int:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock
