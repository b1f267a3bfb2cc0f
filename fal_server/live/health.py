"""Health checks: each runner's state, and which may get no traffic yet."""

from __future__ import annotations

from fal_server.core import health
from fal_server.core.health import Vitals
from fal_server.core.revisions import HealthCheck
from fal_server.core.runners import Desired, Runner, RunnerState
from fal_server.live.catalog import Catalog


class Health:
    """Holds the vitals of runners with a health check.

    Cache: after a restart each runner must pass a check again. Only the fleet writes here (`Fleet.record_health`).
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._vitals: dict[str, Vitals] = {}

    def check_of(self, runner: Runner) -> HealthCheck | None:
        """Return the check that a runner must pass. None unless it is ready, serves, and has a port."""
        if runner.state is not RunnerState.IDLE or runner.desired is not Desired.SERVE or runner.port is None:
            return None
        revision = self._catalog.known_revision(runner.revision_id)
        return None if revision is None else revision.health_check

    def vitals(self, runner_id: str) -> Vitals:
        """Return a runner's vitals."""
        return self._vitals.get(runner_id, health.NEW)

    def record(self, runner_id: str, vitals: Vitals) -> None:
        """Replace a runner's vitals."""
        self._vitals[runner_id] = vitals

    def forget(self, runner_id: str) -> None:
        """Drop a runner that has ended."""
        self._vitals.pop(runner_id, None)

    def must_prove(self, runner: Runner) -> bool:
        """Return whether a runner has yet to pass a health check."""
        return self.check_of(runner) is not None and not self.vitals(runner.runner_id).proven
