"""Keeps slots taken while runners still work on the requests that an earlier controller sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta

from fal_server.aio.rounds import every
from fal_server.core.routing import Outcome
from fal_server.live.catalog import Catalog
from fal_server.live.dispatch import Dispatcher, Lease
from fal_server.live.fleet import Fleet
from fal_server.ports import Clock, Engine

log = logging.getLogger(__name__)
EVERY_SECONDS = 0.25


class EarlierRequests:
    """Hold a slot for each request that a controller left behind when it died.

    Its caller is gone, but the app may still work on it: with another request beside it, an app that takes one at a
    time would have two, and a GPU could run out of memory. A slot is held until the runner says that fewer are
    inside, and no longer than the app's request_timeout.
    """

    def __init__(self, catalog: Catalog, fleet: Fleet, dispatcher: Dispatcher, engine: Engine, clock: Clock) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._engine = engine
        self._clock = clock
        self._held: dict[str, list[Lease]] = {}
        self._until: dict[str, datetime] = {}

    def hold(self, counts: Mapping[str, int]) -> None:
        """Take the slots, before anything is routed.

        Args:
            counts: how many requests each runner works on, by its id.
        """
        for runner_id, count in counts.items():
            runner = self._fleet.get(runner_id)
            app = None if runner is None else self._catalog.get(runner.app_name)
            leases = self._dispatcher.hold(runner_id, count)
            if leases:
                seconds = app.scaling.request_timeout if app is not None else 0
                log.info("runner %s still works on %d earlier requests", runner_id, count)
                self._held[runner_id] = leases
                self._until[runner_id] = self._clock.now() + timedelta(seconds=seconds)

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask the runners four times a second until none is left or `stopping` is set."""
        if self._held:
            await every("counting earlier requests", EVERY_SECONDS, self.look).run_until(stopping)

    async def look(self) -> None:
        """Release what has ended."""
        for runner_id in tuple(self._held):
            runner = self._fleet.get(runner_id)
            count = None if runner is None else await self._engine.requests_in_flight(runner)
            over = self._clock.now() >= self._until[runner_id]
            leases = self._held[runner_id]
            own = 0 if runner is None else self._fleet.usage(runner_id).in_flight - len(leases)
            left = 0 if count is None or over else max(count - own, 0)
            while len(leases) > left:
                self._dispatcher.release(leases.pop(), Outcome.DONE)
            if not leases:
                del self._held[runner_id], self._until[runner_id]
