"""Keeps every log drain at work that is not paused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fal_server.aio.rounds import Rounds
from fal_server.core.drains import LogDrain
from fal_server.live.unsent_lines import Behind, UnsentLines
from fal_server.services.draining import Draining
from fal_server.services.drains import Drains

log = logging.getLogger(__name__)


class DrainLoop:
    """One task for each drain. A receiver that is slow or away holds up no other.

    Args:
        unsent: tells when a runner of a drain has written.
        at_work: makes what sends the lines of one drain.
    """

    def __init__(self, drains: Drains, unsent: UnsentLines, at_work: Callable[[LogDrain, Behind], Draining]) -> None:
        self._drains = drains
        self._unsent = unsent
        self._at_work = at_work
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Send until `stopping` is set. The next controller repeats the deliveries that this cuts off."""
        looking = asyncio.create_task(Rounds("log drains", self._look).run(self._drains.changed))
        await stopping.wait()
        await _end([looking, *self._tasks.values()])

    async def _look(self) -> None:
        """Start and end tasks. Each drain that is not paused has one."""
        drains = {drain.drain_id: drain for drain in await self._drains.every()}
        wanted = {drain_id for drain_id, drain in drains.items() if not drain.paused}
        ended = [self._tasks.pop(drain_id) for drain_id in self._tasks.keys() - wanted]
        await _end(ended)
        for drain_id in wanted - self._tasks.keys():
            # From the start after a pause: what was written meanwhile is found in the store.
            self._unsent.leave(drain_id)
            behind = self._unsent.follow(drains[drain_id])
            work = Rounds(f"log drain {drains[drain_id].name}", self._at_work(drains[drain_id], behind).step)
            self._tasks[drain_id] = asyncio.create_task(work.run(behind.changed))
        for drain_id in self._unsent.drain_ids - wanted:
            self._unsent.leave(drain_id)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
