"""Delays after failed starts are 30, 60, 90 seconds and more. They hold for every failure, and across restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fal_server.core.failures import failures_of
from fal_server.core.revisions import HealthCheck
from fal_server.core.runners import Desired, Runner, RunnerState
from fal_server.store import AesVault, SqlStore, open_store
from tests.fakes.domain import START, app_id, make_runner
from tests.fakes.platform import KEY, Platform, running

S = RunnerState
CHECK = HealthCheck(path="/health", failure_threshold=1, start_period_seconds=0)
SCALING = {"min_concurrency": 1, "max_concurrency": 2, "startup_timeout": 1}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    """A database that outlives the platforms on it."""
    opened = await open_store(tmp_path / "db", AesVault(KEY))
    yield opened
    await opened.close()


async def restarted(before: Platform, store: SqlStore, directory: Path) -> Platform:
    after = Platform(store, directory, before.engine)
    after.clock.time = before.clock.time
    after.prober.unhealthy = before.prober.unhealthy
    await after.catalog.load()
    await after.fleet.load()
    return after


def delayed(platform: Platform) -> Runner | None:
    """Return the only runner if it waits after a failure."""
    runners = platform.fleet.runners
    return runners[0] if len(runners) == 1 and runners[0].state is S.FAILURE_DELAY else None


async def never_healthy(platform: Platform) -> float:
    """Let a runner become ready but never healthy. Return how many seconds the next one waits."""
    last = delayed(platform)
    if last is not None:
        assert last.not_before is not None
        platform.clock.time = last.not_before
        platform.changed.notify()
    await platform.until(lambda: any(r.state is S.IDLE for r in platform.fleet.runners))
    asked = len(platform.prober.asked)
    platform.clock.advance(2)
    await platform.until(lambda: len(platform.prober.asked) > asked)
    await platform.until(lambda: (found := delayed(platform)) is not None and found is not last)
    found = delayed(platform)
    assert found is not None
    assert found.not_before is not None
    return (found.not_before - platform.clock.now()).total_seconds()


async def test_never_healthy_runners_wait_longer_each_time_across_restarts(store: SqlStore, tmp_path: Path) -> None:
    platform = Platform(store, tmp_path)
    platform.prober.unhealthy["*"] = "GET /health answered 500"
    async with running(platform):
        await platform.deploy(scaling=SCALING, health_check=CHECK)
        assert await never_healthy(platform) == 30
    for seconds in (60, 90, 120):
        platform = await restarted(platform, store, tmp_path)
        async with running(platform):
            assert await never_healthy(platform) == seconds
    platform = await restarted(platform, store, tmp_path)
    reason = platform.fleet.failures(app_id("a"), platform.app().revision_id).reason
    assert reason == "it never passed its health check: GET /health answered 500"


async def test_a_ready_runner_ends_no_delay_before_it_has_passed_its_check(platform: Platform) -> None:
    platform.prober.unhealthy["*"] = "GET /health answered 500"
    deployed = await platform.deploy(scaling={**SCALING, "min_concurrency": 2}, health_check=CHECK)
    await platform.until(lambda: [r.state for r in platform.fleet.runners] == [S.IDLE] * 2)
    platform.clock.advance(2)
    await platform.until(lambda: platform.fleet.failures(app_id("a"), deployed.revision_id).count == 2)
    await platform.until(lambda: delayed(platform))
    platform.clock.advance(60)
    await platform.until(lambda: [r.state for r in platform.fleet.runners] == [S.IDLE])
    await platform.reconciler.tick()
    assert len(platform.fleet.runners) == 1, "a second runner is tried before the first is healthy"
    platform.prober.unhealthy.clear()
    platform.clock.advance(2)
    await platform.until(lambda: [r.state for r in platform.fleet.runners] == [S.IDLE] * 2)
    assert platform.fleet.failures(app_id("a"), deployed.revision_id).count == 0


async def test_runners_that_end_soon_after_ready_wait_longer_each_time(store: SqlStore, tmp_path: Path) -> None:
    platform = Platform(store, tmp_path)
    async with running(platform):
        await platform.deploy(scaling=SCALING)
        for seconds in (30, 60, 90):
            await platform.until(lambda: any(r.routable for r in platform.fleet.runners))
            platform.engine.gone(platform.the_runner().runner_id, "exit code 1", 1)
            await platform.until(lambda: delayed(platform))
            waiting = platform.the_runner()
            assert waiting.not_before == platform.clock.now() + timedelta(seconds=seconds)
            platform.clock.advance(seconds)
    after = await restarted(platform, store, tmp_path)
    assert after.fleet.failures(app_id("a"), after.app().revision_id).count == 3


async def test_a_kill_by_startup_timeout_counts_even_if_the_controller_dies(store: SqlStore, tmp_path: Path) -> None:
    platform = Platform(store, tmp_path)
    await platform.fleet.add([make_runner("x", S.TERMINATING, reason="not ready within startup_timeout 1 s")])
    await platform.reattach()
    assert platform.fleet.failures(app_id("a"), "r1").count == 1


def test_failures_are_counted_from_rows() -> None:
    def ended(name: str, seconds: int, failed_starts: int, **changes: Any) -> Runner:
        ended_at = START + timedelta(seconds=seconds)
        return make_runner(name, S.TERMINATED, ended_at=ended_at, failed_starts=failed_starts, reason=name, **changes)

    never = lambda runner: False  # noqa: E731
    one, two = ended("one", 1, 1), ended("two", 2, 2)
    found = failures_of([two, one], never)[app_id(), "r1"]
    assert (found.count, found.at, found.reason) == (2, two.ended_at, "two")
    ready = make_runner("ready", S.IDLE, ready_at=START + timedelta(seconds=3))
    assert failures_of([one, two, ready], never) == {}
    assert failures_of([one, two, ready], lambda runner: True)[app_id(), "r1"].count == 2
    late = ended("late", 9, 1, revision_id="r1")
    assert failures_of([one, two, ready, late], never)[app_id(), "r1"].count == 1
    # A runner that was ready and then failed does not count as a success.
    early = ended("early", 5, 3, ready_at=START + timedelta(seconds=4))
    assert failures_of([one, two, early], never)[app_id(), "r1"].count == 3
    # A runner that was never healthy fails when that is found, not when it has ended.
    rejected = replace(
        ended("rejected", 9, 4), desired=Desired.GONE, unrouted_at=START + timedelta(seconds=6), ready_at=START
    )
    assert failures_of([one, two, rejected], never)[app_id(), "r1"].at == START + timedelta(seconds=6)
