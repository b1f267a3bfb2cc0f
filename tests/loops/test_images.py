"""Runners with a missing image: DOCKER_PULL while it is built, and events meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fal_server.core.faults import NodeTrouble
from fal_server.core.history import StateChange
from fal_server.core.identity import LOCAL
from fal_server.core.revisions import EnvironmentSpec
from fal_server.core.runners import Runner, RunnerState
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.platform import Platform

S = RunnerState
IMAGE = EnvironmentSpec(kind="container", configuration={"image": {"dockerfile_str": "FROM x"}})


async def pulling(platform: Platform) -> Runner:
    """Return a runner that waits for its image."""
    await platform.deploy(environments=(IMAGE,), scaling={"min_concurrency": 1, "max_concurrency": 1})
    await platform.until(lambda: any(r.routable for r in platform.fleet.runners))
    platform.builder.lose_everything()
    platform.builder.hold = asyncio.Event()
    first = platform.the_runner().runner_id
    platform.clock.advance(60)
    platform.engine.gone(first, "crashed", 1)
    await platform.until(lambda: any(r.state is S.DOCKER_PULL for r in platform.fleet.runners))
    return platform.the_runner()


def states(changes: list[StateChange]) -> list[RunnerState]:
    return [change.state for change in changes]


async def test_docker_pull_is_shown_while_the_image_is_built(platform: Platform) -> None:
    runner = await pulling(platform)
    assert runner.reason == "its image is fetched or built"
    [view] = await platform.runners.list(SCOPE, since=None, include_pending=True)
    assert view.state is S.DOCKER_PULL
    assert platform.builder.hold is not None
    platform.builder.hold.set()
    await platform.until(lambda: platform.the_runner().routable)
    assert states(await platform.fleet.history(LOCAL, runner.runner_id)) == [
        S.PENDING,
        S.PENDING,
        S.DOCKER_PULL,
        S.SETUP,
        S.IDLE,
    ]


async def test_an_image_that_cannot_be_built_is_a_failed_start(platform: Platform) -> None:
    runner = await pulling(platform)
    platform.builder.fails = "no such base image"
    assert platform.builder.hold is not None
    platform.builder.hold.set()
    await platform.until(lambda: platform.fleet.get(runner.runner_id) is None)
    assert platform.fleet.failures(app_id("a"), runner.revision_id).reason == "no such base image"


async def test_a_full_disk_is_no_failed_start(platform: Platform) -> None:
    runner = await pulling(platform)
    platform.builder.trouble = NodeTrouble("the disk is full")
    assert platform.builder.hold is not None
    platform.builder.hold.set()
    await platform.until(lambda: platform.fleet.get(runner.runner_id) is None)
    ended = await platform.fleet.find(LOCAL, runner.runner_id)
    assert ended is not None
    assert ended.reason == "the disk is full"
    assert platform.fleet.failures(app_id("a"), runner.revision_id).count == 0


async def test_a_controller_that_dies_meanwhile_starts_another_runner(platform: Platform, tmp_path: Path) -> None:
    runner = await pulling(platform)
    after = Platform(platform.store, tmp_path / "after", platform.engine)
    after.clock.time = platform.clock.time
    await after.catalog.load()
    await after.fleet.load()
    assert after.the_runner().state is S.DOCKER_PULL
    await after.reattach()
    assert after.fleet.runners == []
    assert after.fleet.failures(app_id("a"), runner.revision_id).count == 0
    assert platform.builder.hold is not None
    platform.builder.hold.set()
