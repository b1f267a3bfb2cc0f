"""Reconciles runners with the desired state: sample, plan (core.reconcile), apply."""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from dataclasses import dataclass, replace
from datetime import timedelta

from fal_server.aio.retry import until_stored
from fal_server.aio.rounds import Rounds
from fal_server.aio.set_aside import SetAside
from fal_server.aio.slices import in_slices
from fal_server.aio.tasks import TaskSet
from fal_server.core.actions import (
    Abandon,
    Action,
    ConfirmUnrouted,
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
from fal_server.core.apps import App
from fal_server.core.faults import Fault, NodeTrouble
from fal_server.core.identity import EVERY_ACCOUNT, AppId
from fal_server.core.lifecycle import End, Event, Observation
from fal_server.core.places import UNSCHEDULABLE_DELAY_SECONDS, Reserve, first_fit
from fal_server.core.quotas import QuotasOf, usual_quotas
from fal_server.core.reconcile import AppInput, Look, StandingPlan
from fal_server.core.runners import NO_PROCESS, Desired, Runner, RunnerState
from fal_server.live.catalog import Catalog
from fal_server.live.decisions import Decisions
from fal_server.live.dispatch import Dispatcher
from fal_server.live.events import ChangeNotifier
from fal_server.live.fleet import Fleet
from fal_server.ports import Clock, Engine
from fal_server.services.launch_spec import LaunchSpecs

log = logging.getLogger(__name__)
# The interval while anything can change with time: keep_alive, delays, timeouts.
BUSY_SECONDS = 0.5
QUIET_SECONDS = 30.0
# How often unneeded revisions and decisions are dropped.
PRUNE_AFTER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hopeless:
    """A runner that fits on no node.

    Attributes:
        machine_types: its app's at that time, because others may fit.
    """

    runner_id: str
    reason: str
    machine_types: tuple[str, ...]


class Reconciler:
    """Plans at every change and at every tick, and applies the plan.

    Starting a runner takes a while, so each start has its own task; everything else is applied in the plan's order. The
    plan repeats Stop and Kill in every round; each is sent to the engine once, and once more after a restart of the
    controller.

    Args:
        quotas: how many runners an account may have.
        reserve: decides where runners start.
    """

    def __init__(
        self,
        catalog: Catalog,
        fleet: Fleet,
        dispatcher: Dispatcher,
        launch_specs: LaunchSpecs,
        engine: Engine,
        clock: Clock,
        changed: ChangeNotifier,
        decisions: Decisions,
        quotas: QuotasOf = usual_quotas,
        reserve: Reserve = first_fit,
    ) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._launch_specs = launch_specs
        self._engine = engine
        self._clock = clock
        self._changed = changed
        self._decisions = decisions
        self._quotas = quotas
        self._starting: set[str] = set()
        self._tasks = TaskSet(log)
        self._releases = TaskSet(log)
        # By runner, or by app for actions without one: an action that fails unexpectedly must not stop the others.
        self._set_aside = SetAside[str | AppId](clock.now)
        self._early: dict[str, list[Observation]] = {}
        self._stopped: set[str] = set()
        self._killed: set[str] = set()
        self._hopeless: dict[AppId, _Hopeless] = {}
        self._stopping = False
        self._closing = asyncio.Event()
        self._unstored_ends: set[str] = set()
        self._plan = StandingPlan(reserve)
        self._unplanned: set[AppId] = set()
        self._prune_at = clock.now()

    async def run(self) -> None:
        """Plan and apply until cancelled."""
        await Rounds("reconciler", self._round).run(self._changed)

    async def _round(self) -> float:
        await self.tick()
        return QUIET_SECONDS if self._fleet.empty and not self._dispatcher.busy else BUSY_SECONDS

    async def tick(self) -> None:
        """Plan and apply once."""
        self._dispatcher.serve_waiting()
        for action in await self.planned():
            await self._try(action)
        self._fail_hopeless()
        if (now := self._clock.now()) >= self._prune_at:
            self._prune_at = now + PRUNE_AFTER
            self._catalog.prune({runner.revision_id for runner in self._fleet.runners})
            self._decisions.prune({app.app_id for app in (*self._catalog.apps, *self._catalog.ephemeral_apps)})

    async def planned(self) -> list[Action]:
        """Plan for apps that changed or are due. Return the due actions.

        After a start these are all apps, so other tasks run in between.
        """
        now = self._clock.now()
        self._unplanned |= self._fleet.take_touched()
        self._unplanned |= self._catalog.take_touched()
        self._unplanned |= self._dispatcher.waiting_apps
        self._unplanned |= self._plan.due(now)
        # An app that changes after it was examined is added to the new set, for the next plan.
        examined, self._unplanned = self._unplanned, set()
        examination = self._plan.examination(now)
        actions: list[Action] = []
        try:
            async for app_id in in_slices(examined):
                actions += examination.examine(self.look(app_id))
            actions += examination.launches(self._engine.nodes(), self._quotas)
        except BaseException:
            self._unplanned |= examined  # a failing plan loses none
            raise
        return actions

    async def _try(self, action: Action) -> None:
        key = action.app_id if isinstance(action, Create | Promote | Abandon) else action.runner_id
        if key in self._starting or key in self._set_aside:
            return
        if self._stopping and isinstance(action, Create | Launch | Promote):
            return
        try:
            await self._apply(action)
        except Fault as fault:
            log.warning("%s failed: %s", action, fault.message)
            if isinstance(action, Stop | Kill):  # its node does not answer, perhaps for minutes
                self._set_aside.add(key)
        except Exception:
            log.exception("%s failed; %s is set aside for %.1f s", action, key, self._set_aside.add(key))
        else:
            self._set_aside.remove(key)

    def _fail_hopeless(self) -> None:
        """Fail requests of apps that fit on no node. Requests that arrive after that was detected fail, too."""
        for app_id, hopeless in list(self._hopeless.items()):
            runner = self._fleet.get(hopeless.runner_id)
            waits = runner is not None and runner.state is RunnerState.PENDING
            if waits and self._machine_types(app_id) == hopeless.machine_types:
                self._dispatcher.give_up(app_id, hopeless.reason)
            else:
                del self._hopeless[app_id]

    async def watch(self) -> None:
        """Apply the engine's observations until it is closed. If they break off, start again."""
        closed = asyncio.Event()

        async def follow() -> None:
            await self._follow()
            closed.set()

        try:
            await Rounds("observations of the engine", follow).run_until(closed)
        finally:
            await self._releases.close()  # the next start stores the remaining log lines

    async def _follow(self) -> None:
        async for seen in self._engine.observations():
            if seen.runner_id in self._starting:
                # The engine was faster than the row that records the launch.
                self._early.setdefault(seen.runner_id, []).append(seen)
                continue
            await self._observed(seen)

    def stop_starting(self) -> None:
        """Start no more runners, because the controller is stopping."""
        self._stopping = True

    async def close(self) -> None:
        """Wait for the starts in progress. Then none is lost between the engine and the store.

        From now on a failed write is not repeated, because the next start checks each runner.
        """
        self._closing.set()
        await self._tasks.wait()

    def has_ended(self, runner_id: str) -> bool:
        """Return whether a runner's processes have ended, even if that is unstored."""
        return self._fleet.get(runner_id) is None or runner_id in self._unstored_ends

    async def _observed(self, seen: Observation) -> None:
        """Handle an observation; an unexpected error must not prevent handling the others."""
        try:
            await self._handle(seen)
        except Exception:
            log.exception("%s of runner %s could not be handled", seen.event, seen.runner_id)

    async def _handle(self, seen: Observation) -> None:
        known = self._fleet.get(seen.runner_id)
        # The `fal run` call that waits for an ephemeral runner's result releases the runner after that.
        awaited = known is not None and known.ephemeral and self._catalog.get(known.app_id) is not None
        if seen.event is Event.GONE and known is not None:
            seen = await self._excuse(known, seen)
            self._note_end(known, seen)
        recorded = await self._record(seen)
        if seen.event is Event.GONE and not recorded:
            # Its files are kept: the next start stores their content.
            self._unstored_ends.add(seen.runner_id)
            self._changed.notify()
        elif seen.event is Event.GONE:
            runner = self._fleet.get(seen.runner_id)
            self._stopped.discard(seen.runner_id)
            self._killed.discard(seen.runner_id)
            self._set_aside.remove(seen.runner_id)
            if (runner is None or runner.ended) and not awaited:
                # It lasts until the last log lines are stored, and observations of other runners do not wait for that.
                self._releases.spawn(self._release(seen.runner_id), name=f"release of runner {seen.runner_id}")

    async def _release(self, runner_id: str) -> None:
        try:
            await self._engine.release(runner_id)
        except Fault as fault:
            log.warning("the files of runner %s stay: %s", runner_id, fault.message)

    async def _excuse(self, runner: Runner, seen: Observation) -> Observation:
        """Count no failed start against an app whose machine is in trouble."""
        trouble = next((node.trouble for node in self._engine.nodes() if node.name == runner.node), "")
        if not trouble or runner.state is not RunnerState.SETUP or runner.desired is not Desired.SERVE:
            return seen
        reason = f"{seen.reason or 'it ended in its setup'} ({trouble})"
        await until_stored(
            f"the end of runner {runner.runner_id}",
            lambda: self._fleet.drain(runner.runner_id, reason),
            stopping=self._closing,
        )
        return replace(seen, reason=reason)

    async def _record(self, seen: Observation) -> bool:
        """Store an observation; return whether that succeeded. Only a stop of the controller ends the attempts."""

        async def write() -> bool:
            await self._fleet.observe(seen)
            return True

        what = f"{seen.event} of runner {seen.runner_id}"
        return bool(await until_stored(what, write, stopping=self._closing))

    def look(self, app_id: AppId) -> Look:
        """Return the current facts about an app for a plan."""
        app = self._catalog.get(app_id)
        # A starting runner already holds its machine, so plan as if it existed there.
        runners = [
            replace(r, state=RunnerState.SETUP) if r.runner_id in self._starting else r
            for r in self._fleet.of_app(app_id)
        ]
        return Look(
            app_id=app_id,
            given=None if app is None else self._input(app, {runner.revision_id for runner in runners}),
            runners=runners,
            usage={r.runner_id: self._fleet.usage(r.runner_id) for r in runners if r.state not in NO_PROCESS},
        )

    def _input(self, app: App, revision_ids: set[str]) -> AppInput:
        known = {i: self._catalog.known_revision(i) for i in (app.revision_id, *revision_ids)}
        current = known[app.revision_id]
        coming = self._catalog.known_revision(app.next_revision_id) if app.next_revision_id else None
        checked = any(r is not None and r.health_check is not None for r in (current, coming))
        failures = self._fleet.failures(app.app_id, app.revision_id)
        next_failures = self._fleet.failures(app.app_id, app.next_revision_id)
        return AppInput(
            app=app,
            load=self._dispatcher.load(app),
            failures=failures.count,
            failed_at=failures.at,
            next_failures=next_failures.count,
            next_failure=next_failures.reason,
            next_scaling=None if coming is None else coming.scaling,
            num_gpus={i: revision.num_gpus for i, revision in known.items() if revision is not None},
            serves_http=current is None or current.serves_http,
            ephemeral=self._catalog.is_ephemeral(app.app_id),
            unproven=self._fleet.unproven(app.app_id) if checked else frozenset(),
        )

    async def _apply(self, action: Action) -> None:
        self._note(action)
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
            case ConfirmUnrouted(runner_id=runner_id):
                await self._dispatcher.confirm_unrouted(runner_id)
            case Unrouted(runner_id=runner_id):
                await self._fleet.observe(Observation(runner_id=runner_id, event=Event.UNROUTED))
            case Stop() | Kill():
                await self._end(action)
            case Drop(runner_id=runner_id, reason=reason):
                # Mark it unwanted first; otherwise its end would count as a failed start.
                await self._fleet.drain(runner_id, reason)
                await self._fleet.observe(Observation(runner_id=runner_id, event=Event.GONE, reason=reason))
            case Promote(app_id=app_id, revision_id=revision_id):
                log.info("app %s moves to revision %s", app_id, revision_id)
                await self._catalog.promote(app_id, revision_id)
                self._dispatcher.serve_waiting()
            case Abandon(app_id=app_id, revision_id=revision_id, reason=reason):
                log.warning("app %s stays where it is, revision %s is given up: %s", app_id, revision_id, reason)
                await self._catalog.abandon(app_id, revision_id, reason)

    def _note(self, action: Action) -> None:
        """Keep a decision, once, for `fal apps explain`."""
        match action:
            case Create(app_id=app_id, revision_id=subject, reason=reason):
                verb = "start"
            case Promote(app_id=app_id, revision_id=subject):
                verb, reason = "move", "a runner of it is ready"
            case Abandon(app_id=app_id, revision_id=subject, reason=reason):
                verb = "abandon"
            case Hold() | Drain() | Drop() | Kill():
                runner = self._fleet.get(action.runner_id)
                again = isinstance(action, Kill) and action.runner_id in self._killed
                if runner is None or again or (isinstance(action, Hold) and runner.not_before is not None):
                    return
                app_id, subject, reason = runner.app_id, action.runner_id, action.reason
                verb = type(action).__name__.lower()
            case _:
                return
        app = self._catalog.get(app_id)
        if app is not None:
            self._decisions.keep(app_id, verb, subject, reason, self._dispatcher.load(app))

    def _note_end(self, runner: Runner, seen: Observation) -> None:
        """Keep the unexpected end of a runner, which explains the next decisions."""
        app = self._catalog.get(runner.app_id)
        if app is not None and seen.end is not End.ORDERED:
            self._decisions.keep(app.app_id, "end", runner.runner_id, seen.reason, self._dispatcher.load(app))

    async def _create(self, action: Create) -> None:
        revision = await self._catalog.find_revision(EVERY_ACCOUNT, action.revision_id)
        app = self._catalog.get(action.app_id)
        if revision is None or app is None:
            log.error("app %s needs a runner of revision %s, which was deleted", action.app_id, action.revision_id)
            return
        delayed = action.not_before is not None
        reason = action.reason
        if delayed:
            failures = self._fleet.failures(action.app_id, action.revision_id)
            reason = f"waits after {failures.count} failed start(s) in a row; the last one: {failures.reason}"
            if failures.runner_id:
                reason += f"; `fal runners logs {failures.runner_id}` shows what it wrote"
        types = app.scaling.machine_types if action.revision_id == app.revision_id else revision.scaling.machine_types
        runner = Runner(
            account=app.account,
            runner_id=str(uuid.uuid4()),
            app_name=app.name,
            environment=app.environment,
            revision_id=action.revision_id,
            machine_type=types[0],
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
        if runner is None:
            return
        if action.hopeless:
            self._hopeless[runner.app_id] = _Hopeless(
                runner_id=runner.runner_id, reason=action.reason, machine_types=self._machine_types(runner.app_id)
            )
        else:
            self._forget_hopeless(runner)

    def _machine_types(self, app_id: AppId) -> tuple[str, ...]:
        app = self._catalog.get(app_id)
        return () if app is None else app.scaling.machine_types

    def _forget_hopeless(self, runner: Runner) -> None:
        known = self._hopeless.get(runner.app_id)
        if known is not None and known.runner_id == runner.runner_id:
            del self._hopeless[runner.app_id]

    async def _launch(self, action: Launch) -> None:
        runner = await self._fleet.change(
            action.runner_id,
            lambda r: replace(
                r,
                node=action.node,
                machine_type=action.machine_type,
                gpus=action.gpus,
                ordered_at=self._clock.now(),
            ),
        )
        if runner is not None and runner.state is RunnerState.PENDING and runner.desired is Desired.SERVE:
            self._forget_hopeless(runner)
            self._starting.add(runner.runner_id)
            self._tasks.spawn(self._start(runner), name=f"start of runner {runner.runner_id}")

    async def _start(self, runner: Runner) -> None:
        runner_id = runner.runner_id
        seen: Observation | None = None
        pulling = Observation(runner_id=runner_id, event=Event.PULLING, reason="its image is fetched or built")
        try:
            spec = await self._launch_specs.of(runner)
            node, handle = await self._engine.start(spec, lambda: self._record(pulling))
            seen = Observation(runner_id=runner_id, event=Event.LAUNCHED, node=node, handle=handle)
        except NodeTrouble as fault:
            log.warning("runner %s of %s waits: %s", runner_id, runner.app_name, fault.message)
            seen = await self._postponed(runner_id, fault.message)
        except Fault as fault:
            log.warning("runner %s of %s could not be started: %s", runner_id, runner.app_name, fault.message)
            seen = Observation(runner_id=runner_id, event=Event.GONE, reason=fault.message)
        except Exception as error:
            if NodeTrouble.explains(error):
                log.warning("runner %s of %s waits: %s", runner_id, runner.app_name, error)
                seen = await self._postponed(runner_id, f"the machine cannot start it now: {error}")
            else:
                log.exception("starting runner %s failed", runner_id)
                reason = "the controller failed to start it; its log says why"
                seen = Observation(runner_id=runner_id, event=Event.GONE, reason=reason)
        if seen is not None:
            await self._record(seen)
        while early := self._early.pop(runner_id, None):
            for seen in early:
                await self._observed(seen)
        # There is no await since the last look at `_early`, so that nothing can happen in between.
        self._starting.discard(runner_id)
        self._unplanned.add(runner.app_id)
        self._changed.notify()

    async def _postponed(self, runner_id: str, reason: str) -> Observation | None:
        """Hold a runner that its machine could not start. That counts as no failed start of the app.

        Returns:
            Its end, if it had left PENDING, to which no runner returns: another runner then takes its place.
        """
        runner = self._fleet.get(runner_id)
        if runner is not None and runner.state is not RunnerState.PENDING:
            await until_stored(
                f"the end of runner {runner_id}", lambda: self._fleet.drain(runner_id, reason), stopping=self._closing
            )
            return Observation(runner_id=runner_id, event=Event.GONE, reason=reason)
        later = self._clock.now() + timedelta(seconds=UNSCHEDULABLE_DELAY_SECONDS)
        await until_stored(
            f"the wait of runner {runner_id}",
            lambda: self._fleet.change(
                runner_id, lambda r: replace(r, node="", gpus=(), reason=reason, not_before=later)
            ),
            stopping=self._closing,
        )
        return None

    async def _end(self, action: Stop | Kill) -> None:
        runner_id = action.runner_id
        if runner_id in self._killed or (isinstance(action, Stop) and runner_id in self._stopped):
            return
        reason, cause = (action.reason, action.cause) if isinstance(action, Kill) else ("", None)
        sent = self._killed if isinstance(action, Kill) else self._stopped
        sent.add(runner_id)
        try:
            stopping = Observation(runner_id=runner_id, event=Event.STOPPING, reason=reason, stop_cause=cause)
            runner = await self._fleet.observe(stopping)
            if runner is None:
                sent.discard(runner_id)
            elif isinstance(action, Kill):
                await self._engine.kill(runner)
            else:
                await self._engine.stop(runner, action.grace_seconds)
        except BaseException:
            sent.discard(runner_id)
            raise
