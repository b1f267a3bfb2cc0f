"""Detects whether a runner ran out of memory. It limits its memory if no control group does."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path

from fal_grpc.v1 import shim_pb2
from fal_runner.isolation.container import read_note
from fal_runner.process.oom import kills_in, kills_of_machine
from fal_runner.process.usage import measure_descendants

_MIB = 1024 * 1024
_MACHINE_SECONDS = 10.0
_GROUP_SECONDS = 2.0
# A kill explains an end only if it happened shortly before: within 10 to 20 s for the machine's, 8 to 10 s for the
# runner's own.
_MACHINE_COUNTS = 2
_GROUP_COUNTS = 5
_MEASURE_SECONDS = 0.25


class MemoryBound:
    """A runner's memory limit: its machine type's, its container's, or the machine's.

    Args:
        limits: those of the runner.
        container: the note of its container; None if it has none.
    """

    def __init__(self, limits: shim_pb2.ResourceLimits, container: Path | None = None) -> None:
        self._limits = limits
        self._container = container
        self._group = Path(limits.memory_group) if limits.memory_group else None
        self._counted = deque([self._kills()], maxlen=_MACHINE_COUNTS if self._group is None else _GROUP_COUNTS)
        # Whether something other than the shim limits this runner alone: then the kernel's kills were meant for it.
        self._held = self._group is not None or (self._container is not None and not limits.memory_bytes)
        self._exceeded = False

    def explains(self, code: int, *, itself: bool, killed: bool) -> bool:
        """Return whether a lack of memory ended the worker.

        Args:
            code: its exit code, or minus the number of a signal.
            itself: nobody asked it to end.
            killed: the platform killed it, perhaps after the kernel did.
        """
        if self._exceeded:
            return True
        by_kernel = code == -signal.SIGKILL and (itself or (killed and self._held))
        # If the kernel kills one of its child processes, a worker often ends with an error of its own.
        by_child = code != 0 and itself and self._group is not None
        return (by_kernel or by_child) and self._killed_lately()

    def explanation(self) -> str:
        """Return what ran out of memory, and what to do about it."""
        if self._container is not None and not self._exceeded:
            memory = read_note(self._container).get("memory_mib") or 0
            return f"a container with {memory} MiB ran out of memory" if memory else "the machine ran out of memory"
        if not self._limits.memory_bytes:
            return "the machine ran out of memory"
        larger = f": deploy it with a larger one, such as {self._limits.larger}" if self._limits.larger else ""
        return f"{self._bound} ran out of memory{larger}"

    async def follow_kills(self, note: Callable[[str], None]) -> None:
        """Keep counts that are some seconds old, and report killed processes.

        Args:
            note: takes a line for the runner's log.
        """
        reported = self._counted[0]
        while True:
            await asyncio.sleep(_MACHINE_SECONDS if self._group is None else _GROUP_SECONDS)
            kills = self._kills()
            self._counted.append(kills)
            if self._group is not None and kills > reported:
                count = kills - reported
                said = "1 process was" if count == 1 else f"{count} processes were"
                note(f"{said} killed: {self.explanation()}")
                reported = kills

    async def enforce(self, end: Callable[[], None]) -> None:
        """Measure the runner's processes, and end them above the limit. Do nothing if something else limits them.

        Args:
            end: kills the worker, after which all other processes are swept.
        """
        if self._held or not self._limits.memory_bytes:
            return
        while True:
            await asyncio.sleep(_MEASURE_SECONDS)
            used = await asyncio.to_thread(measure_descendants, os.getpid())
            if used.memory_bytes > self._limits.memory_bytes:
                self._exceeded = True
                end()
                return

    @property
    def _bound(self) -> str:
        return f"machine type {self._limits.machine_type} with {self._limits.memory_bytes // _MIB} MiB"

    def _killed_lately(self) -> bool:
        """Return whether the kernel recently killed a process for lack of memory."""
        return self._kills() > self._counted[0]

    def _kills(self) -> int:
        """Count processes killed for lack of memory. They are the runner's, or the machine's since boot."""
        return kills_of_machine() if self._group is None else kills_in(self._group)
