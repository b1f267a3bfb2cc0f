"""Whether this machine can start anything: a start on a full disk fails, and the app is not to blame for it."""

from __future__ import annotations

import os
from pathlib import Path

# What a runner's directory, its log and the rows about it need to begin with.
LEAST_FREE_MIB = 8
_MIB = 1024 * 1024


def disk_trouble(directory: Path, least_free_mib: int = LEAST_FREE_MIB) -> str:
    """What is wrong with the disk of a directory, in words; empty where it can be written."""
    try:
        disk = os.statvfs(directory)
    except OSError as error:
        return f"{directory} cannot be used: {error.strerror}"
    free = disk.f_bavail * disk.f_frsize // _MIB
    if free < least_free_mib:
        return f"the disk of {directory} is full, with {free} MiB free: make room"
    if disk.f_files and not disk.f_favail:
        return f"the disk of {directory} takes no further file: delete some"
    return ""
