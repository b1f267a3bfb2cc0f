"""Writes files that appear complete and on disk, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fal_runner.process import removal
from fal_server.core.faults import Unavailable

DRAFT_PREFIX = ".draft-"


def make_directory(directory: Path, *, leftovers: str = "") -> None:
    """Create a private directory if missing. Remove a dead controller's incomplete files.

    Args:
        leftovers: a pattern of the files to delete in it.

    Raises:
        Unavailable: it cannot be created or read.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in directory.glob(leftovers) if leftovers else ():
            left.unlink()
    except OSError as error:
        raise Unavailable(f"the directory {directory} cannot be used: {error.strerror}") from error


def remove_tree(directory: Path) -> None:
    """Delete a directory with everything below it. Do nothing if it does not exist.

    Raises:
        Unavailable: something below it cannot be deleted.
    """

    try:
        if directory.is_dir() and not directory.is_symlink():
            removal.remove_tree(directory)
    except OSError as error:
        raise Unavailable(f"{error.filename or directory} cannot be deleted: {error.strerror}") from error


def write_draft(directory: Path, content: bytes) -> Path:
    """Write bytes durably to a new file (mode 0600). The caller renames it.

    Raises:
        OSError: it cannot be written; no part of it is left.
    """
    descriptor, name = tempfile.mkstemp(dir=directory, prefix=DRAFT_PREFIX)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft


def sync_directory(directory: Path) -> None:
    """Wait until a directory's entries are on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
