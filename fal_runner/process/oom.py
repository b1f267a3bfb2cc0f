"""Counts the processes that the kernel killed for lack of memory."""

from __future__ import annotations

from pathlib import Path

_MACHINE = Path("/proc/vmstat")
_OF_GROUPS = ("memory.events", "memory.oom_control")  # version 2, version 1


def kills_of_machine() -> int:
    """Count those of the whole machine since it was started."""
    return _number(_MACHINE)


def kills_in(group: Path) -> int:
    """Count those in a control group."""
    return max(_number(group / name) for name in _OF_GROUPS)


def _number(path: Path) -> int:
    """Read the count from a file of names and numbers. It is 0 if the file has none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
