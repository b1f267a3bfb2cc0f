"""Finds a runner's processes without its shim's help, and ends them."""

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
from fal_server.core.faults import NodeTrouble
from fal_server.engines.local.cgroup import end_group
from fal_server.engines.local.container import remove_container

_QUIET_LISTINGS = 3
_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.1


def find_shim(directory: Path, token: str) -> ShimIdentity | None:
    """Find a runner's living shim. Its pid, start time, boot and tag must match.

    Raises:
        OSError: the machine lacks something, so the answer is not known.
    """
    identity = living_shim(directory)
    return identity if identity is not None and identity.tag == tag_of(token) else None


def living_shim(directory: Path) -> ShimIdentity | None:
    """Find the living shim of a directory, whichever runner it has.

    Raises:
        OSError: nothing is known, because this machine lacks something.
    """
    identity = ShimIdentity.read(directory)
    if identity is None or identity.boot_id != boot_id():
        return None
    if not is_alive(identity.pid, identity.started_ticks) or not has_variable(identity.pid, TAG_VARIABLE, identity.tag):
        return None
    return identity


def tags_in(directory: Path) -> set[str]:
    """Return the tags of this directory's runner. These are the one that its shim recorded, and those of its processes.

    A power cut can lose the record. But shim and worker always have the directory, or one inside it, as their working
    directory.
    """
    identity = ShimIdentity.read(directory)
    found = {identity.tag} if identity is not None else set[str]()
    for process in all_processes():
        path = working_directory(process.pid)
        if path is not None and path.is_relative_to(directory) and (tag := variable_of(process.pid, TAG_VARIABLE)):
            found.add(tag)
    return found


async def reap(identity: ShimIdentity) -> None:
    """Reap a dead shim if it is a child of this process. Leave another child with its pid."""
    found = process_info(identity.pid)
    if found is not None and found.started_ticks == identity.started_ticks:
        with contextlib.suppress(ChildProcessError):
            await asyncio.to_thread(os.waitpid, identity.pid, os.WNOHANG)


async def sweep(tag: str, directory: Path) -> None:
    """Kill a runner's group, container, and every process with its tag. Return once none is alive.

    A single listing may miss a process: during its exec it has no readable environment, and it may be forked meanwhile.
    So several listings in a row must find nothing, with pauses between them. One that fails because the machine lacks
    something does not count.
    """
    await end_group(directory, tag)
    await asyncio.to_thread(remove_container, directory)
    quiet, pause = 0, _PAUSE_SECONDS
    while quiet < _QUIET_LISTINGS:
        try:
            alive = await asyncio.to_thread(processes_of, tag)
        except OSError as error:
            if not NodeTrouble.explains(error):
                raise
            quiet, pause = 0, _LONGEST_PAUSE_SECONDS
        else:
            for process in alive:
                send_signal(process)
            quiet, pause = (0, min(_LONGEST_PAUSE_SECONDS, pause * 2)) if alive else (quiet + 1, _PAUSE_SECONDS)
        if quiet < _QUIET_LISTINGS:
            await asyncio.sleep(pause)
