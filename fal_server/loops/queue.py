"""Sends queued requests to runners. It sends as many of each app at once as its runners can take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import timedelta

from fal_server.aio.rounds import Rounds, every
from fal_server.aio.set_aside import SetAside
from fal_server.aio.tasks import TaskSet
from fal_server.core.apps import App
from fal_server.core.faults import Unavailable
from fal_server.core.identity import AppId
from fal_server.core.queue import Content, QueuedRequest, State
from fal_server.live.backlog import Backlog, LiveRequest
from fal_server.live.catalog import Catalog
from fal_server.ports import Clock
from fal_server.ports.queue import QueueStore
from fal_server.services.attempts import AttemptRunner, Placed
from fal_server.services.queue import Queue, QueueStatus

log = logging.getLogger(__name__)
# An app that is scaled up takes more at once without notifying this loop, so look this often while requests wait.
BUSY_SECONDS = 1.0
SWEEP_SECONDS = 600.0
_MOST_AT_ONCE = 1000
# How long a stop waits for requests that are being stored, whose callers would have to submit them again.
_ACCEPT_SECONDS = 1.0


class QueueWorker:
    """Makes an attempt at each request in the apps' queues. Each has a task.

    A new request for which a slot is free is never queued: one task stores it as started and makes the attempt.

    Args:
        retention: how long completed requests are kept.
        dead_retention: how long given-up requests are kept.
    """

    def __init__(
        self,
        queue: Queue,
        backlog: Backlog,
        attempts: AttemptRunner,
        catalog: Catalog,
        store: QueueStore,
        clock: Clock,
        *,
        retention: timedelta,
        dead_retention: timedelta,
    ) -> None:
        self._queue = queue
        self._backlog = backlog
        self._attempts = attempts
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._retention = retention
        self._dead_retention = dead_retention
        self._under_way: dict[AppId, int] = {}  # by app
        self._requests: dict[asyncio.Task[None], LiveRequest] = {}
        self._tasks = TaskSet(log)
        self._set_aside = SetAside[AppId](clock.now)
        self._taking = True
        self._accepting: set[asyncio.Future[QueueStatus]] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set. The next controller restarts the attempts that this interrupts."""
        # Not before: the runners of an earlier controller are adopted by now, or get no request until they are.
        self._queue.start = self._start
        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(Rounds("queue", self._round).run(self._queue.requests_changed))
            await every("deleting old requests", SWEEP_SECONDS, self.sweep).run_until(stopping)
            taking.cancel()
        await self.close()

    def stop_taking(self) -> None:
        """Start nothing more, because the controller is stopping. Waiting requests wait for the next one."""
        self._taking = False
        for task, live in self._requests.items():
            if live.request.state is State.IN_QUEUE and not live.finishing:
                task.cancel()  # it waits for a runner in the dispatcher

    async def close(self) -> None:
        """Interrupt the attempts in progress; the store has them as started."""
        self.stop_taking()
        if self._accepting:
            await asyncio.wait(self._accepting, timeout=_ACCEPT_SECONDS)
        await self._tasks.close()

    def pump(self) -> None:
        """Start as many attempts as possible now."""
        if not self._taking:
            return
        for app_id in self._backlog.apps:
            if app_id in self._set_aside:
                continue
            try:
                self._take_from(app_id)
            except Exception:
                seconds = self._set_aside.add(app_id)
                log.exception("no request of app %s was taken; it is set aside for %.1f s", app_id, seconds)
            else:
                self._set_aside.remove(app_id)

    def _take_from(self, app_id: AppId) -> None:
        for live in self._backlog.overdue(app_id):
            self._spawn(self._attempts.expire(live), live)
        most = _most_at_once(self._catalog.get(app_id))
        while self._under_way.get(app_id, 0) < most:
            taken = self._backlog.take(app_id)
            if taken is None:
                break
            self._under_way[app_id] = self._under_way.get(app_id, 0) + 1
            self._backlog.set_out(app_id)
            self._spawn(self._attempt(taken, app_id), taken, app_id)

    async def _attempt(self, live: LiveRequest, app_id: AppId) -> None:
        self._backlog.arrive(app_id)
        await self._attempts.run_attempt(live)

    async def sweep(self) -> int:
        """Delete requests that are too old; return how many."""
        now = self._clock.now()
        return await self._store.forget(now - self._retention, now - self._dead_retention)

    async def _round(self) -> float | None:
        """Start the possible attempts. Return the seconds until time alone changes something, or None."""
        self.pump()
        if not self._backlog.busy:
            return None
        at = self._backlog.next_change_at()
        seconds = BUSY_SECONDS if at is None else (at - self._clock.now()).total_seconds()
        # A due time without an effect: the app already has as many attempts in progress as it may have.
        return min(seconds, BUSY_SECONDS) if seconds > 0 else BUSY_SECONDS

    def _start(self, request: QueuedRequest, content: Content) -> asyncio.Future[QueueStatus] | None:
        """Start a new request if none waits and a slot is free. Its start is then stored with it, at no cost."""
        app_id = request.app_id
        if not self._taking or self._backlog.waits(app_id) or app_id in self._set_aside:
            return None
        under_way = self._under_way.get(app_id, 0)
        if under_way >= _most_at_once(self._catalog.get(app_id)):
            return None
        placed = self._attempts.place(request)
        if placed is None:
            return None
        accepted = asyncio.get_running_loop().create_future()
        self._under_way[app_id] = under_way + 1
        task = self._spawn(self._attempts.start(placed, content, accepted), placed.live, app_id)
        self._accepting.add(accepted)
        accepted.add_done_callback(self._accepting.discard)
        task.add_done_callback(lambda _: self._tell_interrupted(placed, accepted))
        return accepted

    def _tell_interrupted(self, placed: Placed, accepted: asyncio.Future[QueueStatus]) -> None:
        """Answer the caller of a request whose storing a stop interrupted."""
        if not accepted.done():
            self._attempts.give_back(placed)
            accepted.set_exception(
                Unavailable("the controller is stopping, and the request may not be stored: submit it again")
            )

    def _spawn(
        self, work: Coroutine[None, None, None], live: LiveRequest, app_id: AppId | None = None
    ) -> asyncio.Task[None]:
        task = self._tasks.spawn(work, name=f"request {live.request.request_id}")
        self._requests[task] = live
        task.add_done_callback(lambda done: self._done(done, app_id))
        return task

    def _done(self, task: asyncio.Task[None], app_id: AppId | None) -> None:
        del self._requests[task]
        if app_id is not None:
            left = self._under_way.pop(app_id) - 1
            if left:
                self._under_way[app_id] = left
        self.pump()


def _most_at_once(app: App | None) -> int:
    """Return the most concurrent attempts of an app. A deleted app's requests all fail at once."""
    if app is None:
        return _MOST_AT_ONCE
    return min(max(app.scaling.max_concurrency, 1) * app.scaling.max_multiplexing, _MOST_AT_ONCE)
