"""Measure a plan over everything and over changes. There are 1 to 100 thousand runners, 20 of each app."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from fal_server.core.apps import App, AuthMode
from fal_server.core.autoscale import Load
from fal_server.core.identity import LOCAL, AppId
from fal_server.core.machines import Node, Resources
from fal_server.core.reconcile import AppInput, Look, StandingPlan, Usage, plan
from fal_server.core.runners import Runner, RunnerState
from fal_server.core.scaling import Scaling

RUNNERS = (1_000, 10_000, 100_000)
RUNNERS_OF_AN_APP = 20
ROUNDS = 5
_START = datetime(2026, 1, 1, tzinfo=UTC)


def world(apps: int, runners: int) -> tuple[list[AppInput], list[Runner], dict[str, Usage], list[Node]]:
    """Return a stable platform. Half of the runners are idle, half busy, and a plan has nothing to do."""
    each = runners // apps
    inputs = [
        AppInput(
            app=App(
                account=LOCAL,
                name=f"app-{number}",
                environment="main",
                revision_id=f"rev-{number}",
                auth_mode=AuthMode.PRIVATE,
                scaling=Scaling(max_concurrency=each + 2, min_concurrency=each, keep_alive=60),
                created_at=_START,
                updated_at=_START,
            ),
            load=Load(in_flight=each // 2),
            num_gpus={f"rev-{number}": None},
        )
        for number in range(apps)
    ]
    there: list[Runner] = []
    usage: dict[str, Usage] = {}
    for number in range(runners):
        runner = Runner(
            account=LOCAL,
            runner_id=f"runner-{number:06}",
            app_name=f"app-{number % apps}",
            environment="main",
            revision_id=f"rev-{number % apps}",
            machine_type="XS",
            token="",
            created_at=_START + timedelta(milliseconds=number),
            state=RunnerState.IDLE,
            node="here",
            port=1000,
            ready_at=_START,
        )
        there.append(runner)
        usage[runner.runner_id] = Usage(in_flight=number % 2, last_request_at=_START)
    nodes = [Node(name="here", total=Resources(memory_mib=512 * runners, gpus={}))]
    return inputs, there, usage, nodes


def milliseconds(work: Callable[[], object]) -> float:
    """Return the least CPU time of one call."""
    times: list[float] = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        times.append((time.process_time() - started) * 1000)
    return min(times)


def measured(runners: int) -> dict[str, float]:
    """Return the CPU milliseconds of plans for this many runners."""
    inputs, there, usage, nodes = world(runners // RUNNERS_OF_AN_APP, runners)
    by_app: dict[AppId, list[Runner]] = defaultdict(list)
    for runner in there:
        by_app[runner.app_id].append(runner)
    looks = [Look(app_id=i.app.app_id, given=i, runners=by_app[i.app.app_id], usage=usage) for i in inputs]
    standing, now = StandingPlan(), _START + timedelta(seconds=30)
    assert standing.plan(looks, nodes, now) == []

    def part(share: int) -> None:
        standing.due(now)
        standing.plan(looks[: len(looks) // share], nodes, now)

    return {
        "everything": milliseconds(lambda: plan(inputs, there, usage, nodes, now)),
        "a tenth changed": milliseconds(lambda: part(10)),
        "a hundredth changed": milliseconds(lambda: part(100)),
        "at rest": milliseconds(lambda: (standing.due(now), standing.plan([], nodes, now))),
    }


def main() -> None:
    """Print the figures."""
    found = {runners: measured(runners) for runners in RUNNERS}
    print(f"{'ms of CPU a plan':24}" + "".join(f"{f'{runners:,} runners':>20}" for runners in RUNNERS))
    for name in found[RUNNERS[0]]:
        print(f"{name:24}" + "".join(f"{found[runners][name]:20.3f}" for runners in RUNNERS))


if __name__ == "__main__":
    main()
