"""The runners that have not ended: their rows, what the router knows of them, and every change to either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from fal_server.aio.tasks import run_to_completion
from fal_server.core.failures import Failures, failed_to_start
from fal_server.core.faults import Fault
from fal_server.core.health import Vitals
from fal_server.core.history import StateChange, change_between
from fal_server.core.lifecycle import Observation, step
from fal_server.core.reconcile import Usage
from fal_server.core.routing import Slot
from fal_server.core.runners import Desired, Runner, RunnerState
from fal_server.live.events import ChangeNotifier
from fal_server.live.health import Health
from fal_server.live.runner_view import Leased, RequestLease, RunnerView
from fal_server.live.start_failures import StartFailures
from fal_server.ports import Clock, Store

# After a restart, starts that failed so long ago are looked at again; no delay lasts longer, and each knows its number.
FAILURES_WITHIN = timedelta(hours=1)


def _ignore(runner: Runner) -> None:
    """For whoever does not want to be told."""


class Fleet:
    """The one place through which runners change: the store first, then memory, then whoever listens.

    Args:
        changed: notified at every change.
    """

    def __init__(self, store: Store, clock: Clock, changed: ChangeNotifier, health: Health) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed
        self._health = health
        self._lock = asyncio.Lock()
        self._runners: dict[str, Runner] = {}
        self._of_app: dict[str, dict[str, Runner]] = {}
        self._slots: dict[str, Slot] = {}
        self._open: dict[str, dict[str, Slot]] = {}
        self._leases: dict[str, dict[Leased, None]] = {}
        self._last_request_at: dict[str, datetime] = {}
        self._closed: set[str] = set()
        self._starts = StartFailures()
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
        """Read the runners that have not ended from the store, and the failures of late, at the start."""
        now = self._clock.now()
        known = await self._store.list_runners(now - FAILURES_WITHIN)
        for runner in known:
            if not runner.ended:
                self._put(runner)
                if runner.ready_at is not None:
                    # What it did before is not known: no data is no decision, so it counts as used just now.
                    self._last_request_at[runner.runner_id] = now
        self._starts.load((runner for runner in known if not runner.ephemeral), self._health.must_prove)

    @property
    def runners(self) -> list[Runner]:
        """All that have not ended, oldest first."""
        return list(self._runners.values())

    def get(self, runner_id: str) -> Runner | None:
        """A runner that has not ended, or None."""
        return self._runners.get(runner_id)

    async def find(self, runner_id: str) -> Runner | None:
        """A runner, also one that has ended, or None."""
        return self._runners.get(runner_id) or await self._store.get_runner(runner_id)

    def of_app(self, app_name: str) -> Collection[Runner]:
        """The runners of an app that have not ended, oldest first."""
        return self._of_app.get(app_name, {}).values()

    async def add(self, runners: Sequence[Runner]) -> None:
        """Add new runners."""

        async def work() -> None:
            async with self._lock:
                now = self._clock.now()
                await self._store.save_runners(runners, [c for r in runners if (c := change_between(None, r, now))])
                for runner in runners:
                    self._put(runner)
            self._changed.notify()

        await run_to_completion(work())

    async def observe(self, seen: Observation) -> Runner | None:
        """Apply an observation; the runner after it, or None where it is not known (any more)."""
        return await run_to_completion(self._observe(seen))

    async def _observe(self, seen: Observation) -> Runner | None:
        async with self._lock:
            runner = self._runners.get(seen.runner_id)
            if runner is None:
                return None
            moved = step(runner, seen, self._clock.now())
            if moved is runner:
                return runner
            failed = failed_to_start(moved) and self.usage(moved.runner_id).last_request_at is None
            if failed and not moved.ephemeral:
                moved = replace(moved, failed_starts=self._starts.with_one_more(moved))
            await self._save(runner, moved)
            self._put(moved)
        if moved.state is RunnerState.IDLE and not self._health.must_prove(moved):
            self._starts.succeeded(moved)
        if moved.routable:
            for ready in self._on_ready:
                ready(moved)
        if moved.ended:
            if moved.failed_starts and failed:
                self._starts.failed(moved, moved.ended_at or self._clock.now())
            self._starts.ended(moved.runner_id)
            if failed:
                for told in self._on_failed_start:
                    told(moved)
            for ended in self._on_ended:
                ended(moved)
        self._changed.notify()
        return moved

    async def change(self, runner_id: str, change: Callable[[Runner], Runner]) -> Runner | None:
        """Write what is wanted of a runner (never its observed state); None where it has ended.

        A runner that is no longer to serve gets no further request once this is written.
        """

        async def work() -> Runner | None:
            async with self._lock:
                runner = self._runners.get(runner_id)
                if runner is None:
                    return None
                wanted = change(runner)
                if wanted == runner:
                    return runner
                await self._save(runner, wanted)
                self._put(wanted)
            self._changed.notify()
            return wanted

        return await run_to_completion(work())

    async def _save(self, before: Runner, after: Runner) -> None:
        change = change_between(before, after, self._clock.now())
        await self._store.save_runners([after], [] if change is None else [change])

    async def history(self, runner_id: str) -> list[StateChange]:
        """What a runner went through, in order."""
        return await self._store.runner_history(runner_id)

    async def drain(self, runner_id: str, reason: str, grace_seconds: int | None = None) -> Runner | None:
        """Let a runner finish what it has, then stop it. It gets no further request from this moment on.

        Args:
            grace_seconds: what it then has to end by itself; None leaves that as it is.
        """

        def drained(runner: Runner) -> Runner:
            grace = runner.grace_seconds if grace_seconds is None else grace_seconds
            if runner.desired is not Desired.SERVE:
                return replace(runner, grace_seconds=grace)
            return replace(runner, desired=Desired.DRAIN, reason=reason, grace_seconds=grace)

        return await self._take_out(runner_id, drained)

    async def stop(self, runner_id: str, reason: str) -> Runner | None:
        """Stop a runner with its grace, without waiting for what it has."""
        return await self._take_out(
            runner_id,
            lambda r: r if r.desired is Desired.GONE else replace(r, desired=Desired.GONE, reason=reason),
        )

    async def kill(self, runner_id: str, reason: str) -> Runner | None:
        """End a runner at once."""
        return await self._take_out(
            runner_id, lambda r: r if r.kill else replace(r, desired=Desired.GONE, kill=True, reason=reason)
        )

    async def fail_start(self, runner_id: str, reason: str) -> None:
        """End a ready runner at once that never became well: a failed start, and counted as that."""
        runner = self._runners.get(runner_id)
        if runner is None or runner.desired is not Desired.SERVE:
            return
        # Counted first: whoever plans once this is written must know already that it failed.
        before = self.failures(runner.app_name, runner.revision_id)
        failed_starts = self._starts.with_one_more(runner)
        self._starts.failed(replace(runner, failed_starts=failed_starts, reason=reason), self._clock.now())
        try:
            rejected = await self._take_out(
                runner_id,
                lambda r: replace(r, desired=Desired.GONE, kill=True, reason=reason, failed_starts=failed_starts),
            )
        except Fault:
            self._starts.undo(runner, before)
            raise
        if rejected is not None:
            for failed in self._on_failed_start:
                failed(rejected)

    def record_health(self, runner_id: str, vitals: Vitals) -> None:
        """Keep what a health check showed, unless the runner has ended meanwhile.

        Passing its first check is what makes the start of such a runner a success.
        """
        runner = self._runners.get(runner_id)
        if runner is None:
            return
        if vitals.proven and not self._health.vitals(runner_id).proven:
            self._starts.succeeded(runner)
        self._health.record(runner_id, vitals)
        self._changed.notify()

    def request_health_check(self, runner_id: str) -> None:
        """Have a runner checked now, because one of its answers asked for it."""
        self.record_health(runner_id, replace(self._health.vitals(runner_id), asked=True))

    def unproven(self, app_name: str) -> frozenset[str]:
        """Return the ready runners of an app that have not passed their health check yet."""
        return frozenset(runner.runner_id for runner in self.of_app(app_name) if self._health.must_prove(runner))

    async def _take_out(self, runner_id: str, change: Callable[[Runner], Runner]) -> Runner | None:
        """Close first, so that nothing can be sent to it while this is written; open again where that fails.

        What is written says that the router has acknowledged: a runner is told to stop only after that.
        """
        closed = self.stop_routing(runner_id)
        now = self._clock.now()

        def acknowledged(runner: Runner) -> Runner:
            changed = change(runner)
            if changed.desired is Desired.SERVE or changed.unrouted_at is not None:
                return changed
            return replace(changed, unrouted_at=now)

        async def work() -> Runner | None:
            try:
                return await self.change(runner_id, acknowledged)
            except BaseException:
                if closed:
                    self._closed.discard(runner_id)
                    if (runner := self._runners.get(runner_id)) is not None:
                        self._put(runner)
                raise

        return await run_to_completion(work())

    def stop_routing(self, runner_id: str) -> bool:
        """Send a runner no further request, before anything is written; False where that was so already."""
        runner = self._runners.get(runner_id)
        if runner is None or runner_id in self._closed:
            return False
        self._closed.add(runner_id)
        self._put(runner)
        return True

    async def confirm_unrouted(self, runner_id: str) -> Runner | None:
        """Write that the router sends a runner, which is not to serve any more, no further request; closes it first."""
        return await self._take_out(runner_id, lambda r: r)

    def slots(self, app_name: str) -> Iterable[Slot]:
        """The runners of an app that may be routed to."""
        return self._open.get(app_name, {}).values()

    def begin(self, slot: Slot, lease: Leased) -> None:
        """A request goes to a runner.

        Raises:
            AssertionError: the runner is closed: it would be sent a request after that was acknowledged.
        """
        assert slot.open, f"runner {slot.runner_id} is closed"
        slot.in_flight += 1
        self._leases.setdefault(slot.runner_id, {})[lease] = None

    def end(self, slot: Slot, lease: Leased) -> bool:
        """A request has left a runner; a second time changes nothing and is False."""
        leases = self._leases.get(slot.runner_id)
        if leases is None or lease not in leases:
            return False
        del leases[lease]
        slot.in_flight -= 1
        self._last_request_at[slot.runner_id] = self._clock.now()
        if not leases and not slot.open:
            self._changed.notify()
        return True

    async def first_byte(self, runner_id: str, request_at: datetime, answer_at: datetime) -> None:
        """Keep when a runner's first request was sent to it, and when the first byte of an answer came; once."""
        await self.change(
            runner_id,
            lambda r: r if r.first_byte_at else replace(r, first_request_at=request_at, first_byte_at=answer_at),
        )

    def usage(self, runner_id: str) -> Usage:
        """What the router knows of a runner."""
        leases = self._leases.get(runner_id)
        return Usage(in_flight=len(leases) if leases else 0, last_request_at=self._last_request_at.get(runner_id))

    def in_flight(self, app_name: str, revision_id: str) -> int:
        """Requests that the serving runners of an app's revision are working on."""
        return sum(slot.in_flight for slot in self.slots(app_name) if slot.revision_id == revision_id)

    def failures(self, app_name: str, revision_id: str | None) -> Failures:
        """Starts of a revision that failed in a row."""
        return self._starts.of(app_name, revision_id)

    def forgive(self, app_name: str, revision_id: str | None = None) -> None:
        """Forget the failed starts of an app (of one revision): somebody wants it tried anew."""
        self._starts.forgive(app_name, revision_id)
        self._changed.notify()

    def active(self, app_name: str, revision_id: str | None = None) -> int:
        """How many runners of an app (of one revision) have a process that is not ending."""
        living = (RunnerState.SETUP, RunnerState.IDLE, RunnerState.DRAINING)
        return sum(r.state in living and revision_id in (None, r.revision_id) for r in self.of_app(app_name))

    async def ended_since(self, moment: datetime) -> list[Runner]:
        """Runners that ended at or after a moment, oldest first."""
        return [r for r in await self._store.list_runners(moment) if r.ended]

    def view(self, runner: Runner, keep_alive_seconds: int | None) -> RunnerView:
        """A runner with what is true of it now.

        Args:
            keep_alive_seconds: its app's keep_alive; None where a floor holds it or its app is gone.
        """
        now = self._clock.now()
        leases = tuple(map(RequestLease.of, self._leases.get(runner.runner_id, {})))
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
        runner_id = runner.runner_id
        if runner.ended:
            self._runners.pop(runner_id, None)
            self._leases.pop(runner_id, None)
            self._last_request_at.pop(runner_id, None)
            self._closed.discard(runner_id)
            self._health.forget(runner_id)
            if (mine := self._of_app.get(runner.app_name)) is not None:
                mine.pop(runner_id, None)
                if not mine:
                    del self._of_app[runner.app_name]
        else:
            self._runners[runner_id] = runner
            self._of_app.setdefault(runner.app_name, {})[runner_id] = runner
        slot = self._slots.get(runner_id)
        if runner.routable and runner.port is not None and runner_id not in self._closed:
            if slot is None:
                slot = Slot(
                    runner_id=runner_id,
                    revision_id=runner.revision_id,
                    host=runner.host,
                    port=runner.port,
                    answered=runner.first_byte_at is not None,
                )
                self._slots[runner_id] = slot
            slot.open = True
            self._open.setdefault(runner.app_name, {})[runner_id] = slot
        elif slot is not None:
            slot.open = False
            if (routed := self._open.get(runner.app_name)) is not None:
                routed.pop(runner_id, None)
                if not routed:
                    del self._open[runner.app_name]
        if runner.ended:
            self._slots.pop(runner_id, None)
