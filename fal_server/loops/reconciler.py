"""The loop that makes what is there into what is wanted: sample, plan (core.reconcile), apply."""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from dataclasses import replace

from fal_server.core import reconcile
from fal_server.core.faults import Fault
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.reconcile import (
    Abandon,
    Action,
    AppInput,
    Create,
    Drain,
    Drop,
    Due,
    Hold,
    Kill,
    Launch,
    Promote,
    Stop,
    Unrouted,
)
from fal_server.core.runners import Runner, RunnerState
from fal_server.ports import Clock, Engine
from fal_server.services.catalog import Catalog
from fal_server.services.dispatch import Dispatcher
from fal_server.services.fleet import Fleet
from fal_server.services.launching import Launching
from fal_server.services.signal import Signal

log = logging.getLogger(__name__)
# While there is anything that time can change (keep_alive, delays, timeouts), look this often.
BUSY_SECONDS = 0.5
QUIET_SECONDS = 30.0


class Reconciler:
    """Plans at every change and at every tick, and carries the plan out.

    Starting a runner takes a while, so each start is a task of its own; all else is applied in the plan's order.
    """

    def __init__(
        self,
        catalog: Catalog,
        fleet: Fleet,
        dispatcher: Dispatcher,
        launching: Launching,
        engine: Engine,
        clock: Clock,
        changed: Signal,
    ) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._launching = launching
        self._engine = engine
        self._clock = clock
        self._changed = changed
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._early: dict[str, list[Observation]] = {}
        self._killed: set[str] = set()
        self._stopping = False

    async def run(self) -> None:
        """Plan and apply until cancelled."""
        seen = -1
        while True:
            seen = await self._changed.wait(seen, BUSY_SECONDS if self._restless() else QUIET_SECONDS)
            await self.tick()

    async def tick(self) -> None:
        """One round: plan, apply."""
        apps = list(self._catalog.apps)
        inputs = [
            AppInput(
                app=app,
                load=self._dispatcher.load(app),
                failures=self._fleet.failures(app.name, app.revision_id),
                next_failures=self._fleet.failures(app.name, app.next_revision_id),
                num_gpus=self._gpus(app.revision_id, app.next_revision_id),
            )
            for app in apps
        ]
        runners = [r for r in self._fleet.runners if r.runner_id not in self._starting]
        starting = [r for r in self._fleet.runners if r.runner_id in self._starting]
        # What is being started holds its machine already, and cannot be planned for until it is.
        held = [replace(r, state=RunnerState.SETUP) for r in starting]
        usage = {runner.runner_id: self._fleet.usage(runner.runner_id) for runner in runners}
        now = self._clock.now()
        for action in reconcile.plan(inputs, runners + held, usage, self._engine.nodes(), now):
            if getattr(action, "runner_id", None) in self._starting:
                continue
            if self._stopping and isinstance(action, Create | Launch | Promote):
                continue
            try:
                await self._apply(action)
            except Fault as fault:
                log.warning("%s failed: %s", action, fault.message)

    async def watch(self) -> None:
        """Take in what the engine sees, until cancelled."""
        async for seen in self._engine.observations():
            if seen.runner_id in self._starting:
                # The engine was faster than the row that says that the runner was launched.
                self._early.setdefault(seen.runner_id, []).append(seen)
            else:
                await self._take(seen)

    async def _take(self, seen: Observation) -> None:
        runner = await self._fleet.observe(seen)
        if seen.event is Event.GONE:
            self._killed.discard(seen.runner_id)
            if runner is None or runner.ended:
                await self._engine.release(seen.runner_id)

    def stop_starting(self) -> None:
        """From now on nothing new is started: the controller is on its way out."""
        self._stopping = True

    async def close(self) -> None:
        """Wait for the starts that are under way, so that none is lost between the engine and the store."""
        await asyncio.gather(*self._starting.values(), return_exceptions=True)

    def _restless(self) -> bool:
        return bool(self._fleet.runners) or self._dispatcher.busy

    def _gpus(self, *revision_ids: str | None) -> dict[str, int | None]:
        known = [self._catalog.known_revision(revision_id) for revision_id in revision_ids if revision_id]
        return {revision.revision_id: revision.num_gpus for revision in known if revision is not None}

    async def _apply(self, action: Action) -> None:
        match action:
            case Create():
                await self._create(action)
            case Due(runner_id=runner_id):
                await self._fleet.observe(Observation(runner_id=runner_id, event=Event.DUE))
            case Launch():
                await self._launch(action)
            case Hold():
                await self._hold(action)
            case Drain(runner_id=runner_id, reason=reason):
                await self._fleet.drain(runner_id, reason)
            case Unrouted(runner_id=runner_id):
                await self._fleet.observe(Observation(runner_id=runner_id, event=Event.UNROUTED))
            case Stop() | Kill():
                await self._end(action)
            case Drop(runner_id=runner_id, reason=reason):
                await self._fleet.observe(Observation(runner_id=runner_id, event=Event.GONE, reason=reason))
            case Promote(app_name=name, revision_id=revision_id):
                log.info("app %s moves to revision %s", name, revision_id)
                await self._catalog.promote(name, revision_id)
            case Abandon(app_name=name, revision_id=revision_id, reason=reason):
                log.warning("app %s stays where it is, revision %s is given up: %s", name, revision_id, reason)
                await self._catalog.abandon(name, revision_id)

    async def _create(self, action: Create) -> None:
        revision = await self._catalog.find_revision(action.revision_id)
        app = self._catalog.get(action.app_name)
        if revision is None or app is None:
            log.error("app %s wants a runner of revision %s, which is gone", action.app_name, action.revision_id)
            return
        delayed = action.not_before is not None
        failures = self._fleet.failures(action.app_name, action.revision_id)
        reason = f"waits after {failures} failed start(s) in a row" if delayed else action.reason
        runner = Runner(
            runner_id=str(uuid.uuid4()),
            app_name=action.app_name,
            environment=app.environment,
            revision_id=action.revision_id,
            machine_type=app.scaling.machine_types[0],
            token=secrets.token_urlsafe(24),
            created_at=self._clock.now(),
            state=RunnerState.FAILURE_DELAY if delayed else RunnerState.PENDING,
            reason=reason,
            not_before=action.not_before,
            grace_seconds=revision.termination_grace_seconds,
            replaces=action.replaces,
        )
        await self._fleet.add([runner])
        if action.replaces is not None:
            await self._fleet.change(action.replaces, lambda r: replace(r, replaced_by=runner.runner_id))

    async def _hold(self, action: Hold) -> None:
        runner = await self._fleet.change(
            action.runner_id, lambda r: replace(r, reason=action.reason, not_before=action.not_before)
        )
        if action.hopeless and runner is not None:
            self._dispatcher.give_up(runner.app_name, action.reason)

    async def _launch(self, action: Launch) -> None:
        runner = await self._fleet.change(
            action.runner_id, lambda r: replace(r, node=action.node, machine_type=action.machine_type)
        )
        if runner is not None:
            task = asyncio.get_running_loop().create_task(self._start(runner), name=f"start {runner.runner_id}")
            self._starting[runner.runner_id] = task

    async def _start(self, runner: Runner) -> None:
        runner_id = runner.runner_id
        try:
            node, process = await self._engine.start(await self._launching.prepare(runner))
            await self._fleet.observe(
                Observation(runner_id=runner_id, event=Event.LAUNCHED, node=node, process=process)
            )
        except Fault as fault:
            log.warning("runner %s of %s could not be started: %s", runner_id, runner.app_name, fault.message)
            await self._fleet.observe(Observation(runner_id=runner_id, event=Event.GONE, reason=fault.message))
        except Exception:
            log.exception("starting runner %s failed", runner_id)
            reason = "the controller failed to start it; its log says why"
            await self._fleet.observe(Observation(runner_id=runner_id, event=Event.GONE, reason=reason))
        while early := self._early.pop(runner_id, None):
            for seen in early:
                await self._take(seen)
        # Without a pause since the last look at what came early, so that nothing can come between.
        del self._starting[runner_id]
        self._changed.notify()

    async def _end(self, action: Stop | Kill) -> None:
        runner = self._fleet.get(action.runner_id)
        if runner is None or runner.runner_id in self._killed:
            return
        reason = action.reason if isinstance(action, Kill) else runner.reason
        stopping = Observation(runner_id=runner.runner_id, event=Event.STOPPING, reason=reason)
        runner = await self._fleet.observe(stopping) or runner
        if isinstance(action, Kill):
            await self._engine.kill(runner)
            self._killed.add(runner.runner_id)
        else:
            await self._engine.stop(runner, action.grace_seconds)
