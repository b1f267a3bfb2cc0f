"""Which processes of this machine are a runner's, seen from outside of its shim, and the end of all of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from fal_runner.process.proc import (
    all_processes,
    boot_id,
    has_variable,
    is_alive,
    process_info,
    processes_of,
    send_signal,
    tag_of,
    variable_of,
    working_directory,
)
from fal_runner.shim.address import ShimIdentity
from fal_runner.worker.process_tag import TAG_VARIABLE
from fal_server.engines.local.cgroup import end_group

_QUIET_LOOKS = 3
_PAUSE_SECONDS = 0.005


def find_shim(directory: Path, token: str) -> ShimIdentity | None:
    """The shim of a runner, where it is alive: pid, start time, boot and mark agree, or it is not ours."""
    identity = ShimIdentity.read(directory)
    if identity is None or identity.tag != tag_of(token) or identity.boot_id != boot_id():
        return None
    if not is_alive(identity.pid, identity.started_ticks) or not has_variable(identity.pid, TAG_VARIABLE, identity.tag):
        return None
    return identity


def tags_in(directory: Path) -> set[str]:
    """The marks of the runner whose directory this is: what its shim wrote down, and what its processes carry.

    The former may be lost in a power cut or never have been written; shim and worker have the directory, or one in
    it, as their working directory, whatever is on disk.
    """
    identity = ShimIdentity.read(directory)
    found = {identity.tag} if identity is not None else set[str]()
    for seen in all_processes():
        place = working_directory(seen.pid)
        if place is not None and place.is_relative_to(directory) and (mark := variable_of(seen.pid, TAG_VARIABLE)):
            found.add(mark)
    return found


async def reap(identity: ShimIdentity) -> None:
    """Take in the end of a dead shim, where this process is its parent; another child with its number is left alone."""
    seen = process_info(identity.pid)
    if seen is not None and seen.started_ticks == identity.started_ticks:
        with contextlib.suppress(ChildProcessError):
            await asyncio.to_thread(os.waitpid, identity.pid, os.WNOHANG)


async def sweep(mark: str, directory: Path) -> None:
    """Kill a runner's group, and every process that carries its mark with its children and sessions.

    Returns when none is alive.

    One look that finds nothing proves little: a process in the middle of its exec has no environment to be read, and
    one that was forked while /proc was listed may be missing. So several must, with pauses between them.
    """
    await end_group(directory, mark)
    quiet, pause = 0, _PAUSE_SECONDS
    while quiet < _QUIET_LOOKS:
        alive = await asyncio.to_thread(processes_of, mark)
        for seen in alive:
            send_signal(seen)
        quiet, pause = (0, min(0.1, pause * 2)) if alive else (quiet + 1, _PAUSE_SECONDS)
        if quiet < _QUIET_LOOKS:
            await asyncio.sleep(pause)
