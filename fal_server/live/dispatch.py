"""Assigns requests to runner slots; the rest wait in order of arrival."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

from fal_server.aio.retry import until_stored
from fal_server.aio.tasks import TaskSet
from fal_server.core.addresses import RunnerAddress
from fal_server.core.apps import App, AuthMode
from fal_server.core.autoscale import Load
from fal_server.core.faults import DeadlineExceeded, Fault, NotFound, StartDelayed, StartTimedOut, Unavailable
from fal_server.core.identity import EVERY_ACCOUNT, AccountId, AppId
from fal_server.core.reconcile import failure_delay
from fal_server.core.routing import Outcome, Slot, parse_hints
from fal_server.core.runners import Desired, Runner, RunnerState, StopCause
from fal_server.live.backlog import Backlog
from fal_server.live.catalog import Catalog
from fal_server.live.delays import Delays
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.ports import Clock

log = logging.getLogger(__name__)
# How long to wait for the end of a runner that broke a connection; it is killed meanwhile.
_END_SECONDS = 10.0
# The reason and the cause of a runner's kill; people also see the request's id.
_KILLED: dict[Outcome, tuple[str, StopCause | None]] = {
    Outcome.RUNNER_FAILED: ("it broke the connection of {}", StopCause.BROKE_CONNECTION),
    Outcome.UNAVAILABLE: ("it answered 503 to {}", StopCause.UNAVAILABLE),
    Outcome.TIMED_OUT: ("{} outlived request_timeout", None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerFailure:
    """The fate of a runner that broke a request's connection.

    Value: it never changes.

    Attributes:
        detail: for the caller: how the runner ended, or else how the connection broke.
        ended_alone: whether it ended by itself, while it worked on no other request.
    """

    detail: str
    ended_alone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedApp:
    """The gateway's view of an app; durations in seconds.

    Cache: made from the catalog.
    """

    app_id: AppId
    public: bool
    request_timeout: int
    request_start_timeout: int | None


NOWHERE = RoutedApp(
    app_id=AppId(account=AccountId(""), environment="", name=""),
    public=False,
    request_timeout=0,
    request_start_timeout=None,
)
"""Stands for a path without an app: private and nobody's, so that it is answered like another account's app."""


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """A request's right to one slot of a runner until its release.

    Counted: the dispatcher hands each out and takes it back once.

    Attributes:
        caller: the id of the caller's key; None for a call without one.
        sent_at: when the slot was assigned.
        cold_start: whether the request waited for the runner to start.
    """

    runner_id: str
    slot: Slot
    request_id: str
    caller: str | None
    sent_at: datetime
    cold_start: bool = False

    @property
    def address(self) -> RunnerAddress:
        """The address of its runner's app."""
        return self.slot.address


@dataclass(slots=True, kw_only=True, eq=False)
class _WaitingRequest:
    """A request that waits for a slot.

    Owned: by the process that holds its connection.
    """

    request_id: str
    caller: str | None
    since: datetime
    hint: str | None
    future: asyncio.Future[Lease] = field(repr=False)


class Dispatcher:
    """Assigns runner slots to requests. Nothing else does, so its counts are right.

    Counted: slots in use, through the fleet. Owned: the waiting requests, by the process that holds their connections.

    Args:
        backlog: queued requests, which are part of an app's load.
        accounts: by name, which is the first part of the paths of an account's apps.
        changed: notified when the number of runners may have to change.
        node_answers: asks the node of a runner on another machine whether it answers; returns None for this machine.
        is_owner: whether no other controller can have taken over; while it returns False, requests wait.

    Attributes:
        on_abandoned: takes over slots whose callers have left, because the app may still work on their requests, and
            releases them later; None releases them at once.
    """

    def __init__(
        self,
        catalog: Catalog,
        fleet: Fleet,
        backlog: Backlog,
        clock: Clock,
        changed: ChangeNotifier,
        accounts: Mapping[str, AccountId],
        *,
        node_answers: Callable[[Runner], Awaitable[bool] | None] = lambda _: None,
        is_owner: Callable[[], bool] = lambda: True,
    ) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._delays = Delays(catalog, fleet, clock)
        self._backlog = backlog
        self._clock = clock
        self._changed = changed
        self._accounts = accounts
        self._waiting: dict[AppId, deque[_WaitingRequest]] = defaultdict(deque)
        self._tasks = TaskSet(log)
        self._closing = asyncio.Event()
        self._routed: dict[tuple[str, str], tuple[App, RoutedApp]] = {}
        self._ends: dict[str, list[asyncio.Future[Runner | None]]] = {}
        self.on_abandoned: Callable[[Lease], None] | None = None
        self._node_answers = node_answers
        self._is_owner = is_owner
        fleet.subscribe(ready=self._serve_waiting_of, failed_start=self._fail_waiting_of, ended=self._tell_end)

    def find(self, owner: str, app: str) -> RoutedApp | None:
        """Return the app at /owner/app, or None."""
        before = self._routed.get((owner, app))
        if before is not None and self._catalog.get(before[1].app_id) is before[0]:
            return before[1]
        account = self._accounts.get(owner)
        known = None if account is None else self._catalog.get(AppId.parse(account, app))
        if known is None:
            self._routed.pop((owner, app), None)
            return None
        routed = RoutedApp(
            app_id=known.app_id,
            public=known.auth_mode is AuthMode.PUBLIC,
            request_timeout=known.scaling.request_timeout,
            request_start_timeout=known.scaling.request_start_timeout,
        )
        self._routed[owner, app] = (known, routed)
        return routed

    def load(self, app: App) -> Load:
        """Return an app's current load."""
        waiting = self._waiting.get(app.app_id, ())
        queued, delay = self._backlog.load(app), app.scaling.scaling_delay
        eligible = len(waiting)
        if waiting and delay:  # without a delay, the usual case, do not look at each request
            eligible_before = self._clock.now() - timedelta(seconds=delay)
            eligible = sum(w.since <= eligible_before for w in waiting)
        return Load(
            in_flight=self._fleet.in_flight(app.app_id, app.revision_id),
            queued=len(waiting) + queued.queued,
            eligible=eligible + queued.eligible,
        )

    @property
    def waiting_apps(self) -> set[AppId]:
        """The apps for which requests wait, including queued ones."""
        return {*(app_id for app_id, line in self._waiting.items() if line), *self._backlog.apps}

    @property
    def busy(self) -> bool:
        """Whether any request waits for a runner."""
        return bool(self.waiting_apps)

    def try_acquire(self, app_id: AppId, *, request_id: str, caller: str | None, hint: str | None) -> Lease | None:
        """Return a lease at once. None if no slot is free or other requests already wait."""
        app = self._catalog.get(app_id)
        if app is None or self._waiting.get(app_id):
            return None
        return self._place(app, request_id, caller, hint)

    async def acquire(
        self,
        app_id: AppId,
        *,
        request_id: str,
        caller: str | None,
        hint: str | None,
        start_timeout: float | None,
        since: datetime | None = None,
        patient: bool = False,
    ) -> Lease:
        """Wait for a slot, first come, first served. Cancelling gives up the position.

        Args:
            app_id: the app.
            request_id: shown with the runner while the request runs.
            caller: the id of the caller's key; None for a call without one.
            hint: prefer runners with this hint.
            start_timeout: the most seconds to wait; None sets no limit.
            since: when the request started to wait elsewhere; None means now.
            patient: also wait if failed starts delay the next one beyond the time limit, or if there is no limit.

        Raises:
            NotFound: there is no such app, or it was deleted while the request waited.
            DeadlineExceeded: no runner had a free slot in time.
            StartDelayed: starts failed, and the next one is delayed; the message says why and how long.
            Unavailable: the app's runners fail to start; the message says why.
        """
        at_once = self.try_acquire(app_id, request_id=request_id, caller=caller, hint=hint)
        if at_once is not None:
            at_once.cold_start = since is not None and self._started_since(at_once.runner_id, since)
            return at_once
        app = self._catalog.get(app_id)
        if app is None:
            raise NotFound(f"app {str(app_id)!r}", "`fal apps list` shows which exist")
        revision = self._catalog.known_revision(app.revision_id)
        if revision is not None and not revision.serves_http:
            raise NotFound(f"port of app {str(app_id)!r}", "a function without a port cannot be called over HTTP")
        if app.scaling.max_concurrency == 0 and self._fleet.places(app.app_id, app.revision_id) is None:
            raise Unavailable(f"app {str(app_id)!r} is paused: `fal apps scale {app_id} --max-concurrency 1` wakes it")
        delayed = None if patient else self._start_delayed(app)
        if delayed is not None and (start_timeout is None or delayed.retry_after_seconds > start_timeout):
            raise delayed
        waiter = _WaitingRequest(
            request_id=request_id,
            caller=caller,
            since=since or self._clock.now(),
            hint=hint,
            future=asyncio.get_running_loop().create_future(),
        )
        self._waiting[app_id].append(waiter)
        self._serve_waiting(app_id)
        self._changed.notify()
        lease: Lease | None = None
        try:
            async with asyncio.timeout(start_timeout):
                lease = await waiter.future
                return lease
        except TimeoutError:
            raise (None if patient else self._start_delayed(app)) or DeadlineExceeded(
                self._delays.not_in_time(app_id, start_timeout or 0.0)
            ) from None
        finally:
            if lease is None:
                self._withdraw(app_id, waiter)

    def hold(self, runner_id: str, count: int) -> list[Lease]:
        """Take slots for requests that an earlier controller sent to a runner."""
        slot = self._fleet.slot(runner_id)
        if slot is None:
            return []
        now = self._clock.now()
        leases = [
            Lease(
                runner_id=runner_id,
                slot=slot,
                request_id="",
                caller=None,
                sent_at=now,
            )
            for _ in range(count)
        ]
        for lease in leases:
            self._fleet.begin(slot, lease)
        return leases

    def send(self, lease: Lease) -> bool:
        """Note that a request is sent now. Return whether it still has its slot."""
        lease.sent_at = self._clock.now()
        return self._fleet.holds(lease.slot, lease)

    def release(self, lease: Lease, outcome: Outcome) -> None:
        """Take back a slot, because its request has left the runner. A second call changes nothing."""
        if not self._fleet.holds(lease.slot, lease):
            return
        if outcome is Outcome.CLIENT_GONE and self.on_abandoned is not None and lease.slot.open:
            self.on_abandoned(lease)
            return
        if outcome is Outcome.RUNNER_FAILED and (runner := self._fleet.get(lease.runner_id)) is not None:
            asked = self._node_answers(runner)
            if asked is not None:
                self._tasks.spawn(self._blame(lease, asked), name=f"the node of runner {lease.runner_id}")
                return
        self._end_lease(lease, outcome)

    async def _blame(self, lease: Lease, asked: Awaitable[bool]) -> None:
        """Blame a runner for a broken connection only if its node answers. Otherwise the way to it broke.

        In that case the runner may still work on the request, as on one whose caller has left.
        """
        if await asked:
            if self._fleet.holds(lease.slot, lease):
                self._end_lease(lease, Outcome.RUNNER_FAILED)
            return
        for ended in self._ends.get(lease.runner_id, ()):
            if not ended.done():
                ended.set_result(None)
        if self.on_abandoned is not None and self._fleet.holds(lease.slot, lease):
            self.on_abandoned(lease)
        else:
            self.release(lease, Outcome.DONE)

    def _end_lease(self, lease: Lease, outcome: Outcome) -> None:
        if outcome in _KILLED and lease.slot.in_flight > 1:
            lease.slot.shared = True
        self._fleet.end(lease.slot, lease, used=outcome is not Outcome.UNUSED)
        if outcome in (Outcome.DONE, Outcome.UNUSED):
            pass
        elif outcome in _KILLED:
            request = f"request {lease.request_id}" if lease.request_id else "a request"
            reason, cause = _KILLED[outcome]
            self._spawn_end(
                lease.runner_id, reason.format(request), lambda runner_id, why: self._fleet.kill(runner_id, why, cause)
            )
        elif outcome is Outcome.STOP_RUNNER:
            self._spawn_end(lease.runner_id, "the app asked for it (x-fal-stop-runner)", self._fleet.drain)
        if self._waiting and (runner := self._fleet.get(lease.runner_id)) is not None:
            self._serve_waiting(runner.app_id)

    def runner_failed(self, lease: Lease, detail: str) -> asyncio.Task[RunnerFailure]:
        """Take back the slot of a request whose connection broke. Then find out how its runner ended.

        Args:
            detail: how the connection broke.
        """
        ended: asyncio.Future[Runner | None] = asyncio.get_running_loop().create_future()
        self._ends.setdefault(lease.runner_id, []).append(ended)
        self.release(lease, Outcome.RUNNER_FAILED)
        return self._tasks.spawn(self._failure(lease, detail, ended), name=f"the end of runner {lease.runner_id}")

    async def _failure(self, lease: Lease, detail: str, ended: asyncio.Future[Runner | None]) -> RunnerFailure:
        try:
            runner = await self._end_of(lease.runner_id, ended)
        finally:
            waiting = self._ends[lease.runner_id]
            waiting.remove(ended)
            if not waiting:
                del self._ends[lease.runner_id]
        if runner is None or not runner.own_end:
            return RunnerFailure(detail=detail, ended_alone=False)
        return RunnerFailure(detail=_end_in_request(runner), ended_alone=not lease.slot.shared)

    async def _end_of(self, runner_id: str, ended: asyncio.Future[Runner | None]) -> Runner | None:
        """Wait for the end of a runner. Return None if that takes too long or cannot be read."""
        try:
            if self._fleet.get(runner_id) is None:
                return await self._fleet.find(EVERY_ACCOUNT, runner_id)
            async with asyncio.timeout(_END_SECONDS):
                return await ended
        except TimeoutError:
            log.warning("runner %s broke a connection, and has not ended after %g s", runner_id, _END_SECONDS)
        except Fault as fault:
            log.warning("how runner %s ended cannot be read: %s", runner_id, fault.message)
        return None

    def _tell_end(self, runner: Runner) -> None:
        for ended in self._ends.get(runner.runner_id, ()):
            if not ended.done():
                ended.set_result(runner)

    def answered(self, lease: Lease, hints: str | None, *, health_check: bool = False) -> None:
        """Handle the head of a response; before `release`.

        Args:
            hints: its X-Fal-Runner-Hints; None if it has none, which changes nothing.
            health_check: whether it asks for a health check of the runner (X-Fal-Runner-Health-Check).
        """
        slot = lease.slot
        if hints is not None:
            slot.warm_for(parse_hints(hints))
        if health_check:
            self._fleet.request_health_check(lease.runner_id)
        if not slot.answered:
            slot.answered = True
            self._tasks.spawn(self._first_byte(lease, self._clock.now()), name=f"first byte of {lease.runner_id}")

    async def confirm_unrouted(self, runner_id: str) -> None:
        """Confirm that a runner gets no further requests. The runner should no longer serve."""
        await self._fleet.confirm_unrouted(runner_id)

    def serve_waiting(self) -> None:
        """Serve all waiting requests again. An app may have moved, been scaled or been deleted."""
        for app_id in list(self._waiting):
            self._serve_waiting(app_id)

    def drop_app(self, app_id: AppId) -> None:
        """Fail the requests that wait for a deleted app."""
        self._fail(app_id, lambda: NotFound(f"app {str(app_id)!r}", "it was deleted"))

    def give_up(self, app_id: AppId, reason: str) -> None:
        """Fail the waiting requests of an app whose runners cannot start. It does nothing if one serves or starts."""
        if any(_serves(runner) for runner in self._fleet.of_app(app_id)):
            return
        self._fail(app_id, lambda: Unavailable(f"no runner of {str(app_id)!r} can start here: {reason}"))

    async def close(self) -> None:
        """Fail every waiting request, and finish writing which runners should end."""
        self._closing.set()
        for ended in [ended for waiting in self._ends.values() for ended in waiting if not ended.done()]:
            ended.set_result(None)
        for app_id in list(self._waiting):
            self._fail(app_id, lambda: Unavailable("the controller is stopping"))
        self._changed.notify()
        await self._tasks.wait()

    def _place(self, app: App, request_id: str, caller: str | None, hint: str | None) -> Lease | None:
        if not self._is_owner():
            return None
        places = self._fleet.places(app.app_id, app.revision_id)
        slot = None if places is None else places.choose(app.scaling.max_multiplexing, hint)
        if slot is None:
            return None
        now = self._clock.now()
        lease = Lease(
            runner_id=slot.runner_id,
            slot=slot,
            request_id=request_id,
            caller=caller,
            sent_at=now,
        )
        self._fleet.begin(slot, lease)
        return lease

    def _withdraw(self, app_id: AppId, waiter: _WaitingRequest) -> None:
        """Remove a waiting request. If it got a slot at the same time, pass that on."""
        line = self._waiting.get(app_id)
        if line is not None and waiter in line:
            line.remove(waiter)
            self._forget_empty(app_id)
            self._changed.notify()
        future = waiter.future
        if future.done() and not future.cancelled() and future.exception() is None:
            self.release(future.result(), Outcome.DONE)

    def _forget_empty(self, app_id: AppId) -> None:
        if not self._waiting.get(app_id):
            self._waiting.pop(app_id, None)

    def _serve_waiting_of(self, runner: Runner) -> None:
        self._serve_waiting(runner.app_id)

    def _serve_waiting(self, app_id: AppId) -> None:
        line = self._waiting.get(app_id)
        if line is None:
            return
        app = self._catalog.get(app_id)
        if app is None:
            self.drop_app(app_id)
            return
        while line:
            waiter = line[0]
            if not waiter.future.done():
                lease = self._place(app, waiter.request_id, waiter.caller, waiter.hint)
                if lease is None:
                    return
                lease.cold_start = self._started_since(lease.runner_id, waiter.since)
                waiter.future.set_result(lease)
            line.popleft()
        self._forget_empty(app_id)

    def _started_since(self, runner_id: str, at: datetime) -> bool:
        runner = self._fleet.get(runner_id)
        return runner is not None and runner.ready_at is not None and runner.ready_at >= at

    def _start_delayed(self, app: App) -> StartDelayed | None:
        """Return the error for a request that waits for a delayed start. None if another runner may serve it."""
        failures = self._fleet.failures(app.app_id, app.revision_id)
        if not failures.count or any(_may_serve_soon(runner) for runner in self._fleet.of_app(app.app_id)):
            return None
        now = self._clock.now()
        seconds = ceil(((failures.at or now) + failure_delay(failures.count) - now).total_seconds())
        if seconds <= 0:
            return None
        starts = "the last start failed" if failures.count == 1 else f"the last {failures.count} starts failed"
        logs = f"; `fal runners logs {failures.runner_id}` shows what it wrote" if failures.runner_id else ""
        return StartDelayed(
            f"no runner of {str(app.app_id)!r} serves: {starts}: {failures.reason or 'no reason is known'}{logs}. The "
            f"next start is tried in {seconds} s",
            retry_after_seconds=seconds,
        )

    def _fail_waiting_of(self, runner: Runner) -> None:
        """Fail an app's waiting requests after a failed start. It does nothing if another runner serves or starts."""
        app = self._catalog.get(runner.app_id)
        if app is None or runner.revision_id != app.revision_id:
            return
        if not any(_may_serve_soon(other) for other in self._fleet.of_app(runner.app_id)):
            message = (
                f"a runner of {str(runner.app_id)!r} failed to start: {runner.reason or 'it gave no reason'}. "
                f"`fal runners logs {runner.runner_id}` shows what it wrote"
            )
            if runner.stop_cause is StopCause.STARTUP_TIMEOUT:
                self._fail(runner.app_id, lambda: StartTimedOut(message))
                return
            seconds = ceil(failure_delay(runner.failed_starts).total_seconds())
            self._fail(runner.app_id, lambda: StartDelayed(message, retry_after_seconds=seconds))

    def _fail(self, app_id: AppId, fault: Callable[[], Exception]) -> None:
        for waiter in self._waiting.pop(app_id, ()):
            if not waiter.future.done():
                waiter.future.set_exception(fault())

    def _spawn_end(self, runner_id: str, reason: str, end: Callable[[str, str], Awaitable[Runner | None]]) -> None:
        """End a runner in the background. It gets no request meanwhile, however long the write takes."""
        self._fleet.stop_routing(runner_id)
        runner = self._fleet.get(runner_id)
        if runner is not None and runner.desired is Desired.GONE:
            reason = runner.reason  # it is already ending, and that breaks its connections
        what = f"the end of runner {runner_id} ({reason})"
        write = until_stored(what, lambda: end(runner_id, reason), stopping=self._closing, unforeseen=lambda: None)
        self._tasks.spawn(write, name=what)

    async def _first_byte(self, lease: Lease, at: datetime) -> None:
        try:
            await self._fleet.first_byte(lease.runner_id, lease.sent_at, at)
        except Fault as fault:
            log.warning("the first answer of runner %s is not kept: %s", lease.runner_id, fault.message)


def _end_in_request(runner: Runner) -> str:
    """Return how a runner ended, for the caller of its request."""
    did, _, cause = runner.own_end.removeprefix("worker ").partition(": ")
    did = did.replace("exited with code", "ended with exit code").partition(",")[0]
    cause = f": {cause}" if cause else ""
    logs = f"`fal runners logs {runner.runner_id}` shows what it wrote"
    return f"the runner {did} while it worked on this request{cause}. {logs}"


def _serves(runner: Runner) -> bool:
    """Return whether a runner serves or is starting."""
    serving = (RunnerState.DOCKER_PULL, RunnerState.SETUP, RunnerState.IDLE)
    return runner.desired is Desired.SERVE and runner.state in serving


def _may_serve_soon(runner: Runner) -> bool:
    """Return whether a runner serves, is starting, or can start without delay."""
    waits = runner.state is RunnerState.PENDING and runner.not_before is None
    return _serves(runner) or (waits and runner.desired is Desired.SERVE)
