"""The behavior of every engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fal_server.core.faults import Unavailable
from fal_server.core.lifecycle import Event
from fal_server.ports import ExecRequest
from tests.engines.conformance.conftest import IMAGE, EngineUnderTest


async def test_a_runner_is_reported_from_its_launch_to_its_end(under: EngineUnderTest) -> None:
    runner = await under.start()
    assert runner.node in {node.name for node in under.engine.nodes()}
    assert runner.handle
    launched = await under.until(runner, Event.LAUNCHED)
    assert (launched.node, launched.handle) == (runner.node, runner.handle)
    ready = await under.until(runner, Event.READY)
    assert ready.host
    assert ready.port
    await under.engine.stop(runner, 5)
    await under.until(runner, Event.GONE)
    events = [report.event for report in under.reports[runner.runner_id]]
    assert events == [Event.LAUNCHED, Event.READY, Event.STOPPING, Event.GONE]


async def test_a_kill_is_an_end(under: EngineUnderTest) -> None:
    runner = await under.start()
    await under.until(runner, Event.READY)
    await under.engine.kill(runner)
    assert (await under.until(runner, Event.GONE)).exit_code == 137


async def test_one_that_ends_by_itself_says_how(under: EngineUnderTest) -> None:
    runner = await under.start(under.spec(ends=True))
    gone = await under.until(runner, Event.GONE)
    assert gone.exit_code
    assert gone.reason
    with pytest.raises(Unavailable):
        await under.engine.result(runner)


async def test_the_same_start_again_is_the_first_one(under: EngineUnderTest) -> None:
    spec = under.spec()
    runner = await under.start(spec)
    assert await under.engine.start(spec) == (runner.node, runner.handle)
    await under.until(runner, Event.READY)
    assert [report.event for report in under.reports[runner.runner_id]].count(Event.LAUNCHED) == 1


async def test_a_kill_of_a_runner_that_is_not_there_is_its_end(under: EngineUnderTest) -> None:
    runner = await under.start()
    other = replace(runner, runner_id="gone-long-ago", token="another", handle="")
    await under.engine.kill(other)
    assert (await under.until(other, Event.GONE)).exit_code is None
    await under.engine.stop(other, 5)
    assert await under.engine.adopt(other) is None
    assert await under.engine.adopt(runner) is not None


async def test_an_image_that_is_missing_is_built_before_the_start(under: EngineUnderTest) -> None:
    reported: list[bool] = []

    async def building() -> None:
        reported.append(True)

    spec = under.spec(packages=IMAGE)
    under.started.append(under.runner(spec, *(await under.engine.start(spec, building))))
    await under.until(under.started[0], Event.READY)
    assert reported == [True]
    again = under.spec(packages=IMAGE)
    under.started.append(under.runner(again, *(await under.engine.start(again, building))))
    assert reported == [True]


async def test_runners_outlive_the_controller_and_are_adopted(under: EngineUnderTest) -> None:
    runner = await under.start()
    ready = await under.until(runner, Event.READY)
    await under.restart()
    adopted = await under.engine.adopt(runner)
    assert adopted is not None
    assert (adopted.node, adopted.handle, adopted.exited) == (runner.node, runner.handle, False)
    again = await under.until(runner, Event.READY)
    assert (again.host, again.port) == (ready.host, ready.port)
    await under.engine.stop(runner, 5)
    await under.until(runner, Event.GONE)


async def test_one_that_was_cut_off_before_its_handle_was_stored_is_adopted(under: EngineUnderTest) -> None:
    runner = await under.start()
    await under.restart()
    adopted = await under.engine.adopt(replace(runner, node="", handle=""))
    assert adopted is not None
    assert adopted.handle == runner.handle


async def test_what_nobody_adopted_is_left_behind_and_released(under: EngineUnderTest) -> None:
    kept, stranger = await under.start(), await under.start()
    for runner in (kept, stranger):
        await under.until(runner, Event.READY)
    assert await under.engine.left_behind([]) == []
    await under.restart()
    assert await under.engine.adopt(kept) is not None
    assert await under.engine.left_behind([]) == [stranger.runner_id]
    assert await under.engine.left_behind([stranger.runner_id]) == []
    await under.engine.release_strangers([])
    assert await under.engine.left_behind([]) == []
    assert await under.engine.adopt(stranger) is None
    assert await under.engine.adopt(kept) is not None


async def test_nothing_is_kept_of_a_released_runner(under: EngineUnderTest) -> None:
    runner = await under.start(under.spec(ends=True))
    await under.until(runner, Event.GONE)
    await under.engine.release(runner.runner_id)
    await under.engine.release(runner.runner_id)
    await under.restart()
    assert await under.engine.left_behind([]) == []
    assert await under.engine.adopt(runner) is None


async def test_a_runner_that_is_not_followed_cannot_be_reached(under: EngineUnderTest) -> None:
    runner = under.runner(under.spec())
    request = ExecRequest(command=("true",), tty=False)
    with pytest.raises(Unavailable):
        await under.engine.exec(runner, request)
    with pytest.raises(Unavailable):
        await under.engine.result(runner)


async def test_what_a_runner_uses_can_be_measured_while_it_lives(under: EngineUnderTest) -> None:
    runner = await under.start()
    await under.until(runner, Event.READY)
    first = await under.engine.resources(runner)
    second = await under.engine.resources(runner)
    assert first is not None
    assert second is not None
    assert first.memory_bytes > 0
    assert 0 < first.cpu_seconds <= second.cpu_seconds
    await under.engine.kill(runner)
    await under.until(runner, Event.GONE)
    await under.engine.release(runner.runner_id)
    assert await under.engine.resources(runner) is None
