"""Files that appear whole and on disk, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

DRAFT_PREFIX = ".draft-"


def write_draft(directory: Path, content: bytes) -> Path:
    """Write bytes to a new file (mode 0600) and wait for the disk; the caller gives it its name.

    Raises:
        OSError: nothing is left of it.
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
    """Wait until the names in a directory are on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
