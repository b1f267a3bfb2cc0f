"""A control group (version 2) for each runner, where the machine lets us make one: its processes end together.

The mark in the environment and the shim as subreaper find what a runner has as long as either is there. A daemon that
wiped its environment, left its session and lost its shim carries nothing any more; its control group it cannot leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

_NAME = re.compile(r"fal-[0-9a-f]{32}")
_NOTE = "cgroup"
_PAUSE_SECONDS = 0.005
_EMPTY_SECONDS = 10.0


class RunnerGroups:
    """Makes groups below one group of the machine.

    Args:
        base: a directory of a cgroup2 file system that this process may write; no controller need be enabled in it.
    """

    def __init__(self, base: Path) -> None:
        self._base = base

    @classmethod
    def detect(
        cls, mounts: Path = Path("/proc/self/mounts"), own: Path = Path("/proc/self/cgroup")
    ) -> RunnerGroups | None:
        """Groups below the one that this process is in; None without cgroup2, its `cgroup.kill`, or leave to write.

        Empty groups that an earlier controller left are removed.

        Args:
            mounts: the file systems, as in proc(5).
            own: this process's groups, as in cgroups(7).
        """
        try:
            fields = [line.split(" ") for line in mounts.read_text().splitlines()]
            lines = [line for line in own.read_text().splitlines() if line.startswith("0::")]
        except OSError:
            return None
        places = [Path(entry[1]) for entry in fields if len(entry) > 2 and entry[2] == "cgroup2"]
        if not places or not lines:
            return None
        base = places[0] / lines[0].removeprefix("0::").lstrip("/")
        probe = base / f"fal-probe-{os.getpid()}"
        try:
            probe.mkdir()
            able = (probe / "cgroup.kill").exists() and os.access(base / "cgroup.procs", os.W_OK)
            probe.rmdir()
        except OSError:
            return None
        if not able:
            return None
        for left in base.glob("fal-*"):
            if _NAME.fullmatch(left.name):
                with contextlib.suppress(OSError):  # it is in use
                    left.rmdir()
        return cls(base)

    def admit(self, pids: Sequence[int], mark: str, directory: Path) -> bool:
        """Put a runner's shim into a group of its own; False where that is refused.

        Args:
            pids: the shim and, where it has one already, its worker.
            mark: the runner's.
            directory: the runner's; which group it is is noted there.
        """
        group = self._base / f"fal-{mark}"
        try:
            (directory / _NOTE).write_text(str(group))
            group.mkdir(exist_ok=True)
            for pid in pids:
                (group / "cgroup.procs").write_text(str(pid))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            return False
        return True


async def end_group(directory: Path, mark: str) -> None:
    """Kill all that is in a runner's group, and remove the group; nothing where it has none, or another's is noted."""
    group = _noted(directory, mark)
    if group is None:
        return
    try:
        (group / "cgroup.kill").write_text("1")
    except OSError:
        return
    end = asyncio.get_running_loop().time() + _EMPTY_SECONDS
    # The kernel tells of this by a change of the file alone: it is looked at again, for some milliseconds.
    while _populated(group) or not _removed(group):
        if asyncio.get_running_loop().time() > end:
            return
        await asyncio.sleep(_PAUSE_SECONDS)


def _noted(directory: Path, mark: str) -> Path | None:
    """The runner's group: its name must be the runner's own, so that a forged note ends nothing of anybody else's."""
    try:
        group = Path((directory / _NOTE).read_text())
    except (OSError, ValueError):
        return None
    return group if group.name == f"fal-{mark}" and (group / "cgroup.kill").exists() else None


def _populated(group: Path) -> bool:
    try:
        return "populated 1" in (group / "cgroup.events").read_text()
    except OSError:
        return False


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
