"""The runners that have not ended: their rows, what the router knows of them, and every change to either."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from fal_server.core.lifecycle import Event, Observation, step
from fal_server.core.reconcile import Usage
from fal_server.core.routing import Slot
from fal_server.core.runners import Desired, Runner, RunnerState
from fal_server.ports import Clock, Store
from fal_server.services.signal import Signal
from fal_server.services.views import RequestLease, RunnerView

# A runner that ends by itself so soon after it became ready counts as a failed start.
EARLY_END = timedelta(seconds=10)
LOOPBACK = "127.0.0.1"


def _ignore(runner: Runner) -> None:
    """For whoever does not want to be told."""


class Fleet:
    """The one place through which runners change: the store first, then memory, then whoever listens.

    Args:
        changed: notified at every change.
    """

    def __init__(self, store: Store, clock: Clock, changed: Signal) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed
        self._lock = asyncio.Lock()
        self._runners: dict[str, Runner] = {}
        self._slots: dict[str, dict[str, Slot]] = defaultdict(dict)
        self._leases: dict[str, dict[object, RequestLease]] = {}
        self._last_request_at: dict[str, datetime] = {}
        self._closed: set[str] = set()
        self._failures: dict[tuple[str, str], int] = {}
        self._on_ready: list[Callable[[Runner], None]] = []
        self._on_failed_start: list[Callable[[Runner], None]] = []
        self._on_ended: list[Callable[[Runner], None]] = []

    def subscribe(
        self,
        *,
        ready: Callable[[Runner], None] = _ignore,
        failed_start: Callable[[Runner], None] = _ignore,
        ended: Callable[[Runner], None] = _ignore,
    ) -> None:
        """Be told when a runner may be routed to, when one that was to serve failed to start, and of every end."""
        self._on_ready.append(ready)
        self._on_failed_start.append(failed_start)
        self._on_ended.append(ended)

    async def load(self) -> None:
        """Read the runners that have not ended from the store, at the start."""
        for runner in await self._store.list_runners(None):
            self._put(runner)

    @property
    def runners(self) -> Sequence[Runner]:
        """All that have not ended, oldest first."""
        return list(self._runners.values())

    def get(self, runner_id: str) -> Runner | None:
        """A runner that has not ended, or None."""
        return self._runners.get(runner_id)

    async def find(self, runner_id: str) -> Runner | None:
        """A runner, also one that has ended, or None."""
        return self._runners.get(runner_id) or await self._store.get_runner(runner_id)

    async def add(self, runners: Sequence[Runner]) -> None:
        """Add new runners."""
        async with self._lock:
            await self._store.save_runners(runners)
            for runner in runners:
                self._put(runner)
        self._changed.notify()

    async def observe(self, seen: Observation) -> Runner | None:
        """Apply an observation; the runner after it, or None where it is not known (any more)."""
        async with self._lock:
            runner = self._runners.get(seen.runner_id)
            if runner is None:
                return None
            moved = step(runner, seen, self._clock.now())
            if moved is runner:
                return runner
            await self._store.save_runners([moved])
            self._put(moved)
        self._count_failures(runner, moved)
        if moved.routable:
            for ready in self._on_ready:
                ready(moved)
        if moved.ended:
            for ended in self._on_ended:
                ended(moved)
        self._changed.notify()
        return moved

    async def change(self, runner_id: str, change: Callable[[Runner], Runner]) -> Runner | None:
        """Write what is wanted of a runner (never its observed state); None where it has ended.

        A runner that is no longer to serve gets no further request from this moment on.
        """
        async with self._lock:
            runner = self._runners.get(runner_id)
            if runner is None:
                return None
            wanted = change(runner)
            if wanted == runner:
                return runner
            await self._store.save_runners([wanted])
            self._put(wanted)
        self._changed.notify()
        return wanted

    async def drain(self, runner_id: str, reason: str) -> Runner | None:
        """Let a runner finish what it has, then stop it."""
        return await self.change(
            runner_id,
            lambda r: r if r.desired is not Desired.SERVE else replace(r, desired=Desired.DRAIN, reason=reason),
        )

    async def condemn(self, runner_id: str, reason: str) -> Runner | None:
        """End a runner at once."""
        self.close(runner_id)
        return await self.change(
            runner_id, lambda r: r if r.kill else replace(r, desired=Desired.GONE, kill=True, reason=reason)
        )

    def close(self, runner_id: str) -> None:
        """Send a runner no further request, before anything is written."""
        runner = self._runners.get(runner_id)
        if runner is None:
            return
        self._closed.add(runner_id)
        if (slot := self._slots[runner.app_name].pop(runner_id, None)) is not None:
            slot.open = False

    def slots(self, app_name: str) -> Iterable[Slot]:
        """The runners of an app that may be routed to."""
        return self._slots[app_name].values()

    def begin(self, slot: Slot, handle: object, lease: RequestLease) -> None:
        """A request goes to a runner."""
        slot.in_flight += 1
        self._leases.setdefault(slot.runner_id, {})[handle] = lease

    def end(self, slot: Slot, handle: object) -> None:
        """A request has left a runner; a second time changes nothing."""
        leases = self._leases.get(slot.runner_id)
        if leases is None or leases.pop(handle, None) is None:
            return
        slot.in_flight -= 1
        self._last_request_at[slot.runner_id] = self._clock.now()
        if not leases and not slot.open:
            self._changed.notify()

    def usage(self, runner_id: str) -> Usage:
        """What the router knows of a runner."""
        leases = self._leases.get(runner_id)
        return Usage(in_flight=len(leases) if leases else 0, last_request_at=self._last_request_at.get(runner_id))

    def in_flight(self, app_name: str) -> int:
        """Requests that serving runners of an app are working on."""
        return sum(slot.in_flight for slot in self._slots[app_name].values())

    def failures(self, app_name: str, revision_id: str | None) -> int:
        """Starts of a revision that failed in a row."""
        return self._failures.get((app_name, revision_id or ""), 0)

    def active(self, app_name: str, revision_id: str | None = None) -> int:
        """How many runners of an app (of one revision) have a process that is not ending."""
        living = (RunnerState.SETUP, RunnerState.IDLE, RunnerState.DRAINING)
        return sum(
            r.app_name == app_name and r.state in living and revision_id in (None, r.revision_id)
            for r in self._runners.values()
        )

    async def ended_since(self, moment: datetime) -> list[Runner]:
        """Runners that ended at or after a moment, oldest first."""
        return [r for r in await self._store.list_runners(moment) if r.ended]

    def view(self, runner: Runner, keep_alive_seconds: int | None) -> RunnerView:
        """A runner with what is true of it now.

        Args:
            keep_alive_seconds: its app's keep_alive; None where a floor holds it or its app is gone.
        """
        now = self._clock.now()
        leases = tuple(self._leases.get(runner.runner_id, {}).values())
        busy = bool(leases) or (runner.ephemeral and runner.port is None)
        state = RunnerState.RUNNING if runner.state is RunnerState.IDLE and busy else runner.state
        expires: int | None = None
        if state is RunnerState.IDLE and keep_alive_seconds is not None and runner.ready_at is not None:
            since = self._last_request_at.get(runner.runner_id, runner.ready_at)
            expires = max(0, round(keep_alive_seconds - (now - since).total_seconds()))
        begun = runner.started_at
        uptime = ((runner.ended_at or now) - begun).total_seconds() if begun else 0.0
        return RunnerView(
            runner=runner,
            state=state,
            in_flight=len(leases),
            expires_in_seconds=expires,
            uptime_seconds=max(0.0, uptime),
            leases=leases,
        )

    def _put(self, runner: Runner) -> None:
        slots = self._slots[runner.app_name]
        if runner.ended:
            self._runners.pop(runner.runner_id, None)
            self._leases.pop(runner.runner_id, None)
            self._last_request_at.pop(runner.runner_id, None)
            self._closed.discard(runner.runner_id)
        else:
            self._runners[runner.runner_id] = runner
        if runner.routable and runner.port is not None and runner.runner_id not in self._closed:
            if runner.runner_id not in slots:
                slots[runner.runner_id] = Slot(runner_id=runner.runner_id, host=LOOPBACK, port=runner.port)
        elif (slot := slots.pop(runner.runner_id, None)) is not None:
            slot.open = False

    def _count_failures(self, before: Runner, after: Runner) -> None:
        key = (after.app_name, after.revision_id)
        if after.state is RunnerState.IDLE:
            self._failures.pop(key, None)
            return
        if not after.ended or before.desired is not Desired.SERVE:
            return
        if after.ready_at is not None and self._clock.now() - after.ready_at >= EARLY_END:
            return
        if not after.ephemeral:
            self._failures[key] = self._failures.get(key, 0) + 1
        for failed in self._on_failed_start:
            failed(after)


def event(runner_id: str, what: Event, reason: str = "") -> Observation:
    """An observation that the controller makes itself."""
    return Observation(runner_id=runner_id, event=what, reason=reason)
