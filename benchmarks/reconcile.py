"""What one round of the reconciler costs: the plan over 500 apps and 2,000 runners."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from fal_server.core.apps import App, AuthMode
from fal_server.core.autoscale import Load
from fal_server.core.identity import LOCAL
from fal_server.core.machines import Node, Resources
from fal_server.core.reconcile import AppInput, Usage, plan
from fal_server.core.runners import Runner, RunnerState
from fal_server.core.scaling import Scaling

APPS = 500
RUNNERS = 2_000
ROUNDS = 30
MOST_MILLISECONDS = 50.0
_START = datetime(2026, 1, 1, tzinfo=UTC)


def world(apps: int, runners: int) -> tuple[list[AppInput], list[Runner], dict[str, Usage], list[Node]]:
    """Return a busy platform: most runners idle or busy, one in ten about to start."""
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
            load=Load(in_flight=each // 2, queued=1, eligible=1),
            num_gpus={f"rev-{number}": None},
        )
        for number in range(apps)
    ]
    there: list[Runner] = []
    usage: dict[str, Usage] = {}
    for number in range(runners):
        pending = number % 10 == 0
        runner = Runner(
            account=LOCAL,
            runner_id=f"runner-{number:06}",
            app_name=f"app-{number % apps}",
            environment="main",
            revision_id=f"rev-{number % apps}",
            machine_type="XS",
            token="",
            created_at=_START + timedelta(milliseconds=number),
            state=RunnerState.PENDING if pending else RunnerState.IDLE,
            node="" if pending else "here",
            port=None if pending else 1000,
            ready_at=None if pending else _START,
        )
        there.append(runner)
        usage[runner.runner_id] = Usage(in_flight=number % 2, last_request_at=_START)
    nodes = [Node(name="here", total=Resources(memory_mib=512 * runners, gpus={}))]
    return inputs, there, usage, nodes


def milliseconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median CPU time of one call."""
    times: list[float] = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append((time.process_time() - started) * 1000)
    return statistics.median(times)


def plan_milliseconds(apps: int = APPS, runners: int = RUNNERS, rounds: int = ROUNDS) -> float:
    """Return the median CPU time of one plan."""
    inputs, there, usage, nodes = world(apps, runners)
    now = _START + timedelta(seconds=30)
    return milliseconds(lambda: plan(inputs, there, usage, nodes, now), rounds)


def main() -> None:
    """Print the figure."""
    took = plan_milliseconds()
    verdict = "ok" if took < MOST_MILLISECONDS else "TOO SLOW"
    print(
        f"reconcile.plan  {APPS} apps  {RUNNERS} runners  {took:.1f} ms CPU (goal < {MOST_MILLISECONDS:.0f})  {verdict}"
    )


if __name__ == "__main__":
    main()
