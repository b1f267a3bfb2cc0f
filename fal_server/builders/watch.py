"""Measures a build's resource usage, and ends it at its limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fal_runner.process.disk import used_on_disk
from fal_runner.process.oom import kills_in
from fal_runner.process.usage import TreeUsage, measure_descendants
from fal_server.core.builds import BuildLimits
from fal_server.core.faults import FailedPrecondition

_PAUSE_SECONDS = 0.25
# The share of a core that measuring the disk may take, however many files there are.
_SHARE = 0.05
_MIB = 1024 * 1024


class Watch:
    """The limits of one build, and its usage.

    Args:
        memory: the control group that limits its memory; without one, it is measured here.
        own: its own, new directories.
        shared: other directories that it writes to; the growth from now on counts.
    """

    def __init__(
        self, limits: BuildLimits, memory: Path | None, own: Sequence[Path], shared: Sequence[Path] = ()
    ) -> None:
        self._limits = limits
        self._memory = memory
        self._own = own
        self._shared = shared
        self._written = {True: 0, False: 0}
        self._program: int | None = None
        self._exceeded = ""

    def follow(self, program: int) -> None:
        """Set the process whose descendants belong to the build. There is one at a time."""
        self._program = program

    @asynccontextmanager
    async def enforcing(self) -> AsyncGenerator[None]:
        """Cancel the block at a limit.

        Raises:
            FailedPrecondition: a limit was reached; the message names it.
        """
        block = asyncio.current_task()
        assert block is not None

        def end(why: str) -> None:
            if not self._exceeded:
                self._exceeded = why
                block.cancel()

        watching = [
            asyncio.create_task(self._watch_processes(end)),
            asyncio.create_task(self._watch_disk(end, is_own=True)),
            asyncio.create_task(self._watch_disk(end, is_own=False)),
            asyncio.create_task(self._watch_time(end)),
        ]
        kills = self._kills()
        try:
            yield
            await asyncio.sleep(0)  # a limit that was reached just now takes effect here
        except asyncio.CancelledError:
            if not self._exceeded or block.uncancel() > 0:
                raise
            raise FailedPrecondition(self._exceeded) from None
        except FailedPrecondition as fault:
            if self._kills() > kills:
                raise FailedPrecondition(f"{self._memory_used()}:\n{fault.message}") from None
            raise
        finally:
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)

    async def _watch_processes(self, end: Callable[[str], None]) -> None:
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            if self._program is None:
                continue
            used: TreeUsage = await asyncio.to_thread(measure_descendants, self._program)
            if self._memory is None and used.memory_bytes > (self._limits.memory_mib or float("inf")) * _MIB:
                end(self._memory_used())
            if len(used.pids) > self._limits.processes:
                end(f"the build had more than {self._limits.processes} processes, and may have no more")

    async def _watch_disk(self, end: Callable[[str], None], *, is_own: bool) -> None:
        places = self._own if is_own else self._shared
        before = 0 if is_own else await asyncio.to_thread(used_on_disk, places, [])
        while True:
            began = time.monotonic()
            self._written[is_own] = await asyncio.to_thread(used_on_disk, places, []) - before
            if sum(self._written.values()) > self._limits.disk_mib * _MIB:
                end(f"the build wrote more than {self._limits.disk_mib} MiB, and may write no more")
            await asyncio.sleep(max(_PAUSE_SECONDS, (time.monotonic() - began) / _SHARE))

    async def _watch_time(self, end: Callable[[str], None]) -> None:
        await asyncio.sleep(self._limits.seconds)
        end(f"the build took longer than {self._limits.seconds:g} s, and may take no longer")

    def _memory_used(self) -> str:
        return f"the build used more than {self._limits.memory_mib} MiB of memory, and may use no more"

    def _kills(self) -> int:
        return 0 if self._memory is None else kills_in(self._memory)
