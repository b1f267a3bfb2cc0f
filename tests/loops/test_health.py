"""Health checks: runners get no traffic before they pass one. Unhealthy ones are replaced."""

from __future__ import annotations

import asyncio

import pytest

from fal_server.core.faults import FailedPrecondition
from fal_server.core.identity import LOCAL
from fal_server.core.revisions import HealthCheck
from fal_server.core.routing import Outcome
from fal_server.core.runners import Desired
from tests.fakes.platform import Platform

REGULAR = HealthCheck(path="/health", failure_threshold=2, start_period_seconds=0, allow_on_busy=True)
ON_DEMAND = HealthCheck(path="/health", call_regularly=False)
SCALING = {"min_concurrency": 1, "startup_timeout": 1}


def well(platform: Platform) -> bool:
    """Return whether the only runner has passed its first check."""
    runner = platform.the_runner()
    return runner.routable and platform.health.vitals(runner.runner_id).proven


async def test_a_deploy_moves_only_when_a_check_has_passed(platform: Platform) -> None:
    first = await platform.deploy(scaling=SCALING, health_check=REGULAR)
    await platform.until(lambda: platform.fleet.runners and well(platform))
    platform.prober.unhealthy["*"] = "GET /health answered 500"
    second = asyncio.get_running_loop().create_task(platform.deploy(scaling=SCALING, health_check=REGULAR))
    await platform.until(lambda: len(platform.prober.asked) > 1 and len(platform.fleet.runners) == 2)
    assert platform.app().revision_id == first.revision_id
    platform.prober.unhealthy.clear()
    platform.clock.advance(2)
    assert (await second).revision_id == platform.app().revision_id


async def test_a_revision_that_never_gets_healthy_is_given_up(platform: Platform) -> None:
    first = await platform.deploy(scaling=SCALING)
    platform.prober.unhealthy["*"] = "GET /health answered 500"
    second = asyncio.get_running_loop().create_task(platform.deploy(scaling=SCALING, health_check=REGULAR))

    async def time() -> None:
        while not second.done():
            platform.clock.advance(2)
            await platform.changed.wait(platform.changed.count, 0.02)

    async with asyncio.timeout(20):
        await time()
    with pytest.raises(FailedPrecondition, match="never passed its health check: GET /health answered 500"):
        await second
    assert platform.app().revision_id == first.revision_id
    assert platform.app().next_revision_id is None


async def test_a_runner_that_is_not_adopted_yet_is_not_checked(platform: Platform) -> None:
    await platform.deploy(scaling=SCALING, health_check=REGULAR)
    await platform.until(lambda: platform.fleet.runners and well(platform))
    platform.fleet.withhold(platform.the_runner().runner_id)
    platform.prober.unhealthy["*"] = "the connection was closed"
    asked = len(platform.prober.asked)
    for _ in range(5):
        platform.clock.advance(60)
        await platform.changed.wait(platform.changed.count, 0.02)
    assert len(platform.prober.asked) == asked
    platform.fleet.route_again(platform.the_runner().runner_id, lambda: None)
    platform.clock.advance(60)
    await platform.until(lambda: len(platform.prober.asked) > asked)


async def test_an_unhealthy_runner_finishes_its_requests_and_is_replaced(platform: Platform) -> None:
    await platform.deploy(scaling=SCALING, health_check=REGULAR)
    await platform.until(lambda: platform.fleet.runners and well(platform))
    lease = await platform.get()
    port = platform.the_runner().port
    assert port is not None
    platform.prober.unhealthy[port] = "GET /health was not answered within 5 s"
    for _ in range(2):
        count = len(platform.prober.asked)
        platform.clock.advance(15)
        await platform.until(lambda count=count: len(platform.prober.asked) > count)
    await platform.until(lambda: len(platform.fleet.runners) == 2)
    old = platform.fleet.get(lease.runner_id)
    assert old is not None
    assert old.desired is Desired.DRAIN
    assert old.reason == "unhealthy: GET /health was not answered within 5 s"
    assert lease.runner_id in platform.engine.alive
    platform.dispatcher.release(lease, Outcome.DONE)
    await platform.until(lambda: platform.fleet.get(lease.runner_id) is None)
    assert platform.engine.killed == []


async def test_a_response_asks_for_a_check(platform: Platform) -> None:
    await platform.deploy(scaling=SCALING, health_check=ON_DEMAND)
    await platform.until(lambda: platform.fleet.runners and well(platform))
    asked = len(platform.prober.asked)
    platform.clock.advance(100)
    lease = await platform.get()
    platform.prober.unhealthy["*"] = "POST /health answered 503"
    platform.dispatcher.answered(lease, "model-a, model-b", health_check=True)
    assert lease.slot.hints == {"model-a", "model-b"}
    platform.dispatcher.release(lease, Outcome.DONE)
    platform.changed.notify()
    await platform.until(lambda: len(platform.prober.asked) > asked)
    await platform.until(lambda: platform.fleet.get(lease.runner_id) is None)
    history = await platform.fleet.history(LOCAL, lease.runner_id)
    assert history[-1].reason == "unhealthy: POST /health answered 503"
