"""Keeps the runs of workflows going, and deletes those that are old."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from fal_server.aio.rounds import every
from fal_server.services.workflow_runs import WorkflowRuns

_SWEEP_SECONDS = 600.0


class WorkflowLoop:
    """Delete old runs until the controller stops, then leave those under way to the next one.

    Args:
        retention: how long completed runs are kept.
    """

    def __init__(self, runs: WorkflowRuns, retention: timedelta) -> None:
        self._runs = runs
        self._retention = retention

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set."""
        try:
            await every("deleting old runs of workflows", _SWEEP_SECONDS, self.sweep).run_until(stopping)
        finally:
            await self._runs.close()

    async def sweep(self) -> int:
        """Delete what is old; return how many runs."""
        return await self._runs.forget(self._retention)
