"""Keeps slots occupied while runners work on requests of callers that left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta

from fal_server.aio.rounds import Rounds
from fal_server.aio.set_aside import SetAside
from fal_server.core.faults import Fault
from fal_server.core.routing import Outcome
from fal_server.live.catalog import Catalog
from fal_server.live.dispatch import Dispatcher, Lease
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.ports import Clock, Engine

log = logging.getLogger(__name__)
_EVERY_SECONDS = 0.1
# A worker starts a request within this time of its sending; earlier, its count may lack the request.
_BEGINS_WITHIN = timedelta(seconds=1)


class AbandonedRequests:
    """Holds a slot for each request whose caller or controller is gone.

    The app may still work on it: if the slot were free, an app that takes one request at a time would have two, and a
    GPU could run out of memory. A slot is held until the runner reports fewer requests, but no longer than the app's
    request_timeout.

    Counted: the slots that it holds.
    """

    def __init__(self, catalog: Catalog, fleet: Fleet, dispatcher: Dispatcher, engine: Engine, clock: Clock) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._engine = engine
        self._clock = clock
        self._held: dict[str, dict[Lease, datetime]] = {}
        self._more = ChangeNotifier()
        self._set_aside = SetAside[str](clock.now)
        dispatcher.on_abandoned = self.keep

    def hold(self, counts: Mapping[str, int]) -> None:
        """Take the slots of an earlier controller's requests before any routing.

        Args:
            counts: the number of requests on each runner, by its id.
        """
        for runner_id, count in counts.items():
            for lease in self._dispatcher.hold(runner_id, count):
                self.keep(lease)
            log.info("runner %s still works on %d earlier requests", runner_id, count)

    def keep(self, lease: Lease) -> None:
        """Hold the slot of a request that has left unanswered."""
        runner = self._fleet.get(lease.runner_id)
        app = None if runner is None else self._catalog.get(runner.app_id)
        seconds = 0 if app is None else app.scaling.request_timeout
        until = lease.sent_at + timedelta(seconds=seconds)
        self._held.setdefault(lease.runner_id, {})[lease] = until
        self._more.notify()

    async def run(self) -> None:
        """Poll the runners' requests while slots are held, until cancelled."""
        await Rounds("counting abandoned requests", self.look).run(self._more)

    async def look(self) -> float | None:
        """Release the slots of ended requests. Return the seconds until the next look, or None if none is held."""
        self._set_aside.keep_only(self._held)
        await asyncio.gather(*map(self._look_at, tuple(self._held)))
        return _EVERY_SECONDS if self._held else None

    async def _look_at(self, runner_id: str) -> None:
        leases = self._held[runner_id]
        before = len(leases)
        count = await self._count(runner_id)
        if len(leases) > before:
            return  # another caller left while the runner was asked
        now = self._clock.now()
        started = self._fleet.sent_before(runner_id, now - _BEGINS_WITHIN)
        own = sum(lease not in leases for lease in started)
        left = 0 if count is None else max(count - own, 0)
        for number, (lease, until) in enumerate(tuple(leases.items())):
            if (number >= left and (count is None or lease in started)) or now >= until:
                del leases[lease]
                self._dispatcher.release(lease, Outcome.DONE)
        if not leases:
            del self._held[runner_id]

    async def _count(self, runner_id: str) -> int | None:
        """Return a runner's number of requests; None if it cannot say. On an error, return the number of held slots."""
        runner = self._fleet.get(runner_id)
        if runner is None:
            return None
        if runner_id not in self._set_aside:
            try:
                count = await self._engine.requests_in_flight(runner)
            except Fault as fault:
                seconds = self._set_aside.add(runner_id)
                log.warning("runner %s is asked for requests again in %.1f s: %s", runner_id, seconds, fault.message)
            except Exception:
                seconds = self._set_aside.add(runner_id)
                log.exception("runner %s was not asked for requests; it is set aside for %.1f s", runner_id, seconds)
            else:
                self._set_aside.remove(runner_id)
                return count
        return self._fleet.usage(runner_id).in_flight
