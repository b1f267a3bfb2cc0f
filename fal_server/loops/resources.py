"""Measures what runners use, every few seconds."""

from __future__ import annotations

import asyncio

from fal_server.aio.rounds import every
from fal_server.core.runners import NO_PROCESS, Runner
from fal_server.live.fleet import Fleet
from fal_server.live.measurements import Measurements
from fal_server.ports import Clock, Engine

EVERY_SECONDS = 5.0
_AT_ONCE = 16


class ResourceLoop:
    """Ask the engine about every runner that has a process."""

    def __init__(self, fleet: Fleet, engine: Engine, resources: Measurements, clock: Clock) -> None:
        self._fleet = fleet
        self._engine = engine
        self._resources = resources
        self._clock = clock

    async def run(self, stopping: asyncio.Event) -> None:
        """Measure every five seconds, until `stopping` is set."""
        await every("measuring runners", EVERY_SECONDS, self.measure).run_until(stopping)

    async def measure(self) -> None:
        """Measure every runner once."""
        few = asyncio.Semaphore(_AT_ONCE)

        async def one(runner: Runner) -> None:
            async with few:
                sample = await self._engine.resources(runner)
            if sample is not None:
                self._resources.record(runner.runner_id, sample, self._clock.now())

        await asyncio.gather(*(one(runner) for runner in self._fleet.runners if runner.state not in NO_PROCESS))
