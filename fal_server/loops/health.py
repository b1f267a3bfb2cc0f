"""The loop that asks runners whether they are well, and takes those that are not out of service."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from fal_server.core import health
from fal_server.core.faults import Fault
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
# Checks under way at a time; the others wait their turn.
MOST_AT_ONCE = 64


class HealthLoop:
    """Checks each runner when its check is due (core.health), one check of a runner at a time.

    An unhealthy runner gets no further request, finishes those that it has and stops; the reconciler replaces it. One
    that never passed a check has failed to start: it is killed, and counted as that.
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
        self._checks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Check until cancelled."""
        seen = -1
        try:
            while True:
                seen = await self._changed.wait(seen, self.look())
        finally:
            for check in self._checks.values():
                check.cancel()
            await asyncio.gather(*self._checks.values(), return_exceptions=True)

    @property
    def checking(self) -> int:
        """How many checks are under way."""
        return len(self._checks)

    def look(self) -> float:
        """Begin the checks that are due; in how many seconds to look again, at the latest."""
        now = self._clock.now()
        wait = QUIET_SECONDS
        for runner in self._fleet.runners:
            check = self._health.check_of(runner)
            if check is None or runner.ready_at is None or runner.runner_id in self._checks:
                continue
            busy = self._fleet.usage(runner.runner_id).in_flight > 0
            due = health.due_at(check, self._health.vitals(runner.runner_id), runner.ready_at, busy=busy)
            if due is None:
                # What ends a runner's being busy wakes nobody, so look now and then.
                wait = min(wait, 1.0) if busy else wait
            elif due <= now and len(self._checks) < MOST_AT_ONCE:
                self._begin(runner, check, now)
            else:
                wait = min(wait, max(LEAST_SECONDS, (due - now).total_seconds()))
        return wait

    def _begin(self, runner: Runner, check: HealthCheck, now: datetime) -> None:
        runner_id = runner.runner_id
        task = asyncio.get_running_loop().create_task(self._check(runner, check, now), name=f"check {runner_id}")
        self._checks[runner_id] = task

    async def _check(self, runner: Runner, check: HealthCheck, now: datetime) -> None:
        runner_id = runner.runner_id
        self._fleet.record_health(runner_id, health.begun(self._health.vitals(runner_id), now))
        try:
            wrong = await self._prober.probe(runner.host, runner.port or 0, check)
            vitals = self._health.vitals(runner_id)
            if wrong is None:
                self._fleet.record_health(runner_id, health.passed(vitals))
            else:
                await self._take_in(runner, check, wrong)
        except Fault as fault:
            log.warning("runner %s is unhealthy, which cannot be stored yet: %s", runner_id, fault.message)
        finally:
            del self._checks[runner_id]
            self._changed.notify()

    async def _take_in(self, runner: Runner, check: HealthCheck, wrong: str) -> None:
        runner_id = runner.runner_id
        app = self._catalog.get(runner.app_name)
        revision = self._catalog.known_revision(runner.revision_id)
        coming = app is None or app.revision_id != runner.revision_id
        scaling = revision.scaling if coming and revision is not None else app and app.scaling
        startup_timeout = scaling.startup_timeout if scaling else 0
        before = self._health.vitals(runner_id)
        started = runner.started_at or runner.created_at
        now = self._clock.now()
        vitals, unhealthy = health.failed(check, before, started_at=started, startup_timeout=startup_timeout, now=now)
        self._fleet.record_health(runner_id, vitals)
        log.info("runner %s of %s failed its health check: %s", runner_id, runner.app_name, wrong)
        if not unhealthy:
            return
        if vitals.proven:
            await self._fleet.drain(runner_id, f"unhealthy: {wrong}")
        else:
            await self._fleet.fail_start(runner_id, f"it never passed its health check: {wrong}")
