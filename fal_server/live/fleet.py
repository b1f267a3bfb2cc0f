"""Runners that have not ended, with their routing state. Nothing else writes runner rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain

from fal_server.aio.tasks import run_to_completion
from fal_server.core.failures import Failures, failed_to_start
from fal_server.core.faults import Fault
from fal_server.core.health import Vitals
from fal_server.core.history import StateChange, change_between
from fal_server.core.identity import EVERY_ACCOUNT, AccountId, Accounts, AppId, within
from fal_server.core.lifecycle import Observation, step
from fal_server.core.reconcile import Usage
from fal_server.core.routing import OpenSlots, Slot
from fal_server.core.runners import Desired, Runner, RunnerState, StopCause
from fal_server.live.events import ChangeNotifier
from fal_server.live.health import Health
from fal_server.live.runner_view import Leased, RequestLease, RunnerView
from fal_server.live.start_failures import StartFailures
from fal_server.ports import Clock, Store

# How far back a restart looks for failed starts; no delay lasts longer, and each row has its count.
FAILURES_WITHIN = timedelta(hours=1)


def _ignore(runner: Runner) -> None:
    """Ignore an event."""


class Fleet:
    """Holds the runners and changes them. The store comes first, then memory, then subscribers.

    Owned: one owner changes a runner's row. Counted: the leases are the slots in use, and a lost count would send a
    runner more requests than it takes. The rest is a cache that `load` rebuilds.

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
        self._of_app: dict[AppId, dict[str, Runner]] = {}
        self._slots: dict[str, Slot] = {}
        self._open: dict[AppId, dict[str, OpenSlots]] = {}
        self._leases: dict[str, dict[Leased, None]] = {}
        self._last_request_at: dict[str, datetime] = {}
        self._unrouted: set[str] = set()
        self._silent_nodes: set[str] = set()
        self._withheld: set[str] = set()
        # Since the last call of `take_touched`: the changed apps, and the runners whose requests changed.
        self._touched: set[AppId] = set()
        self._used: set[str] = set()
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
        """Call back when a runner becomes routable, fails to start, or ends. Only a wanted runner counts as failed."""
        self._on_ready.append(ready)
        self._on_failed_start.append(failed_start)
        self._on_ended.append(ended)

    async def load(self) -> None:
        """Read the living runners and the latest failed starts, once at startup."""
        now = self._clock.now()
        known = await self._store.list_runners(EVERY_ACCOUNT, now - FAILURES_WITHIN)
        for runner in known:
            if not runner.ended:
                self._put(runner)
                if runner.ready_at is not None:
                    # The last use is unknown: count it as used now, so that it is not scaled down for that reason.
                    self._last_request_at[runner.runner_id] = now
        self._starts.load((runner for runner in known if not runner.ephemeral), self._health.must_prove)

    def take_touched(self) -> set[AppId]:
        """Return the apps with changes that matter to a plan. It covers those since the last call."""
        touched, self._touched = self._touched, set()
        used, self._used = self._used, set()
        touched.update(runner.app_id for i in used if (runner := self._runners.get(i)) is not None)
        return touched

    @property
    def empty(self) -> bool:
        """Whether all runners have ended."""
        return not self._runners

    @property
    def runners(self) -> list[Runner]:
        """The runners of every account that have not ended, oldest first."""
        return list(self._runners.values())

    def of_account(self, account: AccountId) -> list[Runner]:
        """Return an account's runners that have not ended, oldest first."""
        return [runner for runner in self._runners.values() if runner.account == account]

    def get(self, runner_id: str) -> Runner | None:
        """Return a runner that has not ended, or None."""
        return self._runners.get(runner_id)

    def account_of(self, runner_id: str) -> AccountId | None:
        """Return the account of a runner that has not ended, or None."""
        runner = self._runners.get(runner_id)
        return None if runner is None else runner.account

    async def find(self, account: Accounts, runner_id: str) -> Runner | None:
        """Return a runner, even an ended one, or None."""
        runner = self._runners.get(runner_id)
        if runner is None:
            return await self._store.get_runner(account, runner_id)
        return runner if within(account, runner.account) else None

    def of_app(self, app_id: AppId) -> Collection[Runner]:
        """Return the runners of an app that have not ended, oldest first."""
        return self._of_app.get(app_id, {}).values()

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
        """Apply an observation and return the runner. None if it is unknown or has ended."""
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
        if moved.state is not runner.state:
            self._tell(moved, failed=failed)
        self._changed.notify()
        return moved

    def _tell(self, moved: Runner, *, failed: bool) -> None:
        """Tell of a new state, after it has been stored."""
        self._touched.add(moved.app_id)
        if moved.state is RunnerState.IDLE and not self._health.must_prove(moved):
            self._starts.succeeded(moved)
        self._tell_routable(moved)
        if moved.ended:
            if moved.failed_starts and failed:
                self._starts.failed(moved, moved.ended_at or self._clock.now())
            self._starts.ended(moved.runner_id)
            if failed:
                for failed_start in self._on_failed_start:
                    failed_start(moved)
            for ended in self._on_ended:
                ended(moved)

    async def change(self, runner_id: str, change: Callable[[Runner], Runner]) -> Runner | None:
        """Change a runner's desired state, never its observed one. None if it has ended.

        A runner that should no longer serve gets no further requests once this is written.
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

    async def history(self, account: Accounts, runner_id: str) -> list[StateChange]:
        """Return the state changes of a runner, in order."""
        return await self._store.runner_history(account, runner_id)

    async def drain(self, runner_id: str, reason: str, grace_seconds: int | None = None) -> Runner | None:
        """Send a runner no further requests. Stop it after its current ones.

        Args:
            grace_seconds: how long it may then take to end by itself; None keeps its setting.
        """

        def drained(runner: Runner) -> Runner:
            grace = runner.grace_seconds if grace_seconds is None else grace_seconds
            if runner.desired is not Desired.SERVE:
                return replace(runner, grace_seconds=grace)
            return replace(runner, desired=Desired.DRAIN, reason=reason, grace_seconds=grace)

        return await self._take_out(runner_id, drained)

    async def stop(self, runner_id: str, reason: str) -> Runner | None:
        """Stop a runner with its grace, without waiting for its requests."""
        return await self._take_out(
            runner_id,
            lambda r: r if r.desired is Desired.GONE else replace(r, desired=Desired.GONE, reason=reason),
        )

    async def kill(self, runner_id: str, reason: str, cause: StopCause | None = None) -> Runner | None:
        """Kill a runner."""

        def killed(runner: Runner) -> Runner:
            if runner.kill:
                return runner
            return replace(
                runner, desired=Desired.GONE, kill=True, reason=reason, stop_cause=cause or runner.stop_cause
            )

        return await self._take_out(runner_id, killed)

    async def fail_start(self, runner_id: str, reason: str) -> None:
        """Kill a ready runner that never became healthy. Count a failed start."""
        runner = self._runners.get(runner_id)
        if runner is None or runner.desired is not Desired.SERVE:
            return
        # Count it first: the plan right after this write must know of the failure.
        before = self.failures(runner.app_id, runner.revision_id)
        failed_starts = self._starts.with_one_more(runner)
        self._starts.failed(replace(runner, failed_starts=failed_starts, reason=reason), self._clock.now())
        self._touched.add(runner.app_id)
        try:
            rejected = await self._take_out(
                runner_id,
                lambda r: replace(r, desired=Desired.GONE, kill=True, reason=reason, failed_starts=failed_starts),
            )
        except Fault:
            self._starts.undo(runner, before)
            self._touched.add(runner.app_id)
            raise
        if rejected is not None:
            for failed in self._on_failed_start:
                failed(rejected)

    def record_health(self, runner_id: str, vitals: Vitals) -> None:
        """Store the result of a health check. It does nothing if the runner has ended meanwhile.

        The start of such a runner is only successful once it passes its first check.
        """
        runner = self._runners.get(runner_id)
        if runner is None:
            return
        if vitals.proven and not self._health.vitals(runner_id).proven:
            self._starts.succeeded(runner)
        self._health.record(runner_id, vitals)
        self._touched.add(runner.app_id)
        self._changed.notify()

    def request_health_check(self, runner_id: str) -> None:
        """Check a runner now, because one of its responses asked for it."""
        self.record_health(runner_id, replace(self._health.vitals(runner_id), asked=True))

    def unproven(self, app_id: AppId) -> frozenset[str]:
        """Return an app's ready runners that have not passed a check."""
        return frozenset(runner.runner_id for runner in self.of_app(app_id) if self._health.must_prove(runner))

    async def _take_out(self, runner_id: str, change: Callable[[Runner], Runner]) -> Runner | None:
        """Stop routing to a runner, then write the change. Route again if the write fails.

        The row says that the router has confirmed it, because a runner may only be told to stop after that.
        """
        stopped = self.stop_routing(runner_id)
        now = self._clock.now()

        def confirmed(runner: Runner) -> Runner:
            changed = change(runner)
            if changed.desired is Desired.SERVE or changed.unrouted_at is not None:
                return changed
            return replace(changed, unrouted_at=now)

        async def work() -> Runner | None:
            try:
                return await self.change(runner_id, confirmed)
            except BaseException:
                if stopped:
                    self._unrouted.discard(runner_id)
                    if (runner := self._runners.get(runner_id)) is not None:
                        self._put(runner)
                raise

        return await run_to_completion(work())

    def stop_routing(self, runner_id: str) -> bool:
        """Send a runner no further requests, before any write. Return False if that was already so."""
        runner = self._runners.get(runner_id)
        if runner is None or runner_id in self._unrouted:
            return False
        self._unrouted.add(runner_id)
        self._put(runner)
        return True

    def node_answers(self, node: str, answers: bool) -> None:
        """Send the runners of a node requests only while the node answers."""
        if answers:
            self._silent_nodes.discard(node)
        else:
            self._silent_nodes.add(node)
        for runner in [runner for runner in self.runners if runner.node == node]:
            self._put(runner)
            if answers:
                self._tell_routable(runner)
        self._changed.notify()

    def is_silent(self, node: str) -> bool:
        """Return whether a node does not answer."""
        return node in self._silent_nodes

    def withhold(self, runner_id: str) -> None:
        """Send a runner no request until `route_again`. It is not known yet what it works on."""
        if (runner := self._runners.get(runner_id)) is not None:
            self._withheld.add(runner_id)
            self._put(runner)

    def is_withheld(self, runner_id: str) -> bool:
        """Return whether `withhold` keeps requests from a runner."""
        return runner_id in self._withheld

    def route_again(self, runner_id: str, hold: Callable[[], None]) -> None:
        """End what `withhold` began.

        Args:
            hold: takes the slots of what the runner works on, before any other request gets one.
        """
        self._withheld.discard(runner_id)
        if (runner := self._runners.get(runner_id)) is not None:
            self._put(runner)
            hold()
            self._tell_routable(runner)
        self._changed.notify()

    def _tell_routable(self, runner: Runner) -> None:
        if runner.routable:
            for ready in self._on_ready:
                ready(runner)

    async def confirm_unrouted(self, runner_id: str) -> Runner | None:
        """Record that a runner gets no further requests. The runner should no longer serve."""
        return await self._take_out(runner_id, lambda r: r)

    def slots(self, app_id: AppId) -> Iterable[Slot]:
        """Return the slots of an app's runners that may get requests."""
        return chain.from_iterable(self._open.get(app_id, {}).values())

    def places(self, app_id: AppId, revision_id: str) -> OpenSlots | None:
        """Return the selection order of a revision's runners. None if none of them may get requests."""
        return self._open.get(app_id, {}).get(revision_id)

    def slot(self, runner_id: str) -> Slot | None:
        """Return the slot of a runner that may get requests, or None."""
        slot = self._slots.get(runner_id)
        return slot if slot is not None and slot.open else None

    def begin(self, slot: Slot, lease: Leased) -> None:
        """Count a request that is sent to a runner.

        Raises:
            AssertionError: routing to the runner has stopped, which may already be confirmed.
        """
        assert slot.open, f"runner {slot.runner_id} gets no further requests"
        slot.take()
        self._used.add(slot.runner_id)
        self._leases.setdefault(slot.runner_id, {})[lease] = None

    def holds(self, slot: Slot, lease: Leased) -> bool:
        """Return whether a request is still on a runner."""
        return lease in self._leases.get(slot.runner_id, ())

    def end(self, slot: Slot, lease: Leased, *, used: bool = True) -> None:
        """Uncount a request that has left a runner.

        Args:
            used: whether anything was sent to it.
        """
        leases = self._leases[slot.runner_id]
        del leases[lease]
        slot.give_back()
        self._used.add(slot.runner_id)
        if used:
            self._last_request_at[slot.runner_id] = self._clock.now()
        if not leases and not slot.open:
            self._changed.notify()

    def sent_before(self, runner_id: str, at: datetime) -> frozenset[Leased]:
        """Return the requests that were sent to a runner by a time."""
        return frozenset(lease for lease in self._leases.get(runner_id, ()) if lease.sent_at <= at)

    async def first_byte(self, runner_id: str, request_at: datetime, answer_at: datetime) -> None:
        """Record once when a runner's first request came and its response began."""
        await self.change(
            runner_id,
            lambda r: r if r.first_byte_at else replace(r, first_request_at=request_at, first_byte_at=answer_at),
        )

    def usage(self, runner_id: str) -> Usage:
        """Return the router's knowledge of a runner."""
        leases = self._leases.get(runner_id)
        return Usage(in_flight=len(leases) if leases else 0, last_request_at=self._last_request_at.get(runner_id))

    def in_flight(self, app_id: AppId, revision_id: str) -> int:
        """Return how many requests are on the serving runners of a revision."""
        places = self.places(app_id, revision_id)
        return 0 if places is None else places.in_flight

    def failures(self, app_id: AppId, revision_id: str | None) -> Failures:
        """Return the consecutive failed starts of a revision."""
        return self._starts.of(app_id, revision_id)

    def forgive(self, app_id: AppId, revision_id: str | None = None) -> None:
        """Reset the failed starts of an app or revision. Somebody wants another attempt."""
        self._starts.forgive(app_id, revision_id)
        self._touched.add(app_id)
        self._changed.notify()

    def active(self, app_id: AppId, revision_id: str | None = None) -> int:
        """Return how many runners have a process that is not ending. They are an app's, or one revision's."""
        living = (RunnerState.SETUP, RunnerState.IDLE, RunnerState.DRAINING)
        return sum(r.state in living and revision_id in (None, r.revision_id) for r in self.of_app(app_id))

    async def ended_since(self, account: AccountId, since: datetime) -> list[Runner]:
        """Return the runners that ended at or after a time, oldest first."""
        return [r for r in await self._store.list_runners(account, since) if r.ended]

    async def page_ended(
        self, account: AccountId, since: datetime, app_id: AppId | None, after: tuple[datetime, str], limit: int
    ) -> list[Runner]:
        """Return runners that ended since a time, by end and id. They come after this end and id."""
        return await self._store.page_ended_runners(account, since, app_id, after, limit)

    def view(self, runner: Runner, keep_alive_seconds: int | None) -> RunnerView:
        """Return a runner with its current state.

        Args:
            keep_alive_seconds: its app's keep_alive; None if min_concurrency keeps it or its app is gone.
        """
        now = self._clock.now()
        leases = tuple(map(RequestLease.of, self._leases.get(runner.runner_id, {})))
        busy = bool(leases) or (runner.ephemeral and runner.port is None)
        state = RunnerState.RUNNING if runner.state is RunnerState.IDLE and busy else runner.state
        expires: int | None = None
        if state is RunnerState.IDLE and keep_alive_seconds is not None and runner.ready_at is not None:
            since = self._last_request_at.get(runner.runner_id, runner.ready_at)
            expires = max(0, round(keep_alive_seconds - (now - since).total_seconds()))
        started = runner.started_at
        uptime = ((runner.ended_at or now) - started).total_seconds() if started else 0.0
        return RunnerView(
            runner=runner,
            state=state,
            in_flight=len(leases),
            expires_in_seconds=expires,
            uptime_seconds=max(0.0, uptime),
            leases=leases,
            unreachable=not runner.ended and runner.node in self._silent_nodes,
        )

    def _put(self, runner: Runner) -> None:
        runner_id = runner.runner_id
        self._touched.add(runner.app_id)
        if runner.ended:
            self._runners.pop(runner_id, None)
            self._leases.pop(runner_id, None)
            self._last_request_at.pop(runner_id, None)
            self._unrouted.discard(runner_id)
            self._withheld.discard(runner_id)
            self._health.forget(runner_id)
            if (mine := self._of_app.get(runner.app_id)) is not None:
                mine.pop(runner_id, None)
                if not mine:
                    del self._of_app[runner.app_id]
        else:
            self._runners[runner_id] = runner
            self._of_app.setdefault(runner.app_id, {})[runner_id] = runner
        slot = self._slots.get(runner_id)
        closed = runner_id in self._unrouted or runner_id in self._withheld
        reachable = not closed and runner.node not in self._silent_nodes
        if runner.routable and runner.port is not None and reachable:
            if slot is None:
                slot = Slot(
                    runner_id=runner_id,
                    revision_id=runner.revision_id,
                    host=runner.host,
                    port=runner.port,
                    gate_key=runner.address.gate_key,
                    answered=runner.first_byte_at is not None,
                )
                self._slots[runner_id] = slot
            slot.open = True
            if slot.places is None:
                self._open.setdefault(runner.app_id, {}).setdefault(slot.revision_id, OpenSlots()).add(slot)
        elif slot is not None and slot.places is not None:
            slot.open, places, routed = False, slot.places, self._open[runner.app_id]
            places.remove(slot)
            if not places:
                del routed[slot.revision_id]
            if not routed:
                del self._open[runner.app_id]
        if runner.ended:
            self._slots.pop(runner_id, None)
