"""When something that was built was last used: the time of an empty file's last change."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path


def note_use(path: Path) -> None:
    """It is used now."""
    with suppress(OSError):  # on a disk that takes nothing, nothing is deleted either
        path.touch(mode=0o600)
        os.utime(path)


def changed_at(path: Path) -> datetime | None:
    """When a file was last changed; None where it is not there."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
