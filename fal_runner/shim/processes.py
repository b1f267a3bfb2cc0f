"""Limits a runner's processes and threads if no control group does. Reports when it has as many as it may."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from fal_grpc.v1 import shim_pb2

_SECONDS = 2.0


class ProcessBound:
    """The limit of a runner's processes and threads.

    Args:
        limits: those of the runner.
        sandboxed: whether it has a sandbox. The kernel counts the processes of an ordinary user for each sandbox.
        processes: lists the runner's processes.
    """

    def __init__(
        self, limits: shim_pb2.ResourceLimits, sandboxed: bool, processes: Callable[[], Sequence[int]]
    ) -> None:
        self._limits = limits
        self._group = Path(limits.processes_group) if limits.processes_group else None
        self._sandboxed = sandboxed and limits.processes > 0 and os.geteuid() != 0
        self._processes = processes

    @property
    def most(self) -> int:
        """The limit that the kernel holds for the sandbox. It is 0 if the kernel holds none."""
        return self._limits.processes if self._sandboxed else 0

    def apply(self, process: int) -> None:
        """Limit a worker that was started ahead, and all that it starts.

        Raises:
            OSError: it has ended.
        """
        if self.most:
            resource.prlimit(process, resource.RLIMIT_NPROC, (self.most, self.most))

    async def follow(self, note: Callable[[str], None]) -> None:
        """Report each time that the runner reaches the limit.

        Args:
            note: takes a line for the runner's log.
        """
        if self._group is None and not self.most:
            return
        refused, full = self._refused(), False
        while True:
            await asyncio.sleep(_SECONDS)
            before, refused = refused, self._refused()
            was_full, full = full, self._group is None and await asyncio.to_thread(self._is_full)
            if refused > before or (full and not was_full):
                note(self.explanation())

    def explanation(self) -> str:
        """Return what the runner has too many of, and what helps."""
        return (
            f"machine type {self._limits.machine_type} has {self._limits.processes} processes and threads, and these "
            "are in use, so that no further one starts: end some, or deploy with a machine type that has more"
        )

    def _refused(self) -> int:
        """Count how often the group refused a process."""
        if self._group is not None:
            with suppress(OSError, ValueError):
                for line in (self._group / "pids.events").read_text().splitlines():
                    if line.startswith("max "):
                        return int(line.split()[1])
        return 0

    def _is_full(self) -> bool:
        count = 0
        for pid in self._processes():
            with suppress(OSError):  # it has ended
                count += len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
        return count >= self._limits.processes
