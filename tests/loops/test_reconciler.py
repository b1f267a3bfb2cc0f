"""The reconciler: failing starts, timeouts, a failing store, and the controller's restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fal_server.core.faults import StartTimedOut
from fal_server.core.identity import LOCAL
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.routing import Outcome
from fal_server.core.runners import Desired, RunnerState
from fal_server.store import AesVault, SqlStore, open_store
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.engine import Start
from tests.fakes.platform import KEY, Platform, running

S = RunnerState


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    """A database that outlives the platforms on it."""
    opened = await open_store(tmp_path / "db", AesVault(KEY))
    yield opened
    await opened.close()


def states(platform: Platform) -> list[str]:
    return [r.state.value for r in platform.fleet.runners]


async def test_an_observation_before_the_launch_is_stored_is_not_lost(platform: Platform) -> None:
    platform.engine.hold_start.clear()
    await platform.deploy(scaling={"min_concurrency": 1})
    await platform.until(lambda: platform.engine.alive)
    assert states(platform) == ["pending"]
    platform.engine.hold_start.set()
    await platform.until(lambda: states(platform) == ["idle"])
    runner = platform.the_runner()
    assert runner.handle
    assert runner.port == 2001


async def test_an_end_before_the_launch_is_stored_is_a_failed_start(platform: Platform) -> None:
    platform.engine.hold_start.clear()
    platform.engine.start_as = Start.ENDS
    await platform.deploy(scaling={"min_concurrency": 1})
    await platform.until(lambda: platform.engine.launched)
    platform.engine.hold_start.set()
    await platform.until(lambda: states(platform) == ["failure_delay"])


async def test_failing_starts_wait_longer_each_time_and_a_success_releases_all(platform: Platform) -> None:
    platform.engine.start_as = Start.ENDS
    await platform.deploy(scaling={"min_concurrency": 2})
    for failures in (2, 3, 4):  # the first two started together
        await platform.until(lambda: states(platform) == ["failure_delay"])
        runner = platform.the_runner()
        assert platform.fleet.failures(app_id("a"), runner.revision_id).count == failures
        assert runner.not_before is not None
        assert (runner.not_before - platform.clock.now()).total_seconds() == 30 * failures
        reason = f"waits after {failures} failed start(s) in a row; the last one: setup() raised ValueError"
        assert runner.reason.startswith(f"{reason}; `fal runners logs ")
        last = runner.runner_id
        platform.clock.advance(30 * failures)
        await platform.until(lambda gone=last: platform.fleet.get(gone) is None)
    await platform.until(lambda: states(platform) == ["failure_delay"])
    platform.engine.start_as = Start.READY
    platform.clock.advance(600)
    await platform.until(lambda: states(platform) == ["idle", "idle"])


async def test_an_action_that_fails_unexpectedly_is_set_aside_and_stops_no_other(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        await platform.deploy(name, scaling={"min_concurrency": 1})
    await platform.until(lambda: states(platform) == ["idle", "idle"])
    first, second = (platform.the_runner(name).runner_id for name in ("a", "b"))
    platform.engine.poisoned = {first}
    await platform.fleet.kill(first, "test")
    await platform.until(lambda: "RuntimeError: poison" in caplog.text)
    await platform.fleet.kill(second, "test")
    await platform.until(lambda: platform.fleet.get(second) is None)
    assert platform.engine.killed == [second]
    assert f"{first} is set aside for" in caplog.text
    platform.engine.poisoned = set()
    platform.clock.advance(60)
    await platform.until(lambda: platform.fleet.get(first) is None)


async def test_an_observation_that_cannot_be_handled_stops_no_other(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        await platform.deploy(name, scaling={"min_concurrency": 1})
    await platform.until(lambda: states(platform) == ["idle", "idle"])
    first, second = (platform.the_runner(name).runner_id for name in ("a", "b"))
    platform.engine.poisoned = {first}
    platform.engine.gone(first, "exit code 1", 1)
    await platform.until(lambda: f"release of runner {first} failed" in caplog.text)
    platform.engine.gone(second, "exit code 1", 1)
    await platform.until(lambda: second in platform.engine.released)


async def test_a_runner_whose_last_lines_are_not_stored_yet_holds_up_no_other(platform: Platform) -> None:
    for name in ("a", "b"):
        await platform.deploy(name, scaling={"min_concurrency": 1})
    await platform.until(lambda: states(platform) == ["idle", "idle"])
    first, second = (platform.the_runner(name).runner_id for name in ("a", "b"))
    platform.engine.unstored = {first}
    platform.engine.gone(first, "exit code 1", 1)
    platform.engine.gone(second, "exit code 1", 1)
    await platform.until(lambda: second in platform.engine.released)
    assert first not in platform.engine.released


async def test_an_engine_that_breaks_off_its_observations_is_asked_again(
    idle: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    idle.engine.blind = 1
    async with running(idle):
        await idle.deploy(scaling={"min_concurrency": 1})
        await idle.until(lambda: states(idle) == ["idle"])
    assert "observations of the engine failed (1 in a row)" in caplog.text


async def test_a_start_that_the_engine_rejects_is_a_failed_start(platform: Platform) -> None:
    platform.engine.start_as = Start.REFUSED
    await platform.deploy(scaling={"min_concurrency": 1})
    await platform.until(lambda: states(platform) == ["failure_delay"])
    assert "the last one: no such interpreter; " in platform.the_runner().reason


async def test_a_missing_secret_is_the_reason(platform: Platform) -> None:
    await platform.secrets.set(SCOPE, "TOKEN", "value")
    deployed = await platform.deploy(secret_names=("TOKEN",))
    await platform.secrets.unset(SCOPE, "TOKEN")
    waiting = platform.ask()
    with pytest.raises(Exception, match="TOKEN"):
        await waiting
    assert "TOKEN" in platform.fleet.failures(app_id("a"), deployed.revision_id).reason


async def test_secrets_reach_the_launch_and_no_repr(platform: Platform) -> None:
    await platform.secrets.set(SCOPE, "TOKEN", "very-secret")
    await platform.deploy()
    await platform.get()
    [launch] = platform.engine.launched
    assert launch.variables["TOKEN"] == "very-secret"
    assert launch.redact == ("very-secret",)
    assert "very-secret" not in repr(launch)
    assert platform.the_runner().token not in repr(launch) + repr(platform.the_runner())


async def test_startup_timeout_kills_replaces_and_fails_direct_calls(platform: Platform) -> None:
    platform.engine.start_as = Start.WAITS
    await platform.deploy(scaling={"startup_timeout": 30, "max_concurrency": 1})
    waiting = platform.ask()
    await platform.until(lambda: states(platform) == ["setup"])
    slow = platform.the_runner()
    platform.clock.advance(30)
    await platform.until(lambda: platform.fleet.get(slow.runner_id) is None)
    ended = await platform.fleet.find(LOCAL, slow.runner_id)
    assert ended is not None
    assert ended.reason == "not ready within startup_timeout 30 s"
    assert platform.engine.killed == [slow.runner_id]
    assert platform.fleet.failures(app_id("a"), slow.revision_id).count == 1
    with pytest.raises(StartTimedOut, match="not ready within startup_timeout 30 s"):
        await waiting


async def test_a_failed_write_is_repeated(platform: Platform) -> None:
    platform.engine.hold_start.clear()
    await platform.deploy(scaling={"min_concurrency": 1})
    await platform.until(lambda: platform.engine.alive)
    platform.faulty.failures_left = 2
    platform.engine.hold_start.set()
    await platform.until(lambda: states(platform) == ["idle"])
    platform.faulty.failures_left = 1
    platform.clock.advance(60)
    platform.engine.gone(platform.the_runner().runner_id, "crashed", 1)
    await platform.until(lambda: len(platform.engine.launched) == 2)
    assert len(platform.engine.released) == 1


async def test_stop_and_kill_are_sent_once(platform: Platform) -> None:
    platform.engine.obeys_stop = False
    await platform.deploy()
    lease = await platform.get()
    platform.dispatcher.release(lease, Outcome.DONE)
    await platform.fleet.drain(lease.runner_id, "why")
    await platform.until(lambda: platform.engine.stopped)
    for _ in range(3):
        await platform.reconciler.tick()
    assert platform.engine.stopped == [(lease.runner_id, 5)]


async def test_never_more_than_max_concurrency_processes_under_a_rush(platform: Platform) -> None:
    await platform.deploy(scaling={"max_concurrency": 3})
    asked = [platform.ask(request_id=str(number)) for number in range(30)]
    async with asyncio.timeout(20):
        for task in asked:
            platform.dispatcher.release(await task, Outcome.DONE)
    assert 1 <= platform.engine.most_alive <= 3


async def test_a_stopping_controller_starts_nothing(idle: Platform) -> None:
    await idle.deploy(scaling={"min_concurrency": 1})
    idle.reconciler.stop_starting()
    for _ in range(3):
        await idle.reconciler.tick()
    assert idle.fleet.runners == []


async def test_a_restart_scales_nothing_down_for_lack_of_history(store: SqlStore, tmp_path: Path) -> None:
    before = Platform(store, tmp_path)
    async with running(before):
        await before.deploy(scaling={"keep_alive": 60})
        lease = await before.get()
        before.dispatcher.release(lease, Outcome.DONE)
        before.clock.advance(50)
    after = await restarted(before, store, tmp_path)
    after.clock.advance(11)
    async with running(after):
        await after.reconciler.tick()
        assert states(after) == ["idle"]
        [slot] = after.fleet.slots(app_id("a"))
        assert (slot.runner_id, slot.address) == (lease.runner_id, lease.address)
        after.clock.advance(60)
        await after.until(lambda: not after.fleet.runners)


async def test_a_restart_sends_stop_and_kill_again(store: SqlStore, tmp_path: Path) -> None:
    before = Platform(store, tmp_path)
    before.engine.obeys_stop = False
    async with running(before):
        await before.deploy(scaling={"min_concurrency": 2})
        await before.until(lambda: states(before) == ["idle", "idle"])
        one, two = [r.runner_id for r in before.fleet.runners]
        # As if the controller had died between storing the stop and stopping them.
        before.reconciler.stop_starting()
        await before.fleet.change(one, lambda r: r)
        for runner_id in (one, two):
            await before.fleet.observe(Observation(runner_id=runner_id, event=Event.STOPPING))
        await before.until(lambda: len(before.engine.stopped) == 2)
    after = await restarted(before, store, tmp_path)
    after.reconciler.stop_starting()
    after.engine.obeys_stop = True
    async with running(after):
        await after.until(lambda: not after.fleet.runners)


async def test_a_restart_remembers_failed_starts(store: SqlStore, tmp_path: Path) -> None:
    before = Platform(store, tmp_path)
    before.engine.start_as = Start.ENDS
    async with running(before):
        await before.deploy(scaling={"min_concurrency": 1})
        await before.until(lambda: states(before) == ["failure_delay"])
        before.clock.advance(30)
        await before.until(lambda: before.fleet.failures(app_id("a"), before.app().revision_id).count == 2)
        await before.until(lambda: states(before) == ["failure_delay"])
    after = await restarted(before, store, tmp_path)
    assert after.fleet.failures(app_id("a"), after.app().revision_id).count == 2
    async with running(after):
        await after.reconciler.tick()
        assert states(after) == ["failure_delay"]


async def test_a_drain_survives_a_restart(store: SqlStore, tmp_path: Path) -> None:
    before = Platform(store, tmp_path)
    async with running(before):
        await before.deploy()
        lease = await before.get()
        await before.fleet.drain(lease.runner_id, "stopped by request")
        await before.until(lambda: states(before) == ["draining"])
    after = await restarted(before, store, tmp_path)
    assert after.runner(lease.runner_id).desired is Desired.DRAIN
    assert list(after.fleet.slots(app_id("a"))) == []
    async with running(after):
        await after.until(lambda: not after.fleet.runners)  # its request was lost with the controller
    ended = await store.get_runner(LOCAL, lease.runner_id)
    assert ended is not None
    assert ended.reason == "stopped by request"


async def restarted(before: Platform, store: SqlStore, directory: Path) -> Platform:
    after = Platform(store, directory, before.engine)
    after.clock.time = before.clock.time
    await after.catalog.load()
    await after.fleet.load()
    return after
