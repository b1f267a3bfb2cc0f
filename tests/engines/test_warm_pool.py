"""Warm shims. One serves a runner like any other shim, and they end with the engine."""

from __future__ import annotations

import asyncio
import os
import signal

import psutil

from fal_runner.process.proc import has_variable, tag_of
from fal_runner.worker.process_tag import NO_TAG, TAG_VARIABLE
from fal_server.core.lifecycle import Event


def waiting() -> list[int]:
    """List the shims of this process that have no runner yet."""
    children = psutil.Process().children()
    return [child.pid for child in children if has_variable(child.pid, TAG_VARIABLE, NO_TAG)]


async def warm_pool(size: int = 1) -> list[int]:
    """Wait for this many warm shims. A new process has no readable environment until its exec is done."""
    async with asyncio.timeout(60):
        while len(found := waiting()) != size:  # noqa: ASYNC110 - another process notifies nobody
            await asyncio.sleep(0)
    return found


def wait_for_the_end() -> None:
    import signal

    signal.pause()


async def test_a_runner_gets_the_shim_that_waits_and_it_is_its_own(rig):
    await rig.restart(warm_shims=1)
    (warm_shim,) = await warm_pool()
    runner = await rig.start(wait_for_the_end)
    assert rig.shim(runner).pid == warm_shim
    assert has_variable(warm_shim, TAG_VARIABLE, tag_of(runner.token)), "its tag is visible from outside"
    assert await rig.restart(adopt=runner), "a later controller finds it"
    await rig.engine.kill(runner)
    await rig.until(runner, Event.GONE)
    assert rig.alive(runner) == []


async def test_the_next_one_is_started_when_the_engine_is_left_alone(rig):
    await rig.restart(warm_shims=1)
    (warm_shim,) = await warm_pool()
    runner = await rig.start(wait_for_the_end)
    async with asyncio.timeout(30):
        while not (left := waiting()):
            await rig.run(runner, "true")
    assert left != [warm_shim]


async def test_one_that_died_is_no_obstacle(rig):
    await rig.restart(warm_shims=1)
    (warm_shim,) = await warm_pool()
    os.kill(warm_shim, signal.SIGKILL)
    runner = await rig.start(wait_for_the_end)
    assert rig.shim(runner).pid != warm_shim
    assert not psutil.pid_exists(warm_shim)


async def test_those_that_wait_end_with_the_engine(rig):
    await rig.restart(warm_shims=2)
    await warm_pool(2)
    await rig.restart()
    assert waiting() == []
