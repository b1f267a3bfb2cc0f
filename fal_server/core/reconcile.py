"""What to start, drain and end: from what is wanted and what is there to a list of actions; no I/O, `now` given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fal_server.core import autoscale
from fal_server.core.apps import App
from fal_server.core.autoscale import Load
from fal_server.core.machines import Node, Resources, choose, resources_of
from fal_server.core.runners import Desired, Runner, RunnerState

S = RunnerState
_NO_PROCESS = frozenset({S.FAILURE_DELAY, S.PENDING})
# Each further start after a failed one waits this much longer, up to the most.
FAILURE_DELAY_SECONDS = 30
FAILURE_DELAY_MOST_SECONDS = 600
# Where nothing had room: how long until the next look.
UNSCHEDULABLE_DELAY_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the router knows of one runner."""

    in_flight: int = 0
    last_request_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppInput:
    """An app and all that the plan must know of it.

    Attributes:
        failures: starts of the app's revision that failed in a row, since the last one that became ready.
        next_failures: the same of the revision that a rolling deploy is moving to.
        num_gpus: how many GPUs a runner of the given revision takes.
    """

    app: App
    load: Load = field(default_factory=Load)
    failures: int = 0
    next_failures: int = 0
    num_gpus: Mapping[str, int | None] = field(default_factory=dict[str, "int | None"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Add a runner: PENDING, or FAILURE_DELAY until `not_before`."""

    app_name: str
    revision_id: str
    reason: str
    not_before: datetime | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The delay of a runner in FAILURE_DELAY is over."""

    runner_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Start a PENDING runner on a node, as a machine type that fits."""

    runner_id: str
    node: str
    machine_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A PENDING runner finds no room: say why, look again later.

    Attributes:
        hopeless: no node has so much even when it is empty.
    """

    runner_id: str
    reason: str
    not_before: datetime
    hopeless: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Send a runner no more requests; it stops when those that it has are done."""

    runner_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrouted:
    """A runner that is to stop still has requests: it is DRAINING now."""

    runner_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """SIGTERM with grace."""

    runner_id: str
    grace_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """SIGKILL at once; planned again until the runner is gone, sent once."""

    runner_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A runner that has no process yet is not wanted any more: it ends."""

    runner_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """The next revision has a ready runner: the app moves to it."""

    app_name: str
    revision_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """The next revision's runner failed to start: the app stays where it is."""

    app_name: str
    revision_id: str
    reason: str


Action = Create | Due | Launch | Hold | Drain | Unrouted | Stop | Kill | Drop | Promote | Abandon


def failure_delay(failures: int) -> timedelta:
    """How long the next start waits after so many failed ones in a row."""
    return timedelta(seconds=min(FAILURE_DELAY_MOST_SECONDS, FAILURE_DELAY_SECONDS * failures))


def plan(
    apps: Iterable[AppInput],
    runners: Sequence[Runner],
    usage: Mapping[str, Usage],
    nodes: Sequence[Node],
    now: datetime,
) -> list[Action]:
    """All that is to be done now.

    Args:
        apps: every app; a runner of an app that is not among them is drained (ephemeral runners excepted).
        runners: every runner that has not ended.
        usage: what the router knows, by runner id.
        nodes: what the engine has, in total; what living runners reserve is subtracted here.
        now: the moment of the plan.
    """
    inputs = {given.app.name: given for given in apps}
    by_app: dict[str, list[Runner]] = defaultdict(list)
    actions: list[Action] = []
    for runner in runners:
        if runner.ephemeral:
            continue
        if runner.app_name in inputs:
            by_app[runner.app_name].append(runner)
        elif runner.desired is Desired.SERVE:
            actions.append(_leave(runner, "its app was deleted"))
    for name, given in inputs.items():
        actions += _plan_app(given, by_app[name], usage, now)
    ending = {action.runner_id for action in actions if isinstance(action, Drain | Drop)}
    for runner in runners:
        timeouts = inputs[runner.app_name].app.scaling.startup_timeout if runner.app_name in inputs else None
        actions += _plan_end(runner, usage.get(runner.runner_id, Usage()), timeouts, now)
    actions += _plan_launches(inputs, [r for r in runners if r.runner_id not in ending], nodes, now)
    return actions


def _plan_app(given: AppInput, runners: list[Runner], usage: Mapping[str, Usage], now: datetime) -> list[Action]:
    app = given.app
    actions: list[Action] = []
    serving = [r for r in runners if r.desired is Desired.SERVE and not r.ended]
    actions += _plan_rollout(given, serving)
    stale = [r for r in serving if r.revision_id not in (app.revision_id, app.next_revision_id)]
    actions += [_leave(r, f"revision {r.revision_id} was replaced by {app.revision_id}") for r in stale]
    current = [r for r in serving if r.revision_id == app.revision_id]
    actions += _plan_replacements(app, current, runners)
    counted = [r for r in current if r.replaces is None or _took_over(r, current)]
    decision = autoscale.decide(app.scaling, given.load)
    missing = decision.start_below - len(counted)
    if missing > 0:
        not_before = now + failure_delay(given.failures) if given.failures else None
        # After a failure one start at a time tries whether the fault is gone.
        waiting = sum(r.state in _NO_PROCESS or r.state is S.SETUP for r in counted)
        count = missing if not given.failures else max(0, min(missing, 1 - waiting))
        actions += [
            Create(app_name=app.name, revision_id=app.revision_id, reason=decision.reason, not_before=not_before)
            for _ in range(count)
        ]
    elif len(counted) > decision.keep:
        victims = _victims(app, counted, usage, len(counted) - decision.keep, now)
        actions += [_leave(r, why) for r, why in victims]
    return actions


def _plan_rollout(given: AppInput, serving: list[Runner]) -> list[Action]:
    """A rolling deploy: one runner of the next revision must be ready before the app moves."""
    app = given.app
    if app.next_revision_id is None:
        return []
    coming = [r for r in serving if r.revision_id == app.next_revision_id]
    if any(r.routable for r in coming):
        return [Promote(app_name=app.name, revision_id=app.next_revision_id)]
    if given.next_failures and not coming:
        return [
            Abandon(app_name=app.name, revision_id=app.next_revision_id, reason="its runner ended before it was ready")
        ]
    if not coming:
        return [Create(app_name=app.name, revision_id=app.next_revision_id, reason="rolling deploy")]
    return []


def _took_over(runner: Runner, current: list[Runner]) -> bool:
    """A replacement counts once the runner that it replaces does no more."""
    return runner.replaces is not None and all(other.runner_id != runner.replaces for other in current)


def _plan_replacements(app: App, current: list[Runner], runners: list[Runner]) -> list[Action]:
    """`stop --replace`, and rollouts of the same revision: the replacement first, then the old one drains."""
    actions: list[Action] = []
    for runner in current:
        if not runner.replace_first:
            continue
        successors = [r for r in runners if r.replaces == runner.runner_id and not r.ended]
        if any(r.routable for r in successors):
            actions.append(Drain(runner_id=runner.runner_id, reason=runner.reason or "replaced"))
        elif not successors:
            actions.append(
                Create(
                    app_name=app.name,
                    revision_id=app.revision_id,
                    reason=f"replaces {runner.runner_id}",
                    replaces=runner.runner_id,
                )
            )
    return actions


def _victims(
    app: App, counted: list[Runner], usage: Mapping[str, Usage], surplus: int, now: datetime
) -> list[tuple[Runner, str]]:
    """Which runners are too many: those without a process first, then the longest idle whose keep_alive is over."""
    scaling = app.scaling
    floor = scaling.min_concurrency or scaling.concurrency_buffer
    unborn = [(r, "no longer needed") for r in counted if r.state in _NO_PROCESS]
    idle: list[tuple[datetime, Runner, str]] = []
    for runner in counted:
        known = usage.get(runner.runner_id, Usage())
        if runner.state is not S.IDLE or known.in_flight or runner.ready_at is None:
            continue
        since = known.last_request_at or runner.ready_at
        used = known.last_request_at is not None
        patience = scaling.keep_alive if used or floor else autoscale.NEVER_USED_SECONDS
        if now - since >= timedelta(seconds=patience):
            why = f"idle for keep_alive {patience} s" if used or floor else f"never used in {patience} s"
            idle.append((since, runner, why))
    idle.sort(key=lambda item: (item[0], item[1].runner_id))
    return (unborn + [(r, why) for _, r, why in idle])[:surplus]


def _leave(runner: Runner, reason: str) -> Action:
    if runner.state in _NO_PROCESS:
        return Drop(runner_id=runner.runner_id, reason=reason)
    return Drain(runner_id=runner.runner_id, reason=reason)


def _plan_end(runner: Runner, known: Usage, startup_timeout: int | None, now: datetime) -> list[Action]:
    """The next step of a runner on its way out."""
    runner_id = runner.runner_id
    if runner.ended:
        return []
    if runner.desired is Desired.SERVE:
        if (
            runner.state is S.SETUP
            and startup_timeout is not None
            and runner.started_at is not None
            and now - runner.started_at >= timedelta(seconds=startup_timeout)
        ):
            return [Kill(runner_id=runner_id, reason=f"not ready within startup_timeout {startup_timeout} s")]
        return []
    if runner.state in _NO_PROCESS:
        return [Drop(runner_id=runner_id, reason=runner.reason or "stopped before it started")]
    if runner.kill:
        return [Kill(runner_id=runner_id, reason=runner.reason or "killed")]
    if runner.state is S.TERMINATING:
        return []
    if runner.desired is Desired.DRAIN and known.in_flight:
        return [Unrouted(runner_id=runner_id)] if runner.state is S.IDLE else []
    return [Stop(runner_id=runner_id, grace_seconds=runner.grace_seconds)]


def _plan_launches(
    inputs: Mapping[str, AppInput], runners: list[Runner], nodes: Sequence[Node], now: datetime
) -> list[Action]:
    """Give PENDING runners room, oldest first; one that does not fit does not hold up a smaller one behind it."""
    actions: list[Action] = []
    free = {node.name: node.total for node in nodes}
    for runner in runners:
        if runner.state not in _NO_PROCESS and not runner.ended and runner.node in free:
            taken = _reserved(runner, inputs)
            free[runner.node] = free[runner.node].minus(taken)
    waiting = [r for r in runners if r.state in _NO_PROCESS and r.desired is Desired.SERVE]
    for runner in sorted(waiting, key=lambda r: (r.created_at, r.runner_id)):
        given = inputs.get(runner.app_name)
        # A start of the same app that succeeded meanwhile ends the delay of all.
        delayed = runner.state is not S.FAILURE_DELAY or given is None or given.failures
        if delayed and runner.not_before is not None and now < runner.not_before:
            continue
        if runner.state is S.FAILURE_DELAY:
            actions.append(Due(runner_id=runner.runner_id))
            continue
        types = given.app.scaling.machine_types if given and not runner.ephemeral else (runner.machine_type,)
        gpus = given.num_gpus.get(runner.revision_id) if given else None
        reasons: list[str] = []
        for name in sorted(free):
            machine_type, lack = choose(types, gpus, free[name])
            if machine_type is not None:
                actions.append(Launch(runner_id=runner.runner_id, node=name, machine_type=machine_type))
                free[name] = free[name].minus(resources_of(machine_type, gpus))
                break
            reasons.append(lack)
        else:
            why = "; ".join(reasons) or "there is no node"
            later = now + timedelta(seconds=UNSCHEDULABLE_DELAY_SECONDS)
            hopeless = all(choose(types, gpus, node.total)[0] is None for node in nodes)
            actions.append(Hold(runner_id=runner.runner_id, reason=why, not_before=later, hopeless=hopeless))
    return actions


def _reserved(runner: Runner, inputs: Mapping[str, AppInput]) -> Resources:
    given = inputs.get(runner.app_name)
    return resources_of(runner.machine_type, given.num_gpus.get(runner.revision_id) if given else None)
