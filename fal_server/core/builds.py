"""What one build of an environment may take of the machine."""

from __future__ import annotations

from dataclasses import dataclass

MOST_DISK_MIB = 200 * 1024
MOST_PROCESSES = 4096
MOST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildLimits:
    """The bounds of one build.

    Attributes:
        memory_mib: of all its processes together; None sets no limit.
        processes: the most that it may have at a time, threads included.
        disk_mib: the most that it may add to the disk: the environment, the cache and what it keeps while it runs.
        seconds: how long it may take.
    """

    memory_mib: int | None = None
    processes: int = MOST_PROCESSES
    disk_mib: int = MOST_DISK_MIB
    seconds: float = MOST_SECONDS
