"""The recent resource usage of each runner."""

from __future__ import annotations

from datetime import datetime

from fal_server.core.resources import ResourceSample, ResourceUse, use_between
from fal_server.core.runners import Runner
from fal_server.live.fleet import Fleet


class Measurements:
    """Keeps each living runner's last sample and its usage. The usage is that between the last two samples.

    Cache: the engine measures again.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._samples: dict[str, tuple[ResourceSample, datetime]] = {}
        self._uses: dict[str, ResourceUse] = {}
        fleet.subscribe(ended=self._forget)

    def of(self, runner_id: str) -> ResourceUse | None:
        """Return a runner's usage. None if it was not measured yet, or has ended."""
        return self._uses.get(runner_id)

    def record(self, runner_id: str, sample: ResourceSample, at: datetime) -> None:
        """Keep a sample, unless the runner has ended meanwhile."""
        runner = self._fleet.get(runner_id)
        if runner is None:
            return
        # Before the first sample, its usage since its start was zero.
        nothing = ResourceSample(cpu_seconds=0.0, memory_bytes=0)
        before, since = self._samples.get(runner_id, (nothing, runner.started_at or at))
        self._samples[runner_id] = (sample, at)
        self._uses[runner_id] = use_between(before, sample, (at - since).total_seconds(), at)

    def _forget(self, runner: Runner) -> None:
        self._samples.pop(runner.runner_id, None)
        self._uses.pop(runner.runner_id, None)
