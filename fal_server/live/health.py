"""What is known of the runners' health, for whoever checks it and whoever must not send traffic to the unproven."""

from __future__ import annotations

from dataclasses import replace

from fal_server.core import health
from fal_server.core.health import Vitals
from fal_server.core.revisions import HealthCheck
from fal_server.core.runners import Desired, Runner, RunnerState
from fal_server.live.catalog import Catalog
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet


class Health:
    """Keeps the vitals of the runners that have a health check; after a restart each has to pass one anew.

    Args:
        changed: notified where a check is asked for, or something has come of one.
    """

    def __init__(self, catalog: Catalog, fleet: Fleet, changed: ChangeNotifier) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._changed = changed
        self._vitals: dict[str, Vitals] = {}
        fleet.require_proof(self.must_prove)
        fleet.subscribe(ended=lambda runner: self.forget(runner.runner_id))

    def check_of(self, runner: Runner) -> HealthCheck | None:
        """The check that a runner is to pass, where it can be asked: it is ready, serves, and has a port."""
        if runner.state is not RunnerState.IDLE or runner.desired is not Desired.SERVE or runner.port is None:
            return None
        revision = self._catalog.known_revision(runner.revision_id)
        return None if revision is None else revision.health_check

    def vitals(self, runner_id: str) -> Vitals:
        """What is known of a runner."""
        return self._vitals.get(runner_id, health.NEW)

    def keep(self, runner_id: str, vitals: Vitals) -> None:
        """Keep what is known now, of a runner that has not ended."""
        if self._fleet.get(runner_id) is not None:
            if vitals.proven and not self.vitals(runner_id).proven:
                self._fleet.proven(runner_id)
            self._vitals[runner_id] = vitals
            self._changed.notify()

    def ask(self, runner_id: str) -> None:
        """An answer of a runner asks for a check."""
        self.keep(runner_id, replace(self.vitals(runner_id), asked=True))

    def must_prove(self, runner: Runner) -> bool:
        """Whether a runner has a health check that it has not passed yet."""
        return self.check_of(runner) is not None and not self.vitals(runner.runner_id).proven

    def forget(self, runner_id: str) -> None:
        """A runner has ended."""
        self._vitals.pop(runner_id, None)

    def unproven(self, app_name: str) -> frozenset[str]:
        """The ready runners of an app that have a check to pass and have not passed it."""
        return frozenset(runner.runner_id for runner in self._fleet.of_app(app_name) if self.must_prove(runner))
