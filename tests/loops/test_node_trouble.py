"""A machine in trouble, such as a full disk. Starts wait, report why, and do not count as failed."""

from __future__ import annotations

from dataclasses import replace

from fal_server.core.identity import LOCAL
from fal_server.core.runners import RunnerState
from tests.fakes.domain import BIG_NODE, app_id
from tests.fakes.engine import Start
from tests.fakes.platform import Platform

FULL = replace(BIG_NODE, trouble="its disk is full: make room")


async def test_a_start_that_the_machine_cannot_make_waits_and_is_repeated(platform: Platform) -> None:
    platform.engine.start_as = Start.TROUBLE
    deployed = await platform.deploy(scaling={"min_concurrency": 1})
    await platform.until(lambda: len(platform.fleet.runners) == 1)
    held = platform.the_runner()
    for _ in range(3):
        await platform.until(lambda: (r := platform.the_runner()).reason == "the disk is full" and not r.node)
        held = platform.the_runner()
        assert held.state is RunnerState.PENDING
        assert held.not_before is not None
        assert (held.not_before - platform.clock.now()).total_seconds() == 20
        assert platform.fleet.failures(app_id("a"), deployed.revision_id).count == 0
        platform.clock.advance(20)
        await platform.until(lambda last=held.not_before: platform.the_runner().not_before != last)
    changes = await platform.fleet.history(LOCAL, held.runner_id)
    assert len(changes) == 3, "each try is kept"
    platform.engine.start_as = Start.READY
    platform.clock.advance(20)
    await platform.until(lambda: platform.the_runner().routable)
    assert platform.the_runner().runner_id == held.runner_id


async def test_nothing_is_started_on_a_machine_in_trouble_and_a_call_waits(platform: Platform) -> None:
    platform.engine.machines = [FULL]
    await platform.deploy()
    waiting = platform.ask()
    await platform.until(lambda: platform.fleet.runners and "disk is full" in platform.the_runner().reason)
    assert platform.the_runner().reason == "nothing can be started on node 'here': its disk is full: make room"
    assert platform.engine.launched == []
    platform.engine.machines = [BIG_NODE]
    platform.clock.advance(20)
    assert (await waiting).runner_id == platform.engine.launched[0].runner_id


async def test_a_runner_that_ends_in_its_setup_there_is_no_failed_start(platform: Platform) -> None:
    platform.engine.start_as = Start.WAITS
    deployed = await platform.deploy()
    waiting = platform.ask()
    await platform.until(lambda: platform.fleet.runners and platform.the_runner().state is RunnerState.SETUP)
    first = platform.the_runner().runner_id
    platform.engine.machines = [FULL]
    platform.engine.gone(first, "OSError: No space left on device", 1)
    await platform.until(lambda: platform.fleet.get(first) is None)
    ended = await platform.fleet.find(LOCAL, first)
    assert ended is not None
    assert ended.reason == "OSError: No space left on device (its disk is full: make room)"
    assert platform.fleet.failures(app_id("a"), deployed.revision_id).count == 0
    platform.engine.machines, platform.engine.start_as = [BIG_NODE], Start.READY
    await platform.until(lambda: platform.fleet.runners)
    platform.clock.advance(20)
    assert (await waiting).runner_id != first
