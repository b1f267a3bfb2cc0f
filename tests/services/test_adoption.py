"""Earlier controllers' runners: reattached, started again, ended or recorded as ended."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from fal_server.core.faults import Unavailable
from fal_server.core.identity import LOCAL
from fal_server.core.lifecycle import Observation
from fal_server.core.runners import Desired, Runner, RunnerState, StopCause
from fal_server.loops.abandoned_requests import AbandonedRequests
from tests.fakes.domain import START, app_id, make_runner
from tests.fakes.platform import HANG_SECONDS, Platform

S = RunnerState


async def after(platform: Platform, runner: Runner, *, lives: bool, exited: bool = False) -> Runner:
    """Return the runner's row after the reattachment."""
    await platform.fleet.add([runner])
    if lives:
        platform.engine.alive[runner.runner_id] = None
    if exited:
        platform.engine.exited.add(runner.runner_id)
    await platform.reattach()
    found = await platform.fleet.find(LOCAL, runner.runner_id)
    assert found is not None
    return found


@pytest.mark.parametrize("state", [S.SETUP, S.IDLE, S.DRAINING, S.TERMINATING])
async def test_a_living_runner_keeps_its_state(idle: Platform, state: RunnerState) -> None:
    assert (await after(idle, make_runner(state=state), lives=True)).state is state


async def test_an_interrupted_start_goes_on(idle: Platform) -> None:
    found = await after(idle, make_runner(), lives=True)
    assert (found.state, found.node, found.desired) == (S.SETUP, "here", Desired.SERVE)
    assert found.handle


@pytest.mark.parametrize("state", [S.PENDING, S.FAILURE_DELAY])
async def test_a_runner_that_was_not_started_waits_on(idle: Platform, state: RunnerState) -> None:
    assert await after(idle, make_runner(state=state), lives=False) == make_runner(state=state)


@pytest.mark.parametrize("state", [S.SETUP, S.IDLE])
async def test_a_runner_that_ended_with_its_machine_is_no_failed_start(idle: Platform, state: RunnerState) -> None:
    ready_at = START - timedelta(seconds=1)
    found = await after(idle, make_runner(state=state, ready_at=ready_at if state is S.IDLE else None), lives=False)
    assert (found.state, found.reason) == (S.TERMINATED, "it was gone when the controller came back")
    assert found.stop_cause is StopCause.LOST
    assert idle.fleet.failures(app_id("a"), "r1").count == 0


async def test_the_reason_for_an_end_is_kept(idle: Platform) -> None:
    runner = make_runner(state=S.TERMINATING, desired=Desired.DRAIN, reason="stopped by request")
    found = await after(idle, runner, lives=False)
    assert (found.reason, found.stop_cause) == ("stopped by request", None)


async def test_a_runner_whose_worker_has_ended_gets_no_request(idle: Platform) -> None:
    await after(idle, make_runner(state=S.IDLE), lives=True, exited=True)
    assert list(idle.fleet.slots(app_id("a"))) == []


@pytest.mark.parametrize("state", [S.PENDING, S.SETUP, S.IDLE])
async def test_an_ephemeral_runner_ends_with_its_call(idle: Platform, state: RunnerState) -> None:
    found = await after(idle, make_runner(state=state, ephemeral=True), lives=True)
    assert found.kill
    assert not found.routable
    assert found.state is not S.TERMINATED


async def test_a_call_whose_runner_was_not_started_is_over(idle: Platform) -> None:
    assert (await after(idle, make_runner(ephemeral=True), lives=False)).ended


@pytest.mark.parametrize("state", [S.PENDING, S.SETUP, S.IDLE])
async def test_one_whose_token_cannot_be_opened_is_ended(idle: Platform, state: RunnerState) -> None:
    found = await after(idle, make_runner(state=state, token=""), lives=True)
    assert (found.state, idle.engine.alive) == (S.TERMINATED, {})
    assert "its token in the database is damaged" in found.reason
    assert idle.fleet.failures(app_id("a"), "r1").count == 0


async def test_unknown_runners_are_ended(idle: Platform) -> None:
    idle.engine.alive["stranger"] = None
    await idle.reattach()
    assert idle.engine.alive == {}


async def test_a_runner_whose_end_is_stored_is_ended_and_its_last_lines_are_read(idle: Platform) -> None:
    await idle.store.save_runners([make_runner(state=S.TERMINATED, ended_at=START)])
    idle.engine.alive["x"] = None
    await idle.reattach()
    assert idle.engine.killed == ["x"]


async def test_every_node_is_heard_before_plans_are_made(idle: Platform) -> None:
    """A runner may be on any node if its row names none."""
    abandoned = await on_two_nodes(idle)
    adoption = idle.adoption(abandoned.hold, "n3")
    await adoption.begin(["n1", "n2", "n3"])
    adopting = asyncio.ensure_future(adoption.run())
    await idle.until(lambda: adoption.left == 0)
    await asyncio.sleep(0)
    assert not adoption.done.is_set()
    adopting.cancel()
    await asyncio.gather(adopting, return_exceptions=True)


async def test_a_node_that_goes_away_after_its_runners_answer_is_asked_again(
    idle: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned = await on_two_nodes(idle)
    idle.engine.busy = {"x": 1, "y": 1}
    observe = idle.fleet.observe

    async def store(observation: Observation) -> Runner | None:
        stored = await observe(observation)
        if observation.runner_id == "x":
            idle.fleet.node_answers("n1", False)
        return stored

    monkeypatch.setattr(idle.fleet, "observe", store)
    adoption = idle.adoption(abandoned.hold)
    await adoption.begin(["n1", "n2"])
    await adoption.run()
    idle.fleet.node_answers("n1", True)
    assert idle.fleet.is_withheld("x")
    await abandoned.look()
    assert [idle.fleet.usage(each).in_flight for each in ("x", "y")] == [1, 1]


@pytest.mark.parametrize("method", ["adopt", "release_strangers"])
async def test_what_fails_again_and_again_holds_nothing_up(
    idle: Platform, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    abandoned = await on_two_nodes(idle)
    real = getattr(idle.engine, method)

    async def fail(*arguments: object) -> object:
        if method == "adopt" and getattr(arguments[0], "runner_id", "") != "x":
            return await real(*arguments)
        raise Unavailable("a process on n1 cannot be ended")

    monkeypatch.setattr(idle.engine, method, fail)
    adoption = idle.adoption(abandoned.hold)
    await adoption.begin(["n1", "n2"])
    async with asyncio.timeout(HANG_SECONDS):
        await adoption.run()
    assert (adoption.done.is_set(), adoption.left) == (True, 0)


async def on_two_nodes(platform: Platform) -> AbandonedRequests:
    """Deploy an app with an earlier runner on each of two nodes."""
    await platform.deploy(scaling={"max_concurrency": 2})
    revision = platform.app().revision_id
    for name, node in (("x", "n1"), ("y", "n2")):
        runner = make_runner(name, state=S.IDLE, ready_at=START, revision_id=revision, node=node)
        await platform.fleet.add([runner])
        platform.engine.alive[name] = None
    return AbandonedRequests(platform.catalog, platform.fleet, platform.dispatcher, platform.engine, platform.clock)


def place(platform: Platform) -> str | None:
    lease = platform.dispatcher.try_acquire(app_id("a"), request_id="new", caller=None, hint=None)
    return None if lease is None else lease.runner_id


async def test_each_runner_of_a_node_is_routed_to_once_it_has_answered(
    idle: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    monkeypatch.setattr("fal_server.services.adoption.log.info", lambda text, *values: said.put_nowait(text % values))
    abandoned = await on_two_nodes(idle)
    adoption = idle.adoption(abandoned.hold, "n2")
    await adoption.begin(["n1", "n2"])
    assert (place(idle), adoption.left) == (None, 2)
    waits = asyncio.ensure_future(
        idle.dispatcher.acquire(app_id("a"), request_id="waits", caller=None, hint=None, start_timeout=None)
    )
    adopting = asyncio.ensure_future(adoption.run())
    assert (await waits).runner_id == "x"
    assert (place(idle), adoption.left, adoption.done.is_set()) == (None, 1, False)
    assert (await said.get()).startswith("1 of 2 runners are still to be adopted")
    adopting.cancel()


async def test_a_runner_of_a_node_is_routed_to_after_its_earlier_requests_have_their_slots(idle: Platform) -> None:
    abandoned = await on_two_nodes(idle)
    idle.engine.busy["x"] = 1
    adoption = idle.adoption(abandoned.hold)
    await adoption.begin(["n1", "n2"])
    waiting = [
        asyncio.ensure_future(
            idle.dispatcher.acquire(app_id("a"), request_id=name, caller=None, hint=None, start_timeout=None)
        )
        for name in ("first", "second")
    ]
    await adoption.run()
    [served], [waits] = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert served.result().runner_id == "y"
    assert adoption.done.is_set()
    waits.cancel()


async def test_an_adoption_that_cannot_be_stored_goes_on(idle: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned = await on_two_nodes(idle)
    idle.engine.busy = {"x": 1, "y": 1}
    observe, failed = idle.fleet.observe, []

    async def fails_once(seen: Observation) -> Runner | None:
        if not failed:
            failed.append(seen)
            raise Unavailable("the database does not answer")
        return await observe(seen)

    monkeypatch.setattr(idle.fleet, "observe", fails_once)
    adoption = idle.adoption(abandoned.hold)
    await adoption.begin(["n1", "n2"])
    await adoption.run()
    assert (failed != [], adoption.left) == (True, 0)
    assert (idle.fleet.usage("x").in_flight, idle.fleet.usage("y").in_flight) == (1, 1)
