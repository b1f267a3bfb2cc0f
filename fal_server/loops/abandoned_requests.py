"""Keeps slots occupied while runners work on requests of callers that left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from fal_server.aio.rounds import Rounds
from fal_server.aio.set_aside import SetAside
from fal_server.core.faults import Fault
from fal_server.core.routing import Outcome
from fal_server.core.runners import Runner
from fal_server.live.catalog import Catalog
from fal_server.live.dispatch import Dispatcher, Lease
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.ports import Clock, Engine

log = logging.getLogger(__name__)
_EVERY_SECONDS = 0.1
# A worker starts a request within this time of its sending; earlier, its count may lack the request.
_BEGINS_WITHIN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """An answer to the question what a runner works on.

    Attributes:
        count: the number of requests; None if it has ended or cannot say.
    """

    count: int | None


class AbandonedRequests:
    """Holds a slot for each request whose caller or controller is gone.

    The app may still work on it: if the slot were free, an app that takes one request at a time would have two, and a
    GPU could run out of memory. A slot is held until the runner reports fewer requests, but no longer than the app's
    request_timeout.

    A runner that could not be asked yet, because its node was silent when this controller came, gets no request at all.

    Counted: the slots that it holds.
    """

    def __init__(self, catalog: Catalog, fleet: Fleet, dispatcher: Dispatcher, engine: Engine, clock: Clock) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._engine = engine
        self._clock = clock
        self._held: dict[str, dict[Lease, datetime]] = {}
        self._unasked: dict[str, datetime] = {}
        self._more = ChangeNotifier()
        self._set_aside = SetAside[str](clock.now)
        dispatcher.on_abandoned = self.keep

    def hold(self, counts: Mapping[str, int | None]) -> None:
        """Take the slots of an earlier controller's requests before any routing.

        Args:
            counts: the number of requests on each runner, by its id; None if it is to be asked once its node answers.
        """
        for runner_id, count in counts.items():
            if count is None:
                self._fleet.withhold(runner_id)
                self._unasked[runner_id] = self._clock.now() + self._longest(runner_id)
            else:
                self._hold(runner_id, count)
        if self._unasked:
            self._more.notify()

    def _hold(self, runner_id: str, count: int) -> None:
        for lease in self._dispatcher.hold(runner_id, count):
            self.keep(lease)
        if count:
            log.info("runner %s still works on %d earlier requests", runner_id, count)

    def _longest(self, runner_id: str) -> timedelta:
        """Return how long a request of a runner may last."""
        runner = self._fleet.get(runner_id)
        app = None if runner is None else self._catalog.get(runner.app_id)
        return timedelta(seconds=0 if app is None else app.scaling.request_timeout)

    def keep(self, lease: Lease) -> None:
        """Hold the slot of a request that has left unanswered."""
        until = lease.sent_at + self._longest(lease.runner_id)
        self._held.setdefault(lease.runner_id, {})[lease] = until
        self._more.notify()

    async def run(self) -> None:
        """Poll the runners' requests while slots are held, until cancelled."""
        await Rounds("counting abandoned requests", self.look).run(self._more)

    async def look(self) -> float | None:
        """Release the slots of ended requests. Return the seconds until the next look, or None if none is held."""
        self._set_aside.keep_only({*self._held, *self._unasked})
        await asyncio.gather(*map(self._look_at, tuple(self._held)), *map(self._ask, tuple(self._unasked)))
        return _EVERY_SECONDS if self._held or self._unasked else None

    async def _ask(self, runner_id: str) -> None:
        """Ask a runner what it works on, then route to it."""
        runner = self._fleet.get(runner_id)
        if runner is None:
            del self._unasked[runner_id]
            return
        if self._fleet.is_silent(runner.node) or runner_id in self._set_aside:
            return
        said = _Said(count=0) if self._clock.now() >= self._unasked[runner_id] else await self._asked(runner)
        if said is None or self._fleet.is_silent(runner.node):
            return
        del self._unasked[runner_id]
        self._fleet.route_again(runner_id, partial(self._hold, runner_id, said.count or 0))

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
        asked = None if runner_id in self._set_aside else await self._asked(runner)
        return self._fleet.usage(runner_id).in_flight if asked is None else asked.count

    async def _asked(self, runner: Runner) -> _Said | None:
        """Ask a runner for its requests. Return None, and set it aside, if it does not answer."""
        runner_id = runner.runner_id
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
            return _Said(count=count)
        return None
