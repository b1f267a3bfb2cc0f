"""The limit of open files: raised for the controller, unchanged for what its runners start."""

from __future__ import annotations

import resource

from fal_server.core.faults import Unavailable

# A connection costs two, a runner about two, and the controller itself some forty.
LEAST = 128
_ENOUGH = 1 << 20
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
