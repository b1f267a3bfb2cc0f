"""Knows which shims live on this machine."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from fal_runner.shim.address import ShimIdentity
from fal_server.aio.tasks import TaskSet
from fal_server.engines.local.ownership import living_shim
from fal_server.engines.local.shim_process import LocalShimProcess

log = logging.getLogger(__name__)


class LivingShims:
    """Watches shims until they end.

    Args:
        runners_dir: where each runner has its directory.

    Attributes:
        version: counts the changes.
    """

    def __init__(self, runners_dir: Path) -> None:
        self._runners_dir = runners_dir
        self._processes: dict[str, LocalShimProcess] = {}
        self._watching = TaskSet(log)
        self.version = 1
        self._changed = asyncio.Event()

    def find(self) -> None:
        """Find those that an earlier node process started."""
        for directory in self._runners_dir.iterdir():
            if living_shim(directory) is not None:
                self.add(directory.name)

    def add(self, runner_id: str) -> int:
        """Watch a runner's shim. Return from which version on it is among those that live."""
        known = self._processes.get(runner_id)
        directory = self._runners_dir / runner_id
        identity = ShimIdentity.read(directory)
        if identity is None or (known is not None and known.identity == identity):
            return self.version
        if known is not None:
            known.close()
        process = LocalShimProcess(directory, identity)
        process.watch()
        self._processes[runner_id] = process
        self._watching.spawn(self._until_death(runner_id, process), name=f"shim of runner {runner_id}")
        return self._note()

    @property
    def handles(self) -> dict[str, str]:
        """The handle of each living shim, by its runner."""
        return {runner_id: process.handle for runner_id, process in self._processes.items()}

    async def change(self, seconds: float) -> None:
        """Wait for the next change, but at most so long."""
        changed = self._changed
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """Watch no more."""
        await self._watching.close()
        for process in self._processes.values():
            process.close()

    async def _until_death(self, runner_id: str, process: LocalShimProcess) -> None:
        await process.died.wait()
        process.close()
        if self._processes.get(runner_id) is process:
            del self._processes[runner_id]
            self._note()

    def _note(self) -> int:
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return self.version
