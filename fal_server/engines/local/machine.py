"""Checks the disk space and open files that this machine has left."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from fal_server.core.faults import Unavailable

# Measured.
_OWN, _PER_RUNNER, _PER_REQUEST = 40, 2, 2
LEAST = 128
_USUAL = 4096
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
            f"`ulimit -n {_USUAL}`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def few_files() -> str:
    """Return a warning that this process may open few files, with advice. Empty if it may open enough."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= _USUAL:
        return ""
    both = (hard - _OWN) // (_PER_RUNNER + _PER_REQUEST)
    return (
        f"the controller may open only {hard} files: it needs {_OWN} itself, {_PER_RUNNER} for each runner and "
        f"{_PER_REQUEST} for each request in progress, so {both} runners with a request each are about the most. Start "
        f"it with a higher limit: `ulimit -n {_USUAL}`, as root where that is refused, or LimitNOFILE= in its unit"
    )


def restore_descriptor_limit(pid: int) -> None:
    """Restore the limits that this process was started with, for a child. Programs depend on them."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, _inherited)


def disk_trouble(directory: Path, least_free_mib: int = LEAST_FREE_MIB) -> str:
    """Return why a directory's disk cannot be written to. Empty if it can.

    A start on a full disk fails, and the app is not to blame.
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
