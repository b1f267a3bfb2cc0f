"""Deletes directories that code of others has filled, however deep. Permissions that it took away do not matter."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from fal_runner.process.foreign_files import entered

_MOST_ROUNDS = 100
"""How often a directory is emptied that somebody keeps filling."""


def remove_tree(path: Path) -> None:
    """Delete a directory with everything in it. Do nothing if there is none. A link is deleted, and not followed.

    Raises:
        OSError: something in it cannot be deleted; what can be is gone.
    """
    with suppress(FileNotFoundError):
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_entry(path.name, parent)
        finally:
            os.close(parent)


def discard_tree(path: Path) -> None:
    """Delete of a directory what can be deleted."""
    with suppress(OSError):
        remove_tree(path)


def remove_entry(name: str, directory: int) -> None:
    """Delete what has this name in an open directory, with its content. Do nothing if there is nothing.

    Raises:
        OSError: as `remove_tree`.
    """
    if _unlinked(name, directory):
        return
    for _ in range(_MOST_ROUNDS):
        try:
            empty_directory(name, directory)
            os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        else:
            return
    raise OSError(errno.ENOTEMPTY, "somebody keeps filling the directory", name)


def empty_directory(name: str, directory: int) -> None:
    """Delete everything in a directory that an open one has.

    Directories in it are moved to its top before they are emptied in turn: a path to the deepest one may be longer than
    the kernel takes, and a descriptor for each on the way more than a process may have.

    Raises:
        OSError: as `remove_tree`.
    """
    problems: list[OSError] = []
    with entered(name, directory) as top:
        waiting = _cleared(top, top, problems)
        while waiting:
            entry = waiting.pop()
            try:
                with entered(entry, top) as here:
                    waiting += _cleared(here, top, problems)
                os.rmdir(entry, dir_fd=top)
            except FileNotFoundError:
                continue
            except OSError as error:
                problems.append(error)
    if problems:
        raise next((problem for problem in problems if problem.errno != errno.ENOTEMPTY), problems[0])


def _cleared(here: int, top: int, problems: list[OSError]) -> list[str]:
    """Delete a directory's files, and move its directories to the top. Return their names there."""
    left: list[str] = []
    for name in os.listdir(here):
        try:
            if _unlinked(name, here):
                continue
            left.append(name if here == top else _lifted(name, here, top))
        except OSError as error:
            problems.append(error)
    return left


def _unlinked(name: str, directory: int) -> bool:
    """Delete what is no directory; return whether it was none."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            return False
        os.unlink(name, dir_fd=directory)
    return True


def _lifted(name: str, directory: int, top: int) -> str:
    with entered(name, directory):  # the kernel moves no directory that its owner may not write
        lifted = f".fal-removed-{secrets.token_hex(16)}"
        os.rename(name, lifted, src_dir_fd=directory, dst_dir_fd=top)
        return lifted
