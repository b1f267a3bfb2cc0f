"""Ephemeral runs: one runner for one call, its result or the reason. Nothing is left."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound
from fal_server.core.lifecycle import Event
from fal_server.core.machines import Node, Resources
from fal_server.core.routing import Outcome
from fal_server.ports import RunResult
from fal_server.services.views import CodeRequest, RunEnded, RunStarted
from tests.fakes.domain import SCOPE
from tests.fakes.engine import Start
from tests.fakes.platform import Platform, code_request

RETURNED = RunResult(method="cloudpickle", definition=b"42")
RAISED = RunResult(method="cloudpickle", definition=b"E", raised=True, exception_type="ValueError")


def function_request(**changes: object) -> CodeRequest:
    function = {"function": ("cloudpickle", b"pickled"), "entrypoint": None, "exposed_port": None}
    return code_request("fn", **(function | changes))


async def play(platform: Platform, **changes: object) -> list:
    async with asyncio.timeout(20):
        return [event async for event in platform.runs.run(SCOPE, function_request(**changes))]


async def ends(platform: Platform, result: RunResult | None, exit_code: int) -> None:
    await platform.until(lambda: platform.engine.alive)
    [runner_id] = platform.engine.alive
    if result is not None:
        platform.engine.results[runner_id] = result
    platform.engine.gone(runner_id, "it crashed" if result is None else "", exit_code)


@pytest.mark.parametrize("result", [RETURNED, RAISED])
async def test_a_function_s_result_comes_last_and_is_read_before_it_is_deleted(
    platform: Platform, result: RunResult
) -> None:
    events, _ = await asyncio.gather(play(platform), ends(platform, result, 0))
    started = next(e for e in events if isinstance(e, RunStarted))
    assert events[-1] == RunEnded(run_id=started.run_id, result=result)
    assert platform.engine.released == [started.run_id]
    assert list(platform.catalog.ephemeral_apps) == []
    assert platform.fleet.runners == []
    launch = platform.engine.launched[0]
    assert launch.function is not None
    assert platform.blobs.path(launch.function.blob).read_bytes() == b"pickled"


@pytest.mark.parametrize(("result", "kept"), [(RETURNED, RETURNED), (RAISED, None)])
async def test_a_run_with_a_port_may_return_a_value_but_does_not_answer_with_its_failure(
    platform: Platform, result: RunResult, kept: RunResult | None
) -> None:
    events, _ = await asyncio.gather(play(platform, exposed_port=8080), ends(platform, result, 0))
    assert events[-1].result == kept


async def test_a_crash_has_a_reason_and_no_result(platform: Platform) -> None:
    events, _ = await asyncio.gather(play(platform), ends(platform, None, 139))
    assert (events[-1].result, events[-1].reason) == (None, "it crashed")


async def test_a_rejected_start_is_reported(platform: Platform) -> None:
    platform.engine.start_as = Start.REFUSED
    events = await play(platform)
    assert (events[-1].result, events[-1].reason) == (None, "no such interpreter")


async def test_a_run_that_fits_on_no_machine_is_reported(platform: Platform) -> None:
    platform.engine.machines = [Node(name="n", total=Resources(memory_mib=99, gpus={}))]
    events = await play(platform)
    assert "512 MiB of memory asked for, 99 free" in events[-1].reason


async def test_startup_timeout_ends_a_run(platform: Platform) -> None:
    platform.engine.start_as = Start.WAITS
    playing = asyncio.create_task(play(platform, scaling={"startup_timeout": 30}))
    await platform.until(lambda: any(r.started_at for r in platform.fleet.runners))
    platform.clock.advance(30)
    events = await playing
    assert events[-1].reason == "not ready within startup_timeout 30 s"
    assert len(platform.engine.killed) == 1


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"environment_name": "nowhere"}, NotFound),
        ({"function": None}, InvalidArgument),
        ({"secret_names": ("LACK",)}, FailedPrecondition),
    ],
)
async def test_an_invalid_run_starts_nothing(platform: Platform, changes: dict, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        _ = [e async for e in platform.runs.run(SCOPE, function_request(**changes))]
    assert platform.fleet.runners == []
    assert list(platform.catalog.ephemeral_apps) == []


@pytest.mark.parametrize("name", ["tiny-app", "a--b", "mod.py::fn", "", "-", "ä" * 80])
async def test_every_name_becomes_an_app_s_name(platform: Platform, name: str) -> None:
    events = platform.runs.run(SCOPE, code_request(name))
    async with aclosing(events), asyncio.timeout(20):
        event = await anext(events)
        while not isinstance(event, RunStarted):
            event = await anext(events)
        [app] = platform.catalog.ephemeral_apps
        assert app.environment == "main"
    assert list(platform.catalog.ephemeral_apps) == []


async def test_an_app_answers_until_its_caller_hangs_up_even_if_it_is_busy(platform: Platform) -> None:
    events = platform.runs.run(SCOPE, code_request("demo"))
    async with aclosing(events), asyncio.timeout(20):
        event = await anext(events)
        while not isinstance(event, RunStarted):
            event = await anext(events)
        [app] = platform.catalog.ephemeral_apps
        found = platform.dispatcher.find("me", app.name)
        assert found is not None
        assert found.public
        lease = await platform.dispatcher.acquire(
            app.app_id, request_id="q", caller=None, hint=None, start_timeout=None
        )
        assert lease.runner_id == event.run_id
        waiting = platform.ask(app.name)
        await platform.until(lambda: platform.dispatcher.busy)
    assert platform.engine.stopped == [(lease.runner_id, 5)]
    assert platform.fleet.runners == []
    with pytest.raises(NotFound):
        await waiting
    platform.dispatcher.release(lease, Outcome.DONE)
    assert platform.catalog.get(app.app_id) is None


async def test_a_cancelled_call_ends_its_runner(platform: Platform) -> None:
    platform.engine.start_as = Start.WAITS
    playing = asyncio.create_task(play(platform))
    await platform.until(lambda: any(r.started_at for r in platform.fleet.runners))
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)
    assert platform.fleet.runners == []
    assert len(platform.engine.released) == 1


async def test_a_second_cancellation_leaves_the_end_to_the_controller(platform: Platform) -> None:
    platform.engine.start_as, platform.engine.obeys_stop = Start.WAITS, False
    playing = asyncio.create_task(play(platform))
    await platform.until(lambda: any(r.started_at for r in platform.fleet.runners))
    runner_id = platform.fleet.runners[0].runner_id
    playing.cancel()
    await platform.until(lambda: platform.engine.stopped)
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)
    assert [r.runner_id for r in platform.fleet.runners] == [runner_id]
    platform.engine.gone(runner_id)
    await platform.until(lambda: not platform.fleet.runners and platform.engine.released)


async def test_an_early_result_is_not_lost(platform: Platform) -> None:
    """The function returns before its runner's row says that it was launched."""
    platform.engine.start_as = Start.WAITS
    platform.engine.hold_start.clear()
    playing = asyncio.create_task(play(platform))
    await platform.until(lambda: platform.engine.alive)
    [runner_id] = platform.engine.alive
    platform.engine.tell(Event.READY, runner_id)
    platform.engine.results[runner_id] = RETURNED
    platform.engine.gone(runner_id, exit_code=0)
    platform.engine.hold_start.set()
    assert (await playing)[-1].result == RETURNED


async def test_a_broken_runner_of_a_server_gets_a_successor(platform: Platform) -> None:
    events = platform.runs.run(SCOPE, function_request(exposed_port=8080))
    async with asyncio.timeout(20), aclosing(events):
        seen = [event async for event in _until_started(events)]
        reading = asyncio.ensure_future(anext(events, None))
        [app] = platform.catalog.ephemeral_apps
        broken = await platform.ask(app.name)
        platform.dispatcher.release(broken, Outcome.RUNNER_FAILED)
        lease = await platform.ask(app.name)
        assert lease.runner_id != broken.runner_id == seen[-1].run_id
        platform.dispatcher.release(lease, Outcome.DONE)
        assert platform.engine.released == [broken.runner_id]
        platform.engine.gone(lease.runner_id, "it crashed", 1)
        last = await reading
    assert isinstance(last, RunEnded)
    assert (last.run_id, last.reason) == (broken.runner_id, "it crashed")
    assert platform.fleet.runners == []
    assert platform.engine.released == [broken.runner_id, lease.runner_id]


async def _until_started(events):
    async for event in events:
        yield event
        if isinstance(event, RunStarted):
            return
