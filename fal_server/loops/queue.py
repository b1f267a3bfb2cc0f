"""The loop that has queued requests carried: no more of an app at once than its runners can take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import timedelta

from fal_server.core.apps import App
from fal_server.core.faults import Fault
from fal_server.core.queue import State
from fal_server.live.backlog import Backlog, LiveRequest
from fal_server.live.catalog import Catalog
from fal_server.ports import Clock
from fal_server.ports.queue import QueueStore
from fal_server.services.attempts import AttemptRunner
from fal_server.services.queue import Queue

log = logging.getLogger(__name__)
# An app that is scaled up takes more at once: looked at so often while requests wait.
BUSY_SECONDS = 1.0
SWEEP_SECONDS = 600.0
_MOST_CARRIED = 1000


class QueueWorker:
    """Takes requests out of the apps' lines and carries each in a task of its own.

    Args:
        retention: how long completed requests are kept.
        dead_retention: how long those are kept that were given up.
    """

    def __init__(
        self,
        queue: Queue,
        backlog: Backlog,
        carrier: AttemptRunner,
        catalog: Catalog,
        store: QueueStore,
        clock: Clock,
        *,
        retention: timedelta,
        dead_retention: timedelta,
    ) -> None:
        self._queue = queue
        self._backlog = backlog
        self._carrier = carrier
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._retention = retention
        self._dead_retention = dead_retention
        self._carried: dict[str, int] = {}
        self._tasks: dict[asyncio.Task[None], LiveRequest] = {}
        self._taking = True

    async def run(self, stopping: asyncio.Event) -> None:
        """Carry and clean up until `stopping` is set; what is under way then is cut off and begun anew by the next."""
        async with asyncio.TaskGroup() as tasks:
            pump = tasks.create_task(self._pump())
            await self._sweep(stopping)
            pump.cancel()
        await self.close()

    def stop_taking(self) -> None:
        """Begin nothing more: the controller is on its way out. What waits, waits for the next one."""
        self._taking = False
        for task, live in self._tasks.items():
            if live.request.state is State.IN_QUEUE and not live.finishing:
                task.cancel()  # it stands in the dispatcher's line

    async def close(self) -> None:
        """Cut off what is under way; the store knows it as begun."""
        self.stop_taking()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def pump(self) -> None:
        """Take as many requests as can be carried now."""
        if not self._taking:
            return
        for live in self._backlog.overdue():
            self._spawn(self._carrier.expire(live), live)
        for app_name in self._backlog.apps:
            most = _most_carried(self._catalog.get(app_name))
            while self._carried.get(app_name, 0) < most:
                taken = self._backlog.take(app_name)
                if taken is None:
                    break
                self._carried[app_name] = self._carried.get(app_name, 0) + 1
                self._spawn(self._carrier.run_attempt(taken), taken, app_name)

    async def sweep(self) -> int:
        """Delete what is too old; how many requests."""
        now = self._clock.now()
        return await self._store.forget(now - self._retention, now - self._dead_retention)

    async def _pump(self) -> None:
        while True:
            seen = self._queue.news.count
            self.pump()
            await self._queue.news.wait(seen, self._wait_seconds())

    async def _sweep(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await self.sweep()
            except Fault as fault:
                log.warning("old requests could not be deleted, trying again later: %s", fault.message)
            try:
                async with asyncio.timeout(SWEEP_SECONDS):
                    await stopping.wait()
            except TimeoutError:
                continue

    def _wait_seconds(self) -> float | None:
        """Until time alone changes something; None where only news does."""
        if not self._backlog.busy:
            return None
        moment = self._backlog.next_moment()
        seconds = BUSY_SECONDS if moment is None else (moment - self._clock.now()).total_seconds()
        # A moment that is over has changed nothing: all that the app may have at once is being carried.
        return min(seconds, BUSY_SECONDS) if seconds > 0 else BUSY_SECONDS

    def _spawn(self, work: Coroutine[None, None, None], live: LiveRequest, app_name: str | None = None) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = live
        task.add_done_callback(lambda done: self._done(done, app_name))

    def _done(self, task: asyncio.Task[None], app_name: str | None) -> None:
        del self._tasks[task]
        if app_name is not None:
            left = self._carried.pop(app_name) - 1
            if left:
                self._carried[app_name] = left
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("carrying a request failed", exc_info=error)
        self.pump()


def _most_carried(app: App | None) -> int:
    """How many of an app's requests may be with the dispatcher or on runners; one that is gone is told at once."""
    if app is None:
        return _MOST_CARRIED
    return min(max(app.scaling.max_concurrency, 1) * app.scaling.max_multiplexing, _MOST_CARRIED)
