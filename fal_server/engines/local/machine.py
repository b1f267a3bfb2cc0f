"""What this machine has left for runners: space on its disk, and open files."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from fal_server.core.faults import Unavailable

# A connection costs two, a runner about two, and the controller itself some forty.
LEAST = 128
_ENOUGH = 1 << 20
LEAST_FREE_MIB = 8
"""What a runner's directory, its log and its rows need at first."""
_MIB = 1024 * 1024
_inherited = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_descriptor_limit() -> None:
    """Raise this process's soft limit of open files to the hard one.

    Raises:
        Unavailable: even the hard limit is too low for a controller.
    """
    _, hard = _inherited
    limit = _ENOUGH if hard == resource.RLIM_INFINITY else hard
    if limit < LEAST:
        raise Unavailable(
            f"this process may open {limit} files, and a controller needs at least {LEAST}: raise the limit, as with "
            f"`ulimit -n {LEAST * 32}`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def restore_descriptor_limit(pid: int) -> None:
    """Give a child process the limits that this one was started with, because programs choose by them."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, _inherited)


def disk_trouble(directory: Path, least_free_mib: int = LEAST_FREE_MIB) -> str:
    """Say why the disk of a directory cannot be written; empty if it can.

    A start on a full disk fails, and the app must not be blamed for it.
    """
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
