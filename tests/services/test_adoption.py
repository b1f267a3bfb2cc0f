"""Earlier controllers' runners: reattached, started again, ended or recorded as ended."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fal_server.core.identity import LOCAL
from fal_server.core.runners import Desired, Runner, RunnerState, StopCause
from fal_server.services.adoption import reattach
from tests.fakes.domain import START, app_id, make_runner
from tests.fakes.platform import Platform

S = RunnerState


async def after(platform: Platform, runner: Runner, *, lives: bool, exited: bool = False) -> Runner:
    """Return the runner's row after the reattachment."""
    await platform.fleet.add([runner])
    if lives:
        platform.engine.alive[runner.runner_id] = None
    if exited:
        platform.engine.exited.add(runner.runner_id)
    await reattach(platform.fleet, platform.engine)
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
    await reattach(idle.fleet, idle.engine)
    assert idle.engine.alive == {}


async def test_a_runner_whose_end_is_stored_is_ended_and_its_last_lines_are_read(idle: Platform) -> None:
    await idle.store.save_runners([make_runner(state=S.TERMINATED, ended_at=START)])
    idle.engine.alive["x"] = None
    await reattach(idle.fleet, idle.engine)
    assert idle.engine.killed == ["x"]
