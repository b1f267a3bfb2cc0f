"""Places PENDING runners. It decides what happens to one for which there is no place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from fal_server.core.actions import Abandon, Drop, Due, Hold, Launch
from fal_server.core.identity import AccountId
from fal_server.core.machines import Node
from fal_server.core.places import FreeRoom, Lack, Needs, Placement, Reserve, Room, first_fit
from fal_server.core.quotas import QuotasOf, usual_quotas
from fal_server.core.runners import NO_PROCESS, Runner, RunnerState

Placing: TypeAlias = Due | Launch | Hold | Drop | Abandon
"""The possible actions for a runner that is to start."""


def plan_launches(
    waiting: Iterable[tuple[Runner, Needs]],
    room: Room,
    nodes: Sequence[Node],
    now: datetime,
    quotas: QuotasOf = usual_quotas,
    reserve: Reserve = first_fit,
) -> list[Placing]:
    """Place PENDING runners, oldest first. One that does not fit does not block smaller ones behind it.

    Args:
        waiting: the runners without a process that are to start, with their requirements.
        room: the resources that all others hold.
        nodes: with their total resources.
        now: the time of the plan.
        quotas: how many runners with a process an account may have.
        reserve: decides where a runner starts.
    """
    due = [(runner, needs) for runner, needs in waiting if launch_due_at(runner, needs, now) <= now]
    if not due:
        return []
    actions: list[Placing] = []
    free = FreeRoom(nodes, room)
    launched: Counter[AccountId] = Counter()
    undecided: Counter[AccountId] = Counter()
    for runner, wanted in sorted(due, key=lambda item: (item[0].created_at, item[0].runner_id)):
        if runner.state is RunnerState.FAILURE_DELAY:
            actions.append(Due(runner_id=runner.runner_id))
        else:
            most = quotas(runner.account).runners
            full = f"its account has all the runners that its quota allows: {most}"
            used = room.runners(runner.account) + launched[runner.account]
            if most and used < most <= used + undecided[runner.account]:
                continue  # those that have been asked for may use up the quota, and what is asked for is reserved
            found = Lack(reason=full) if most and used >= most else reserve(runner, wanted, free)
            undecided[runner.account] += found is None
            action = None if found is None else _placed(runner, wanted, found, now)
            if action is not None:
                launched[runner.account] += isinstance(action, Launch)
                actions.append(action)
    return actions


def launch_due_at(runner: Runner, needs: Needs, now: datetime) -> datetime:
    """Return when a starting runner's next action is due. It may be now."""
    delayed = needs.delayed or runner.state is not RunnerState.FAILURE_DELAY
    return runner.not_before if delayed and runner.not_before is not None else now


def held_gpus(runners: Iterable[Runner]) -> dict[str, dict[str, Runner]]:
    """Return the holder of each GPU by node, then by id.

    A GPU is free once its runner is completely gone.
    """
    held: dict[str, dict[str, Runner]] = {}
    for runner in runners:
        if runner.state not in NO_PROCESS and not runner.ended:
            held.setdefault(runner.node, {}).update(dict.fromkeys(runner.gpus, runner))
    return held


def _placed(
    runner: Runner, wanted: Needs, found: Placement | Lack, now: datetime
) -> Launch | Hold | Drop | Abandon | None:
    if isinstance(found, Placement):
        return Launch(runner_id=runner.runner_id, node=found.node, machine_type=found.machine_type, gpus=found.gpus)
    reason, hopeless = found.reason, found.hopeless
    later = now + timedelta(seconds=found.again_seconds)
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
    if not found.again_seconds and reason == runner.reason:
        return None  # it is asked for at every plan, and this is no news
    return Hold(runner_id=runner.runner_id, reason=reason, not_before=later, hopeless=hopeless)
