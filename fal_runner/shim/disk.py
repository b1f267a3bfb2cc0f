"""Limits a runner's disk usage in its directories or container. It measures the usage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fal_grpc.v1 import shim_pb2
from fal_runner.isolation.container import read_note, written_directories
from fal_runner.process.disk import used_on_disk

_MIB = 1024 * 1024
_PAUSE_SECONDS = 2.0
# The most of one core to spend on measuring, however many files there are.
_SHARE = 0.05
_WARN_AT = 0.9


class DiskBound:
    """The disk limit of a runner's /app and /tmp, or container.

    Args:
        limits: those of the runner.
        places: its directories on the machine, except missing ones.
        processes: lists the runner's processes, whose open deleted files count too.
        container: the note of its container; None if it has none.
    """

    def __init__(
        self,
        limits: shim_pb2.ResourceLimits,
        places: Sequence[Path],
        processes: Callable[[], Sequence[int]],
        container: Path | None = None,
    ) -> None:
        self._limits = limits
        self._places = [place for place in places if place.is_dir()]
        self._processes = processes
        self._container = container
        self._where = "/app and /tmp" if container is None else "what its container writes"
        self._hold = "/app and /tmp hold" if container is None else "its container holds"
        self.exceeded = False

    def explanation(self) -> str:
        """Return what used up the disk, and what to do about it."""
        most = self._limits.disk_bytes // _MIB
        return (
            f"machine type {self._limits.machine_type} has {most} MiB for {self._where}, and "
            f"{'these' if self._container is None else 'that'} held more: "
            "keep large files in /data, or deploy with a machine type that has more"
        )

    async def enforce(self, end: Callable[[], None], warn: Callable[[str], None]) -> None:
        """Measure repeatedly and warn when most is used. End the runner once it exceeds its limit.

        Args:
            end: kills the worker, after which all other processes are swept.
        """
        most = self._limits.disk_bytes
        warned = False
        if most and self._container is not None:
            self._places += await self._written(self._container, warn)
        pause = _PAUSE_SECONDS  # before the first time, too: a start has other work
        while most and self._places:
            await asyncio.sleep(pause)
            before = time.monotonic()
            used = await asyncio.to_thread(self.measure)
            if used > most:
                self.exceeded = True
                end()
                return
            if used > most * _WARN_AT and not warned:
                warn(f"{self._hold} {used // _MIB} of {most // _MIB} MiB: at more than that the runner ends")
            warned = used > most * _WARN_AT
            pause = max(_PAUSE_SECONDS, (time.monotonic() - before) / _SHARE)

    async def _written(self, container: Path, warn: Callable[[str], None]) -> list[Path]:
        """Wait for the container. Return the directories of its engine that hold what it writes."""
        note = await asyncio.to_thread(read_note, container)
        while True:
            found = await asyncio.to_thread(written_directories, note)
            if found:
                return found
            if found is not None:
                warn("the disk of this container is not limited: its engine's storage cannot be measured")
                return []
            await asyncio.sleep(_PAUSE_SECONDS)

    def measure(self) -> int:
        """Return the bytes on disk of all files in its directories. Deleted ones that a process has open count, too."""
        return used_on_disk(self._places, self._processes())
