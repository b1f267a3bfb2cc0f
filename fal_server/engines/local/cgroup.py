"""Gives each runner its own control group (version 2), if the machine allows it, so that its processes end together.

The tag in the environment and the shim as subreaper find a runner's processes as long as either is there. A daemon that
wiped its environment, left its session and lost its shim has neither, but it cannot leave its control group.
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
        base: a directory of a cgroup2 file system that this process may write; it needs no controllers.
    """

    def __init__(self, base: Path) -> None:
        self._base = base

    @classmethod
    def detect(
        cls, mounts: Path = Path("/proc/self/mounts"), own: Path = Path("/proc/self/cgroup")
    ) -> RunnerGroups | None:
        """Make groups below this process's own; None without cgroup2, `cgroup.kill`, or permission to write.

        Removes empty groups that an earlier controller left.

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

    def admit(self, pids: Sequence[int], tag: str, directory: Path) -> bool:
        """Put a runner's shim into its own group; return False if that is refused.

        Args:
            pids: the shim and, if it has one already, its worker.
            tag: the runner's tag.
            directory: the runner's directory, which gets a note of the group.
        """
        group = self._base / f"fal-{tag}"
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


async def end_group(directory: Path, tag: str) -> None:
    """Kill everything in a runner's group and remove the group; do nothing if it has none."""
    group = _noted(directory, tag)
    if group is None:
        return
    try:
        (group / "cgroup.kill").write_text("1")
    except OSError:
        return
    end = asyncio.get_running_loop().time() + _EMPTY_SECONDS
    # The kernel only changes the file, so read it again, for some milliseconds.
    while _populated(group) or not _removed(group):
        if asyncio.get_running_loop().time() > end:
            return
        await asyncio.sleep(_PAUSE_SECONDS)


def _noted(directory: Path, tag: str) -> Path | None:
    """The group in the note, if it has the runner's name, so that a forged note cannot end other processes."""
    try:
        group = Path((directory / _NOTE).read_text())
    except (OSError, ValueError):
        return None
    return group if group.name == f"fal-{tag}" and (group / "cgroup.kill").exists() else None


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
