"""Places PENDING runners on nodes, and decides what happens to one that fits on none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias, TypeVar

from fal_server.core.actions import Abandon, Drop, Due, Hold, Launch
from fal_server.core.faults import InvalidArgument
from fal_server.core.gpus import assign
from fal_server.core.identity import AccountId
from fal_server.core.machines import MachineTypes, Node, Resources
from fal_server.core.quotas import QuotasOf, usual_quotas
from fal_server.core.runners import NO_PROCESS, Runner, RunnerState

_Key = TypeVar("_Key", bound=Hashable)
Placing: TypeAlias = Due | Launch | Hold | Drop | Abandon
"""The possible actions for a runner that is to start."""
# Seconds until the next attempt if no node had room.
UNSCHEDULABLE_DELAY_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The requirements of a runner that is to start.

    Attributes:
        machine_types: the acceptable ones, best first.
        delayed: whether it still waits after a failed start.
        rolling: whether it is the first runner of a rolling deploy's target revision.
        patience_seconds: how long a rolling deploy waits for room; None means forever.
        ephemeral: whether one call waits for this runner.
    """

    machine_types: tuple[str, ...]
    num_gpus: int | None = None
    delayed: bool = True
    rolling: bool = False
    patience_seconds: int | None = None
    ephemeral: bool = False


class Room:
    """Counts the resources that runners with a process hold on each node, and those that accounts may have."""

    def __init__(self) -> None:
        self._taken: dict[str, Counter[tuple[str, int | None]]] = defaultdict(Counter)
        self._gpus: dict[str, Counter[str]] = defaultdict(Counter)
        self._runners: Counter[AccountId] = Counter()

    def change(self, held: TakenRoom, by: int) -> None:
        """Add the resources of some runners (1), or subtract them (-1)."""
        for (node, machine_type, num_gpus), count in held.places.items():
            _count(self._taken[node], (machine_type, num_gpus), count * by)
        for node, gpu in held.gpus:
            _count(self._gpus[node], gpu, by)
        for account, count in held.runners.items():
            _count(self._runners, account, count * by)

    def runners(self, account: AccountId) -> int:
        """Return how many runners with a process an account has."""
        return self._runners[account]

    def gpus(self, node: str) -> set[str]:
        """Return the ids of a node's GPUs that runners hold."""
        return set(self._gpus.get(node, ()))

    def free(self, node: Node) -> Resources:
        """Return a node's free resources."""
        left = node.total
        for (machine_type, num_gpus), count in self._taken.get(node.name, {}).items():
            try:
                each = node.machine_types.resources_of(machine_type, num_gpus)
            except InvalidArgument:  # its runner continues, but its size is unknown
                continue
            left = left.minus(each.times(count))
        return left


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenRoom:
    """The resources that some runners hold.

    Attributes:
        count: the number of runners.
        places: the number by node, machine type and number of GPUs.
        gpus: the node and the id of each GPU.
        runners: the number with a process, by account.
    """

    count: int
    places: Mapping[tuple[str, str, int | None], int]
    gpus: tuple[tuple[str, str], ...]
    runners: Mapping[AccountId, int]

    @classmethod
    def of(cls, runners: Iterable[Runner], num_gpus: Callable[[Runner], int | None]) -> TakenRoom:
        """Return the resources that runners hold; those without a process, and ended ones, hold none.

        Args:
            num_gpus: the number of GPUs of a runner, instead of its machine type's.
        """
        living = [r for r in runners if r.state not in NO_PROCESS and not r.ended]
        return cls(
            count=len(living),
            places=Counter((r.node, r.machine_type, num_gpus(r)) for r in living),
            gpus=tuple((r.node, gpu) for r in living if r.gpus for gpu in r.gpus),
            runners=Counter(r.account for r in living),
        )


def _count(counter: Counter[_Key], key: _Key, by: int) -> None:
    counter[key] += by
    if not counter[key]:
        del counter[key]


def plan_launches(
    waiting: Iterable[tuple[Runner, Needs]],
    room: Room,
    nodes: Sequence[Node],
    now: datetime,
    quotas: QuotasOf = usual_quotas,
) -> list[Placing]:
    """Place PENDING runners, oldest first; one that does not fit does not block smaller ones behind it.

    Args:
        waiting: the runners without a process that are to start, with their requirements.
        room: the resources that all others hold.
        nodes: with their total resources.
        now: the time of the plan.
        quotas: how many runners with a process an account may have.
    """
    due = [(runner, needs) for runner, needs in waiting if launch_due_at(runner, needs, now) <= now]
    if not due:
        return []
    actions: list[Placing] = []
    free = {node.name: room.free(node) for node in nodes}
    held = {node.name: room.gpus(node.name) for node in nodes}
    launched: Counter[AccountId] = Counter()
    for runner, wanted in sorted(due, key=lambda item: (item[0].created_at, item[0].runner_id)):
        if runner.state is RunnerState.FAILURE_DELAY:
            actions.append(Due(runner_id=runner.runner_id))
        else:
            most = quotas(runner.account).runners
            full = f"its account has all the runners that its quota allows: {most}"
            used_up = full if most and room.runners(runner.account) + launched[runner.account] >= most else ""
            action = _place(runner, wanted, free, held, nodes, now, used_up)
            launched[runner.account] += isinstance(action, Launch)
            actions.append(action)
    return actions


def launch_due_at(runner: Runner, needs: Needs, now: datetime) -> datetime:
    """Return when the next action for a starting runner is due, which may be now."""
    delayed = needs.delayed or runner.state is not RunnerState.FAILURE_DELAY
    return runner.not_before if delayed and runner.not_before is not None else now


def held_gpus(runners: Iterable[Runner]) -> dict[str, dict[str, Runner]]:
    """Return the holder of each GPU: by node, then by the GPU's id.

    A GPU is free once its runner is completely gone.
    """
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
) -> Launch | Hold | Drop | Abandon:
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
            gpus = assign(node.gpus, held[name], taken.gpus)
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
    except InvalidArgument as fault:  # a type of an earlier version, or one that the operator has removed
        return None, fault.message
