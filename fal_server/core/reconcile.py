"""Compares desired with actual runners. It plans which to start, drain and end."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

from fal_server.core import autoscale
from fal_server.core.actions import (
    Abandon,
    Action,
    ConfirmUnrouted,
    Create,
    Drain,
    Drop,
    Kill,
    Promote,
    Stop,
    Unrouted,
)
from fal_server.core.apps import App
from fal_server.core.autoscale import Load
from fal_server.core.identity import AppId
from fal_server.core.machines import Node
from fal_server.core.placement import launch_due_at, plan_launches
from fal_server.core.places import Needs, Reserve, Room, TakenRoom, first_fit
from fal_server.core.quotas import QuotasOf, usual_quotas
from fal_server.core.runners import NO_PROCESS, Desired, Runner, RunnerState, StopCause
from fal_server.core.scaling import Scaling

S = RunnerState
# Each consecutive failed start delays the next one by this much longer, up to the maximum.
FAILURE_DELAY_SECONDS = 30
FAILURE_DELAY_MOST_SECONDS = 600
# An app that was not examined for this long is examined again, in limited numbers per plan.
_LONGEST_REST = timedelta(minutes=1)
_MOST_RESTED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The router's knowledge of one runner.

    Attributes:
        last_request_at: when its last request left it. After a restart of the controller the past is unknown, so this
        is
            the time of the restart: no decision is made without data.
    """

    in_flight: int = 0
    last_request_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppInput:
    """An app, and the facts that its plan depends on.

    Attributes:
        failures: consecutive failed starts of the app's revision, since the last one that became ready.
        failed_at: when the last of them failed; None means just now.
        next_failures: the same for a rolling deploy's target revision.
        next_failure: why the last of those failed.
        next_scaling: the settings of that revision; None if they are the app's.
        unproven: its runners that have not passed their health check yet, so that no traffic moves to them.
        num_gpus: the number of GPUs of a runner, by revision.
        serves_http: False for a function without a port, which gets no requests and so has no runners.
        ephemeral: whether it belongs to one call, which starts and ends its runner itself.
    """

    app: App
    load: Load = field(default_factory=Load)
    failures: int = 0
    failed_at: datetime | None = None
    next_failures: int = 0
    next_failure: str = ""
    next_scaling: Scaling | None = None
    num_gpus: Mapping[str, int | None] = field(default_factory=dict[str, "int | None"])
    serves_http: bool = True
    ephemeral: bool = False
    unproven: frozenset[str] = frozenset()

    def scaling_of(self, runner: Runner) -> Scaling:
        """Return the settings for a runner. One of the next revision already has that revision's."""
        coming = self.next_scaling is not None and runner.revision_id == self.app.next_revision_id
        return self.next_scaling if coming and self.next_scaling is not None else self.app.scaling


_UNUSED = Usage()


def failure_delay(failures: int) -> timedelta:
    """Return the delay of the next start after this many consecutive failures."""
    return timedelta(seconds=min(FAILURE_DELAY_MOST_SECONDS, FAILURE_DELAY_SECONDS * failures))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """All facts about one app that its plan depends on.

    Attributes:
        given: None if the app no longer exists; its runners are then drained.
        runners: its runners that have not ended, oldest first.
        usage: the router's knowledge, by runner id.
    """

    app_id: AppId
    given: AppInput | None
    runners: Sequence[Runner]
    usage: Mapping[str, Usage]


def plan(
    apps: Iterable[AppInput],
    runners: Iterable[Runner],
    usage: Mapping[str, Usage],
    nodes: Sequence[Node],
    now: datetime,
    quotas: QuotasOf = usual_quotas,
) -> list[Action]:
    """Return all actions that are due now, for all apps and runners.

    Args:
        apps: every app, including ephemeral ones; runners of other apps are drained.
        runners: every runner that has not ended, oldest first.
        usage: the router's knowledge, by runner id.
        nodes: with their total resources; the living runners' resources are subtracted here.
        now: the time of the plan.
        quotas: how many runners an account may have.
    """
    by_app: dict[AppId, list[Runner]] = defaultdict(list)
    for runner in runners:
        by_app[runner.app_id].append(runner)
    inputs = {given.app.app_id: given for given in apps}
    looks = [
        Look(app_id=app_id, given=inputs.get(app_id), runners=by_app.get(app_id, ()), usage=usage)
        for app_id in dict.fromkeys((*inputs, *by_app))
    ]
    return StandingPlan().plan(looks, nodes, now, quotas)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outlook:
    """The result of an app's last examination.

    Attributes:
        held: the resources that its runners hold.
        looked_at: when that was.
    """

    held: TakenRoom
    looked_at: datetime


class StandingPlan:
    """Plans repeatedly, and examines only apps that may have changed.

    An app without due actions rests until something about it changes, or until the time that its last examination
    named.
    So examining the changed apps, and those that `due` names, gives the same actions as a plan for all apps.

    Args:
        reserve: decides where runners start.
    """

    def __init__(self, reserve: Reserve = first_fit) -> None:
        self._reserve = reserve
        self._outlooks: dict[AppId, _Outlook] = {}  # the app that was examined longest ago comes first
        self._active: set[AppId] = set()
        self._times: list[tuple[datetime, int, AppId]] = []
        self._listed: dict[AppId, datetime] = {}  # the earliest of its times
        self._number = count()
        self._room = Room()

    def due(self, now: datetime) -> set[AppId]:
        """Return apps that must be examined although nothing about them has changed.

        Some have only rested for long: this eventually finds changes that were not reported.
        """
        found = set(self._active)
        while self._times and self._times[0][0] <= now:
            due_at, _, app_id = heapq.heappop(self._times)
            found.add(app_id)
            if self._listed.get(app_id) == due_at:
                del self._listed[app_id]
        rested = 0
        for app_id, outlook in self._outlooks.items():
            if rested >= _MOST_RESTED or now - outlook.looked_at < _LONGEST_REST:
                break
            rested += 1 + outlook.held.count
            found.add(app_id)
        return found

    def plan(
        self, looks: Iterable[Look], nodes: Sequence[Node], now: datetime, quotas: QuotasOf = usual_quotas
    ) -> list[Action]:
        """Return the actions that are due now for the examined apps.

        Args:
            looks: the current facts of all apps that changed since the last examination, and of all that `due` names.
            nodes: with their total resources; all runners' resources are subtracted here.
            now: the time of the plan.
            quotas: how many runners an account may have.
        """
        examination = self.examination(now)
        actions = [action for look in looks for action in examination.examine(look)]
        return actions + examination.launches(nodes, quotas)

    def examination(self, now: datetime) -> Examination:
        """Return a plan that takes one app after another. Other work may be done between two of them."""
        return Examination(self, now)

    def note(self, look: Look, due_at: datetime | None, now: datetime, *, active: bool) -> None:
        """Note what an app holds, and when it is next examined. That is at the next plan if the app is active."""
        (self._active.add if active else self._active.discard)(look.app_id)
        self._remember(look, due_at, now)

    def launches(
        self, waiting: Sequence[tuple[Runner, Needs]], nodes: Sequence[Node], now: datetime, quotas: QuotasOf
    ) -> list[Action]:
        """Return where waiting runners start, considering what all apps hold."""
        self._active |= {runner.app_id for runner, needs in waiting if launch_due_at(runner, needs, now) <= now}
        return [*plan_launches(waiting, self._room, nodes, now, quotas, self._reserve)]

    def _remember(self, look: Look, due_at: datetime | None, now: datetime) -> None:
        before = self._outlooks.pop(look.app_id, None)
        if before is not None:
            self._room.change(before.held, -1)
        if look.given is None and not look.runners:
            return
        given = look.given
        held = TakenRoom.of(look.runners, lambda r: None if given is None else given.num_gpus.get(r.revision_id))
        self._room.change(held, 1)
        self._outlooks[look.app_id] = _Outlook(held=held, looked_at=now)
        listed_at = self._listed.get(look.app_id)
        # A later time than the listed one is only listed when that has come, because a busy app's time keeps moving.
        if due_at is not None and (listed_at is None or due_at < listed_at):
            self._listed[look.app_id] = due_at
            heapq.heappush(self._times, (due_at, next(self._number), look.app_id))


class Examination:
    """One plan of a StandingPlan. Each app's own actions come first, then the launches of all.

    Args:
        plan: notes what is found.
        now: the time of the plan.
    """

    def __init__(self, plan: StandingPlan, now: datetime) -> None:
        self._plan = plan
        self._now = now
        self._waiting: list[tuple[Runner, Needs]] = []

    def examine(self, look: Look) -> list[Action]:
        """Return an app's due actions, without launches."""
        now = self._now
        found, due_at = _plan_look(look, now)
        # A drained runner holds its resources until it is gone; a dropped one never had any.
        dropped = {action.runner_id for action in found if isinstance(action, Drop)}
        for runner in look.runners:
            if runner.state in NO_PROCESS and runner.desired is Desired.SERVE and runner.runner_id not in dropped:
                needs = _needs(look.given, runner)
                self._waiting.append((runner, needs))
                due_at = _earliest(due_at, launch_due_at(runner, needs, now), now)
        # The demand of waiting requests changes with time, and once more when they are gone.
        active = bool(found) or (look.given is not None and look.given.load.queued > 0)
        self._plan.note(look, due_at, now, active=active)
        return found

    def launches(self, nodes: Sequence[Node], quotas: QuotasOf = usual_quotas) -> list[Action]:
        """Return the due launches of the examined apps."""
        return self._plan.launches(self._waiting, nodes, self._now, quotas)


def _plan_look(look: Look, now: datetime) -> tuple[list[Action], datetime | None]:
    """Return an app's actions without launches. If there are none, also return when time alone may bring some."""
    given = look.given
    actions: list[Action] = []
    due_at: datetime | None = None
    if given is None:
        for runner in look.runners:
            if runner.desired is Desired.SERVE and not runner.ended:
                why = "the call that started it has ended" if runner.ephemeral else "its app was deleted"
                actions.append(_leave(runner, why))
    elif not given.ephemeral:
        actions, due_at = _plan_app(given, [r for r in look.runners if not r.ended], look.usage, now)
    for runner in look.runners:
        over = _startup_over(given, runner)
        actions += _plan_end(runner, look.usage.get(runner.runner_id, _UNUSED), given, over, now)
        due_at = _earliest(due_at, over, now)
    return actions, due_at


def _earliest(one: datetime | None, other: datetime | None, now: datetime) -> datetime | None:
    """Return the earlier of two times. The second counts only if it is in the future."""
    if other is None or other <= now:
        return one
    return other if one is None or other < one else one


def _plan_app(
    given: AppInput, runners: list[Runner], usage: Mapping[str, Usage], now: datetime
) -> tuple[list[Action], datetime | None]:
    """Return an app's actions. Also return when a runner may have been idle for long enough."""
    app = given.app
    serving = [r for r in runners if r.desired is Desired.SERVE]
    current = [r for r in serving if r.revision_id == app.revision_id]
    actions: list[Action] = [
        _leave(r, f"revision {r.revision_id} does not serve {app.name} any more: {app.revision_id} does")
        for r in serving
        if r.revision_id not in (app.revision_id, app.next_revision_id)
    ]
    present = {r.runner_id for r in current}
    # A replacement counts once the replaced runner no longer does.
    counted = [r for r in current if r.replaces is None or r.replaces not in present]
    extra = [r for r in current if r.replaces is not None and r.replaces in present]
    if app.next_revision_id is not None:
        actions += _plan_rolling(given, serving, extra)
    else:
        actions += _plan_replacement(given, counted, extra, now)
    if not given.serves_http:
        return actions, None
    decision = autoscale.decide(app.scaling, given.load)
    missing = decision.start_below - len(counted)
    if missing > 0:
        if given.failures:
            # After a failure, start one runner at a time, to test whether the cause is gone.
            trying = sum(r.state is not S.IDLE or r.runner_id in given.unproven for r in current)
            missing = min(missing, max(0, 1 - trying))
        create = Create(
            app_id=app.app_id,
            revision_id=app.revision_id,
            reason=decision.reason,
            not_before=_not_before(given, now),
        )
        actions += [create] * missing
    elif len(counted) > decision.keep:
        victims, due_at = _victims(app, counted, usage, decision.keep, now)
        return actions + [_leave(r, why) for r, why in victims], due_at
    return actions, None


def _not_before(given: AppInput, now: datetime) -> datetime | None:
    """Return until when a start is delayed because earlier ones failed."""
    if not given.failures:
        return None
    due = (given.failed_at or now) + failure_delay(given.failures)
    return due if due > now else None


def _plan_rolling(given: AppInput, serving: list[Runner], extra: list[Runner]) -> list[Action]:
    """Plan a rolling deploy. A runner of the next revision must be ready before the app moves."""
    app = given.app
    if app.next_revision_id is None:
        return []
    coming = [r for r in serving if r.revision_id == app.next_revision_id]
    if any(r.state is S.IDLE and r.runner_id not in given.unproven for r in coming):
        return [Promote(app_id=app.app_id, revision_id=app.next_revision_id)]
    if coming:
        return []
    if given.next_failures:
        why = given.next_failure or "its runner ended before it was ready"
        return [Abandon(app_id=app.app_id, revision_id=app.next_revision_id, reason=why)]
    if extra:
        # There is one runner above the number at a time, so replacements of the old revision give way.
        return [_leave(r, f"revision {app.next_revision_id} is being rolled out") for r in extra]
    return [Create(app_id=app.app_id, revision_id=app.next_revision_id, reason="rolling deploy")]


def _plan_replacement(given: AppInput, counted: list[Runner], extra: list[Runner], now: datetime) -> list[Action]:
    """Plan `stop --replace` and rollouts, one runner at a time. The old one drains once its replacement is ready."""
    marked = [r for r in counted if r.replace_first]
    if not marked:
        return []
    if not extra:
        old = marked[0]
        return [
            Create(
                app_id=given.app.app_id,
                revision_id=given.app.revision_id,
                reason=f"replaces {old.runner_id}",
                not_before=_not_before(given, now),
                replaces=old.runner_id,
            )
        ]
    ready = {r.replaces for r in extra if r.state is S.IDLE and r.runner_id not in given.unproven}
    return [Drain(runner_id=r.runner_id, reason=r.reason or "replaced") for r in marked if r.runner_id in ready]


def _victims(
    app: App, counted: list[Runner], usage: Mapping[str, Usage], keep: int, now: datetime
) -> tuple[list[tuple[Runner, str]], datetime | None]:
    """Choose surplus runners. First come the youngest without a process, then the longest idle past keep_alive.

    Ready runners go only while enough ready ones stay; a starting one does not count as ready.

    Returns:
        The runners with reasons, and when the next one will have been idle for long enough.
    """
    scaling = app.scaling
    floor = scaling.min_concurrency or scaling.concurrency_buffer
    surplus = len(counted) - keep
    without_process = [(r, "no longer needed") for r in reversed(counted) if r.state in NO_PROCESS][:surplus]
    idle: list[tuple[datetime, Runner, str]] = []
    due_at: datetime | None = None
    for runner in counted:
        known = usage.get(runner.runner_id, _UNUSED)
        if runner.state is not S.IDLE or known.in_flight or runner.ready_at is None:
            continue
        since = known.last_request_at or runner.ready_at
        used = known.last_request_at is not None
        patience = scaling.keep_alive if used or floor else autoscale.NEVER_USED_SECONDS
        over = since + timedelta(seconds=patience)
        due_at = _earliest(due_at, over, now)
        if now >= over:
            why = f"idle for keep_alive {patience} s" if used or floor else f"never used in {patience} s"
            idle.append((since, runner, why))
    idle.sort(key=lambda item: (item[0], item[1].runner_id))
    ready = sum(r.state is S.IDLE for r in counted)
    count = max(0, min(surplus - len(without_process), ready - keep))
    return without_process + [(r, why) for _, r, why in idle[:count]], due_at


def _leave(runner: Runner, reason: str) -> Action:
    if runner.state in NO_PROCESS:
        return Drop(runner_id=runner.runner_id, reason=reason)
    return Drain(runner_id=runner.runner_id, reason=reason)


def _startup_over(given: AppInput | None, runner: Runner) -> datetime | None:
    """Return when a starting runner exceeds its timeout. None if it is not starting or has no timeout."""
    if given is None or runner.state is not S.SETUP or runner.desired is not Desired.SERVE or runner.started_at is None:
        return None
    return runner.started_at + timedelta(seconds=given.scaling_of(runner).startup_timeout)


def _plan_end(
    runner: Runner, known: Usage, given: AppInput | None, startup_over: datetime | None, now: datetime
) -> list[Action]:
    """Return the next action for a runner that is to end."""
    runner_id = runner.runner_id
    if runner.ended:
        return []
    if runner.desired is Desired.SERVE and runner.state is not S.TERMINATING:
        if given is not None and startup_over is not None and now >= startup_over:
            reason = f"not ready within startup_timeout {given.scaling_of(runner).startup_timeout} s"
            return [Kill(runner_id=runner_id, reason=reason, cause=StopCause.STARTUP_TIMEOUT)]
        return []
    if runner.state in NO_PROCESS:
        return [Drop(runner_id=runner_id, reason=runner.reason or "stopped before it started")]
    if runner.kill:
        return [Kill(runner_id=runner_id, reason=runner.reason or "killed")]
    if runner.unrouted_at is None and runner.state is not S.TERMINATING:
        return [ConfirmUnrouted(runner_id=runner_id)]
    if runner.desired is Desired.DRAIN and known.in_flight and runner.state is not S.TERMINATING:
        return [Unrouted(runner_id=runner_id)] if runner.state is S.IDLE else []
    return [Stop(runner_id=runner_id, grace_seconds=runner.grace_seconds)]


def _needs(given: AppInput | None, runner: Runner) -> Needs:
    if given is None:
        return Needs(machine_types=(runner.machine_type,))
    coming = runner.revision_id == given.app.next_revision_id
    return Needs(
        machine_types=given.scaling_of(runner).machine_types,
        num_gpus=given.num_gpus.get(runner.revision_id),
        # A successful start of the same app ends the delay of all.
        delayed=bool(given.next_failures if coming else given.failures),
        rolling=coming,
        patience_seconds=given.scaling_of(runner).startup_timeout,
        ephemeral=given.ephemeral,
        regions=given.scaling_of(runner).regions,
    )
