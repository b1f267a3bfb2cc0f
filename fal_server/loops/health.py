"""Checks the health of runners, and takes unhealthy ones out of service."""

from __future__ import annotations

import logging
from datetime import datetime

from fal_server.aio.rounds import Rounds
from fal_server.aio.set_aside import SetAside
from fal_server.aio.tasks import TaskSet
from fal_server.core import health
from fal_server.core.faults import Fault, NodeTrouble
from fal_server.core.revisions import HealthCheck
from fal_server.core.runners import Runner
from fal_server.live.catalog import Catalog
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.live.health import Health
from fal_server.ports import Clock, HealthProber

log = logging.getLogger(__name__)
QUIET_SECONDS = 30.0
LEAST_SECONDS = 0.05
# The most concurrent checks; others wait.
MOST_AT_ONCE = 64


class HealthLoop:
    """Checks each runner when its check is due (core.health). A runner has one check at a time.

    An unhealthy runner gets no further requests, finishes its current ones and stops; the reconciler replaces it. A
    runner that never passed a check has failed to start: it is killed, and the failed start is counted.
    """

    def __init__(
        self,
        health: Health,
        catalog: Catalog,
        fleet: Fleet,
        prober: HealthProber,
        clock: Clock,
        changed: ChangeNotifier,
    ) -> None:
        self._health = health
        self._catalog = catalog
        self._fleet = fleet
        self._prober = prober
        self._clock = clock
        self._changed = changed
        self._checking: set[str] = set()
        self._set_aside = SetAside[str](clock.now)
        self._tasks = TaskSet(log)

    async def run(self) -> None:
        """Check until cancelled."""
        try:
            await Rounds("health checks", self._start_due).run(self._changed)
        finally:
            await self._tasks.close()

    async def _start_due(self) -> float:
        """Start the due checks. Return the seconds until the next one is due."""
        now = self._clock.now()
        wait = QUIET_SECONDS
        self._set_aside.keep_only([runner.runner_id for runner in self._fleet.runners])
        for runner in self._fleet.runners:
            runner_id = runner.runner_id
            if runner_id in self._checking or runner_id in self._set_aside:
                continue
            try:
                wait = min(wait, self._start_if_due(runner, now))
            except Exception:
                seconds = self._set_aside.add(runner_id)
                wait = min(wait, seconds)
                log.exception("runner %s has no health check; it is set aside for %.1f s", runner_id, seconds)
            else:
                self._set_aside.remove(runner_id)
        return wait

    def _start_if_due(self, runner: Runner, now: datetime) -> float:
        """Start a check if it is due. Return when to look again, in seconds."""
        check = self._health.check_of(runner)
        if check is None or runner.ready_at is None:
            return QUIET_SECONDS
        if self._fleet.is_withheld(runner.runner_id):
            return 1.0  # it is not adopted yet: whether it still lives is found out there
        busy = self._fleet.usage(runner.runner_id).in_flight > 0
        due = health.due_at(check, self._health.vitals(runner.runner_id), runner.ready_at, busy=busy)
        if due is None:
            # Nothing notifies this loop when a busy runner becomes idle.
            return 1.0 if busy else QUIET_SECONDS
        if due > now or len(self._checking) >= MOST_AT_ONCE:
            return max(LEAST_SECONDS, (due - now).total_seconds())
        self._checking.add(runner.runner_id)
        self._tasks.spawn(self._check(runner, check, now), name=f"health check of {runner.runner_id}")
        return QUIET_SECONDS

    async def _check(self, runner: Runner, check: HealthCheck, now: datetime) -> None:
        runner_id = runner.runner_id
        self._fleet.record_health(runner_id, health.started(self._health.vitals(runner_id), now))
        try:
            problem = await self._prober.probe(runner.address, check)
            if problem is None:
                self._fleet.record_health(runner_id, health.passed(self._health.vitals(runner_id)))
            else:
                await self._failed(runner, check, problem)
        except NodeTrouble as fault:
            log.warning("the health of runner %s is unknown: %s", runner_id, fault.message)
        except Fault as fault:
            log.warning("runner %s is unhealthy, which cannot be stored yet: %s", runner_id, fault.message)
        finally:
            self._checking.discard(runner_id)
            self._changed.notify()

    async def _failed(self, runner: Runner, check: HealthCheck, problem: str) -> None:
        runner_id = runner.runner_id
        app = self._catalog.get(runner.app_id)
        revision = self._catalog.known_revision(runner.revision_id)
        # A runner of a revision that the app has not moved to yet has that revision's limits.
        not_current = app is None or app.revision_id != runner.revision_id
        scaling = revision.scaling if not_current and revision is not None else app and app.scaling
        vitals, unhealthy = health.failed(
            check,
            self._health.vitals(runner_id),
            started_at=runner.started_at or runner.created_at,
            startup_timeout=scaling.startup_timeout if scaling else 0,
            now=self._clock.now(),
        )
        self._fleet.record_health(runner_id, vitals)
        log.info("runner %s of %s failed its health check: %s", runner_id, runner.app_name, problem)
        if not unhealthy:
            return
        if vitals.proven:
            await self._fleet.drain(runner_id, f"unhealthy: {problem}")
        else:
            await self._fleet.fail_start(runner_id, f"it never passed its health check: {problem}")
