"""Measures runners' resource usage every few seconds."""

from __future__ import annotations

import asyncio
import logging

from fal_server.aio.rounds import every
from fal_server.aio.set_aside import SetAside
from fal_server.core.runners import NO_PROCESS, Runner
from fal_server.live.fleet import Fleet
from fal_server.live.measurements import Measurements
from fal_server.ports import Clock, Engine

log = logging.getLogger(__name__)
EVERY_SECONDS = 5.0
_AT_ONCE = 16


class ResourceLoop:
    """Asks the engine about every runner that has a process."""

    def __init__(self, fleet: Fleet, engine: Engine, resources: Measurements, clock: Clock) -> None:
        self._fleet = fleet
        self._engine = engine
        self._resources = resources
        self._clock = clock
        self._set_aside = SetAside[str](clock.now)

    async def run(self, stopping: asyncio.Event) -> None:
        """Measure every five seconds, until `stopping` is set."""
        await every("measuring runners", EVERY_SECONDS, self.measure).run_until(stopping)

    async def measure(self) -> None:
        """Measure every runner once."""
        few = asyncio.Semaphore(_AT_ONCE)

        async def one(runner: Runner) -> None:
            sample = None
            async with few:
                try:
                    sample = await self._engine.resources(runner)
                except Exception:
                    seconds = self._set_aside.add(runner.runner_id)
                    log.exception("runner %s was not measured; it is set aside for %.1f s", runner.runner_id, seconds)
                else:
                    self._set_aside.remove(runner.runner_id)
            if sample is not None:
                self._resources.record(runner.runner_id, sample, self._clock.now())

        self._set_aside.keep_only([runner.runner_id for runner in self._fleet.runners])
        due = [r for r in self._fleet.runners if r.state not in NO_PROCESS and r.runner_id not in self._set_aside]
        await asyncio.gather(*(one(runner) for runner in due))
