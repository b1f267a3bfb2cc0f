"""Place PENDING runners on nodes, and decide what happens to one that fits nowhere."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fal_server.core.actions import Abandon, Action, Drop, Due, Hold, Launch
from fal_server.core.faults import InvalidArgument
from fal_server.core.gpus import assign
from fal_server.core.machines import MachineTypes, Node, Resources
from fal_server.core.quotas import QuotasOf, usual_quotas
from fal_server.core.runners import NO_PROCESS, Desired, Runner, RunnerState

# How long until the next attempt if no node had room.
UNSCHEDULABLE_DELAY_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The requirements of a runner that is to start.

    Attributes:
        machine_types: the acceptable ones, the best first.
        delayed: whether its delay after a failed start still holds.
        rolling: whether it is the first runner of the revision that a rolling deploy moves to.
        patience_seconds: how long a rolling deploy waits for room; None waits for ever.
        ephemeral: whether one call waits for this runner.
    """

    machine_types: tuple[str, ...]
    num_gpus: int | None = None
    delayed: bool = True
    rolling: bool = False
    patience_seconds: int | None = None
    ephemeral: bool = False


def plan_launches(
    runners: Sequence[Runner],
    nodes: Sequence[Node],
    needs: Callable[[Runner], Needs],
    now: datetime,
    quotas: QuotasOf = usual_quotas,
) -> list[Action]:
    """Place PENDING runners, oldest first; one that does not fit does not block smaller ones behind it.

    Args:
        runners: all that have not ended; those with a process hold what their machine type reserves.
        nodes: with their total resources.
        needs: what a runner must have to start.
        now: the time of the plan.
        quotas: how many runners with a process an account may have.
    """
    waiting = [r for r in runners if r.state in NO_PROCESS and r.desired is Desired.SERVE]
    if not waiting:
        return []
    actions: list[Action] = []
    free = _free(runners, nodes, needs)
    held = {name: set(ids) for name, ids in held_gpus(runners).items()}
    there = Counter(runner.account for runner in runners if runner.state not in NO_PROCESS and not runner.ended)
    for runner in sorted(waiting, key=lambda r: (r.created_at, r.runner_id)):
        wanted = needs(runner)
        delayed = wanted.delayed or runner.state is not RunnerState.FAILURE_DELAY
        if delayed and runner.not_before is not None and now < runner.not_before:
            continue
        if runner.state is RunnerState.FAILURE_DELAY:
            actions.append(Due(runner_id=runner.runner_id))
        else:
            most = quotas(runner.account).runners
            full = f"its account has all the runners that its quota allows: {most}"
            used_up = full if most and there[runner.account] >= most else ""
            action = _place(runner, wanted, free, held, nodes, now, used_up)
            there[runner.account] += isinstance(action, Launch)
            actions.append(action)
    return actions


def held_gpus(runners: Iterable[Runner]) -> dict[str, dict[str, Runner]]:
    """Return who has which GPU: by node, then by the GPU's id. One is free again once nothing of its runner is left."""
    held: dict[str, dict[str, Runner]] = {}
    for runner in runners:
        if runner.state not in NO_PROCESS and not runner.ended:
            held.setdefault(runner.node, {}).update(dict.fromkeys(runner.gpus, runner))
    return held


def _place(
    runner: Runner,
    wanted: Needs,
    free: dict[str, Resources],
    held: dict[str, set[str]],
    nodes: Sequence[Node],
    now: datetime,
    used_up: str,
) -> Action:
    lacks = [used_up] if used_up else []
    troubles = {node.name: node.trouble for node in nodes if node.trouble}
    by_name = {node.name: node for node in nodes}
    for name in () if used_up else sorted(free):
        if name in troubles:
            lacks.append(f"nothing can be started on node {name!r}: {troubles[name]}")
            continue
        node = by_name[name]
        machine_type, lack = _choose(wanted, node.machine_types, free[name])
        if machine_type is not None:
            taken = node.machine_types.resources_of(machine_type, wanted.num_gpus)
            gpus = assign(node.gpus, held.setdefault(name, set()), taken.gpus)
            free[name] = free[name].minus(taken)
            held[name] |= set(gpus)
            return Launch(runner_id=runner.runner_id, node=name, machine_type=machine_type, gpus=gpus)
        lacks.append(lack)
    reason = "; ".join(dict.fromkeys(lacks)) or "there is no node"
    later = now + timedelta(seconds=UNSCHEDULABLE_DELAY_SECONDS)
    hopeless = bool(nodes) and all(_choose(wanted, node.machine_types, node.total)[0] is None for node in nodes)
    if hopeless and wanted.ephemeral:
        return Drop(runner_id=runner.runner_id, reason=reason)
    if hopeless and wanted.rolling:
        return Abandon(app_id=runner.app_id, revision_id=runner.revision_id, reason=reason)
    if wanted.rolling and wanted.patience_seconds is not None:
        # The old runners hold the room until a new one is ready, so without a limit the two would wait for each other.
        over = runner.created_at + timedelta(seconds=wanted.patience_seconds)
        if now >= over:
            why = f"it found no room beside the old runners in {wanted.patience_seconds} s ({reason}): free some, or "
            return Abandon(
                app_id=runner.app_id,
                revision_id=runner.revision_id,
                reason=why + "deploy with `--strategy recreate`",
            )
        later = min(later, over)
    return Hold(runner_id=runner.runner_id, reason=reason, not_before=later, hopeless=hopeless)


def _choose(wanted: Needs, types: MachineTypes, room: Resources) -> tuple[str | None, str]:
    try:
        return types.choose(wanted.machine_types, wanted.num_gpus, room)
    except InvalidArgument as fault:  # a type of an earlier version, or one that was taken out of the operator's file
        return None, fault.message


def _free(runners: Sequence[Runner], nodes: Sequence[Node], needs: Callable[[Runner], Needs]) -> dict[str, Resources]:
    """Return what each node has left; sums by machine type, because there may be thousands of runners."""
    taken: dict[str, dict[tuple[str, int | None], int]] = {node.name: defaultdict(int) for node in nodes}
    for runner in runners:
        if runner.state not in NO_PROCESS and not runner.ended and runner.node in taken:
            taken[runner.node][runner.machine_type, needs(runner).num_gpus] += 1
    free: dict[str, Resources] = {}
    for node in nodes:
        left = node.total
        for (machine_type, num_gpus), count in taken[node.name].items():
            try:
                each = node.machine_types.resources_of(machine_type, num_gpus)
            except InvalidArgument:  # its runner goes on, but its size is unknown
                continue
            left = left.minus(each.times(count))
        free[node.name] = left
    return free
