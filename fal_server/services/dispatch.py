"""Requests to runners: who gets which at once, and who waits in which order."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from fal_server.core.apps import App, AuthMode
from fal_server.core.autoscale import Load
from fal_server.core.faults import DeadlinePassed, NotFound, Unavailable
from fal_server.core.routing import Outcome, Slot, pick
from fal_server.core.runners import Runner, RunnerState
from fal_server.ports import Clock
from fal_server.services.catalog import Catalog
from fal_server.services.fleet import Fleet
from fal_server.services.signal import Signal
from fal_server.services.views import RequestLease


_CONDEMNED: dict[Outcome, str] = {
    Outcome.RUNNER_FAILED: "it broke a connection or answered 503",
    Outcome.TIMED_OUT: "a request outlived request_timeout",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedApp:
    """What the gateway must know of an app; times in seconds."""

    name: str
    public: bool
    request_timeout: int
    request_start_timeout: int | None


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """A request's right to one place on one runner, until it is released."""

    runner_id: str
    host: str
    port: int
    slot: Slot


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiter:
    request: RequestLease
    hint: str | None
    future: asyncio.Future[Lease] = field(repr=False)


class Dispatcher:
    """Gives requests places on runners; the only one who does, so its counts are the truth.

    Args:
        owner: the account's name, the first part of every app's path.
        changed: notified where the number of runners may have to change.
    """

    def __init__(self, catalog: Catalog, fleet: Fleet, clock: Clock, changed: Signal, owner: str) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._clock = clock
        self._changed = changed
        self._owner = owner
        self._waiting: dict[str, deque[_Waiter]] = defaultdict(deque)
        self._tasks: set[asyncio.Task[object]] = set()
        fleet.subscribe(ready=self._serve_waiting_of, failed_start=self._fail_waiting_of)

    def find(self, owner: str, app: str) -> RoutedApp | None:
        """The app at /owner/app, or None."""
        known = self._catalog.get(app) if owner == self._owner else None
        if known is None:
            return None
        return RoutedApp(
            name=known.name,
            public=known.auth_mode is AuthMode.PUBLIC,
            request_timeout=known.scaling.request_timeout,
            request_start_timeout=known.scaling.request_start_timeout,
        )

    def load(self, app: App) -> Load:
        """What an app has to do now."""
        waiting = self._waiting.get(app.name, ())
        ripe_before = self._clock.now() - timedelta(seconds=app.scaling.scaling_delay)
        return Load(
            in_flight=self._fleet.in_flight(app.name),
            queued=len(waiting),
            ripe=sum(w.request.started_at <= ripe_before for w in waiting),
        )

    @property
    def busy(self) -> bool:
        """Whether any request waits for a runner."""
        return any(self._waiting.values())

    def try_acquire(self, app_name: str, *, request_id: str, caller: str | None, hint: str | None) -> Lease | None:
        """A place right now, without waiting; None where there is none or others wait already."""
        app = self._catalog.get(app_name)
        if app is None or self._waiting.get(app_name):
            return None
        request = RequestLease(request_id=request_id, caller=caller, started_at=self._clock.now())
        return self._place(app, request, hint)

    async def acquire(
        self, app_name: str, *, request_id: str, caller: str | None, hint: str | None, start_timeout: float | None
    ) -> Lease:
        """A place, as soon as there is one; first come, first served. Cancelling gives the place in the line up.

        Args:
            app_name: the app's full name.
            request_id: shown beside the runner while the request runs.
            caller: the key that called; None for a public call.
            hint: runners that are warm for this word are preferred.
            start_timeout: seconds to wait at the most; None waits as long as it takes.

        Raises:
            NotFound: the app is not there, or was deleted while the request waited.
            DeadlinePassed: no runner had room in time.
            Unavailable: the app's runners fail to start; the message says why.
        """
        if (lease := self.try_acquire(app_name, request_id=request_id, caller=caller, hint=hint)) is not None:
            return lease
        app = self._catalog.get(app_name)
        if app is None:
            raise NotFound(f"there is no app {app_name!r}")
        revision = self._catalog.known_revision(app.revision_id)
        if revision is not None and not revision.serves_http:
            raise NotFound(f"app {app_name!r} is a function without a port: it cannot be called over HTTP")
        request = RequestLease(request_id=request_id, caller=caller, started_at=self._clock.now())
        waiter = _Waiter(request=request, hint=hint, future=asyncio.get_running_loop().create_future())
        self._waiting[app_name].append(waiter)
        self._serve_waiting(app_name)
        self._changed.notify()
        try:
            async with asyncio.timeout(start_timeout):
                return await waiter.future
        except TimeoutError:
            raise DeadlinePassed(f"no runner of {app_name!r} took the request within {start_timeout:g} s") from None
        finally:
            if waiter in self._waiting[app_name]:
                self._waiting[app_name].remove(waiter)
                self._changed.notify()
            elif waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._give_back_if_unused(waiter)

    def release(self, lease: Lease, outcome: Outcome) -> None:
        """The request has left the runner; a second time changes nothing."""
        self._fleet.end(lease.slot, lease)
        if outcome in _CONDEMNED:
            self._spawn(lease.runner_id, _CONDEMNED[outcome], kill=True)
        elif outcome is Outcome.STOP_RUNNER:
            self._spawn(lease.runner_id, "the app asked for it (x-fal-stop-runner)", kill=False)
        runner = self._fleet.get(lease.runner_id)
        if runner is not None:
            self._serve_waiting(runner.app_name)

    def drop_app(self, app_name: str) -> None:
        """The app was deleted: whoever waits for it is told."""
        self._fail(app_name, lambda: NotFound(f"app {app_name!r} was deleted"))

    def give_up(self, app_name: str, reason: str) -> None:
        """No runner of the app can come: whoever waits for one is told why."""
        self._fail(app_name, lambda: Unavailable(f"no runner of {app_name!r} can start here: {reason}"))

    async def close(self) -> None:
        """Turn away whoever waits, and finish what was begun."""
        for app_name in list(self._waiting):
            self._fail(app_name, lambda: Unavailable("the controller is stopping"))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _place(self, app: App, request: RequestLease, hint: str | None) -> Lease | None:
        slot = pick(self._fleet.slots(app.name), app.scaling.max_multiplexing, hint)
        if slot is None:
            return None
        lease = Lease(runner_id=slot.runner_id, host=slot.host, port=slot.port, slot=slot)
        self._fleet.begin(slot, lease, request)
        return lease

    def _serve_waiting_of(self, runner: Runner) -> None:
        self._serve_waiting(runner.app_name)

    def _serve_waiting(self, app_name: str) -> None:
        line = self._waiting.get(app_name)
        app = self._catalog.get(app_name)
        while line and app is not None:
            waiter = line[0]
            if waiter.future.done():
                line.popleft()
                continue
            lease = self._place(app, waiter.request, waiter.hint)
            if lease is None:
                return
            line.popleft()
            waiter.future.set_result(lease)

    def _give_back_if_unused(self, waiter: _Waiter) -> None:
        """The place came in the same moment in which the caller left: it never used it."""
        if (task := asyncio.current_task()) is not None and task.cancelling():
            self.release(waiter.future.result(), Outcome.DONE)

    def _fail_waiting_of(self, runner: Runner) -> None:
        """A start failed: direct calls are told, unless another runner of the app is there or on its way."""
        hopeful = (RunnerState.SETUP, RunnerState.IDLE)
        others = [r for r in self._fleet.runners if r.app_name == runner.app_name and r.state in hopeful]
        if not others:
            words = (
                f"a runner of {runner.app_name!r} failed to start: {runner.reason}. "
                f"`fal runners logs {runner.runner_id}` shows what it said"
            )
            self._fail(runner.app_name, lambda: Unavailable(words))

    def _fail(self, app_name: str, fault: Callable[[], Exception]) -> None:
        for waiter in self._waiting.pop(app_name, ()):
            if not waiter.future.done():
                waiter.future.set_exception(fault())

    def _spawn(self, runner_id: str, reason: str, *, kill: bool) -> None:
        self._fleet.close(runner_id)
        change = self._fleet.condemn(runner_id, reason) if kill else self._fleet.drain(runner_id, reason)
        task = asyncio.get_running_loop().create_task(change, name=f"end runner {runner_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
