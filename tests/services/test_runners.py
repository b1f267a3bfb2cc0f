"""Runners: how users see and end them. The fleet stores them."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from fal_server.core.faults import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from fal_server.core.identity import LOCAL
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.routing import Outcome
from fal_server.core.runners import Desired, RunnerState
from fal_server.ports import ExecRequest
from fal_server.services.runners import RunnerPage
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.engine import Start
from tests.fakes.platform import Platform

COMMAND = ExecRequest(command=("true",), tty=False)


async def test_a_runner_is_running_while_it_has_requests_and_expires_when_idle(platform: Platform) -> None:
    await platform.deploy(scaling={"keep_alive": 60})
    lease = await platform.get()
    platform.clock.advance(3)
    [view] = await platform.runners.list(SCOPE, since=None, include_pending=True)
    assert (view.state, view.in_flight, view.expires_in_seconds) == (RunnerState.RUNNING, 1, None)
    assert view.uptime_seconds == 3
    assert [held.request_id for held in view.leases] == ["q"]
    platform.dispatcher.release(lease, Outcome.DONE)
    platform.clock.advance(20)
    view = await platform.runners.get(SCOPE, lease.runner_id)
    assert (view.state, view.in_flight, view.expires_in_seconds) == (RunnerState.IDLE, 0, 40)
    platform.clock.advance(40)
    await platform.until(lambda: not platform.fleet.runners)
    view = await platform.runners.get(SCOPE, lease.runner_id)
    assert (view.state, view.runner.reason) == (RunnerState.TERMINATED, "idle for keep_alive 60 s")
    assert view.uptime_seconds == 63


async def test_a_runner_that_min_concurrency_keeps_does_not_expire(platform: Platform) -> None:
    await platform.deploy(scaling={"min_concurrency": 1, "keep_alive": 5})
    await platform.until(lambda: any(r.routable for r in platform.fleet.runners))
    platform.clock.advance(500)
    await platform.reconciler.tick()
    [view] = await platform.runners.list(SCOPE, since=None, include_pending=True)
    assert (view.state, view.expires_in_seconds) == (RunnerState.IDLE, None)


async def test_the_list_has_pending_and_ended_runners_on_request(platform: Platform) -> None:
    await platform.deploy("a")
    await platform.deploy("b")
    lease = await platform.get("a")
    await platform.runners.kill(SCOPE, lease.runner_id)
    await platform.until(lambda: not platform.fleet.runners)
    platform.clock.advance(60)
    platform.engine.machines = []
    waiting = platform.ask("b")
    await platform.until(lambda: any(r.not_before for r in platform.fleet.runners))
    hour = platform.clock.now() - timedelta(hours=1)

    async def states(since: datetime | None = None, *, include_pending: bool = True) -> list[str]:
        listed = await platform.runners.list(SCOPE, since=since, include_pending=include_pending)
        return [v.state.value for v in listed]

    assert await states() == ["pending"]
    assert await states(include_pending=False) == []
    assert await states(since=hour) == ["terminated", "pending"]
    assert await states(since=platform.clock.now()) == ["pending"]
    mine = await platform.runners.page(SCOPE, "a", "", since=hour, include_pending=True, size=9, token="")
    assert [v.runner.runner_id for v in mine.views] == [lease.runner_id]
    with pytest.raises(InvalidArgument, match="more than 24 hours"):
        await states(since=platform.clock.now() - timedelta(days=1, minutes=2))
    with pytest.raises(NotFound):
        await platform.runners.page(SCOPE, "c", "", since=None, include_pending=True, size=9, token="")
    waiting.cancel()


async def test_pages_have_every_runner_once_also_one_that_ends_in_between(platform: Platform) -> None:
    await platform.deploy("a", scaling={"max_concurrency": 9})
    hour = platform.clock.now() - timedelta(hours=1)
    born = [await platform.get("a") for _ in range(5)]

    async def end(number: int) -> None:
        platform.clock.advance(1)
        await platform.runners.kill(SCOPE, born[number].runner_id)
        await platform.until(lambda: platform.fleet.get(born[number].runner_id) is None)

    async def page(token: str = "", since: datetime | None = hour, name: str | None = "a") -> RunnerPage:
        return await platform.runners.page(SCOPE, name, "", since=since, include_pending=True, size=2, token=token)

    for number in (3, 1, 0):
        await end(number)
    first = await page()
    await end(4)
    second = await page(first.next_token)
    third = await page(second.next_token)
    assert third.next_token == ""
    listed = [[v.runner.runner_id for v in found.views] for found in (first, second, third)]
    assert listed == [[born[n].runner_id for n in numbers] for numbers in ([3, 1], [0, 4], [2])]
    assert [v.runner.runner_id for v in (await page(since=None, name=None)).views] == [born[2].runner_id]
    for token in ("x", "W10", "WzFlOTk5LCJhIl0", "WzEwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMCwiYSJd"):
        with pytest.raises(InvalidArgument, match="page_token"):
            await page(token)
    with pytest.raises(InvalidArgument, match="page_size is 0"):
        await platform.runners.page(SCOPE, None, "", since=hour, include_pending=True, size=0, token="")
    with pytest.raises(NotFound):
        await page(name="c")


async def test_stop_drains_then_stops_with_the_app_s_grace(platform: Platform) -> None:
    await platform.deploy(termination_grace_seconds=7)
    lease = await platform.get()
    await platform.runners.stop(SCOPE, lease.runner_id, replace_first=False)
    assert platform.dispatcher.try_acquire(app_id("a"), request_id="2", caller=None, hint=None) is None
    await platform.until(lambda: platform.the_runner().state is RunnerState.DRAINING)
    await platform.runners.stop(SCOPE, lease.runner_id, replace_first=False)  # a second time is not an error
    assert platform.engine.stopped == []
    platform.dispatcher.release(lease, Outcome.DONE)
    await platform.until(lambda: not platform.fleet.runners)
    assert platform.engine.stopped == [(lease.runner_id, 7)]
    view = await platform.runners.get(SCOPE, lease.runner_id)
    assert (view.runner.reason, view.runner.exit_code) == ("stopped by request", 143)
    for ending in (
        platform.runners.stop(SCOPE, lease.runner_id, replace_first=True),
        platform.runners.kill(SCOPE, lease.runner_id),
    ):
        with pytest.raises(NotFound, match="has ended already"):
            await ending


async def test_stop_replace_has_the_replacement_ready_first(platform: Platform) -> None:
    await platform.deploy()
    lease = await platform.get()
    platform.dispatcher.release(lease, Outcome.DONE)
    platform.engine.start_as = Start.WAITS
    await platform.runners.stop(SCOPE, lease.runner_id, replace_first=True)
    await platform.until(lambda: len(platform.engine.alive) == 2)
    new = next(r for r in platform.fleet.runners if r.runner_id != lease.runner_id)
    old = platform.fleet.get(lease.runner_id)
    assert old is not None
    assert (new.replaces, old.replaced_by, old.desired) == (old.runner_id, new.runner_id, Desired.SERVE)
    assert [slot.runner_id for slot in platform.fleet.slots(app_id("a"))] == [old.runner_id]
    platform.engine.ready(new.runner_id)
    await platform.until(lambda: platform.fleet.get(old.runner_id) is None)
    assert [slot.runner_id for slot in platform.fleet.slots(app_id("a"))] == [new.runner_id]


async def test_kill_does_not_wait_for_requests(platform: Platform) -> None:
    await platform.deploy()
    lease = await platform.get()
    await platform.runners.kill(SCOPE, lease.runner_id)
    await platform.until(lambda: not platform.fleet.runners)
    assert (platform.engine.killed, platform.engine.stopped) == ([lease.runner_id], [])
    assert (await platform.runners.get(SCOPE, lease.runner_id)).runner.reason == "killed by request"


async def test_a_kill_ends_a_runner_that_ignores_its_stop(platform: Platform) -> None:
    await platform.deploy()
    lease = await platform.get()
    platform.dispatcher.release(lease, Outcome.DONE)
    platform.engine.obeys_stop = False
    await platform.runners.stop(SCOPE, lease.runner_id, replace_first=False)
    await platform.until(lambda: platform.engine.stopped)
    await platform.runners.kill(SCOPE, lease.runner_id)
    await platform.until(lambda: not platform.fleet.runners)
    assert platform.engine.killed == [lease.runner_id]


async def test_a_pending_runner_can_be_killed_and_is_no_failed_start(platform: Platform) -> None:
    await platform.deploy()
    platform.engine.machines = []
    waiting = platform.ask()
    await platform.until(lambda: any(r.not_before for r in platform.fleet.runners))
    first = platform.the_runner()
    await platform.runners.kill(SCOPE, first.runner_id)
    await platform.until(lambda: platform.fleet.get(first.runner_id) is None)
    assert platform.fleet.failures(app_id("a"), first.revision_id).count == 0
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await platform.until(lambda: not platform.fleet.runners)
    assert platform.fleet.failures(app_id("a"), first.revision_id).count == 0


async def test_unknown_and_impossible_runners(platform: Platform) -> None:
    for call in (
        platform.runners.get(SCOPE, "x"),
        platform.runners.kill(SCOPE, "x"),
        platform.runners.exec(SCOPE, "x", COMMAND),
    ):
        with pytest.raises(NotFound, match="fal runners list"):
            await call
    with pytest.raises(InvalidArgument, match="runner_id is empty"):
        await platform.runners.get(SCOPE, "")
    await platform.deploy()
    platform.engine.machines = []
    waiting = platform.ask()
    await platform.until(lambda: any(r.not_before for r in platform.fleet.runners))
    with pytest.raises(FailedPrecondition, match=r"is pending \(there is no node\): wait"):
        await platform.runners.exec(SCOPE, platform.the_runner().runner_id, COMMAND)
    waiting.cancel()


async def test_exec_reaches_the_engine_until_the_end(platform: Platform) -> None:
    await platform.deploy()
    lease = await platform.get()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await platform.runners.exec(SCOPE, lease.runner_id, COMMAND)
    await platform.runners.kill(SCOPE, lease.runner_id)
    await platform.until(lambda: not platform.fleet.runners)
    with pytest.raises(NotFound, match="has ended"):
        await platform.runners.exec(SCOPE, lease.runner_id, COMMAND)


async def test_nothing_is_routed_once_a_drain_starts(idle: Platform) -> None:
    for ending in (idle.fleet.drain, idle.fleet.kill, idle.fleet.stop):
        runner_id = await _ready_by_hand(idle)
        task = asyncio.create_task(ending(runner_id, "why"))
        await asyncio.sleep(0)  # nothing is stored yet
        assert not list(idle.fleet.slots(app_id("a")))
        await task
        await idle.fleet.observe(Observation(runner_id=runner_id, event=Event.GONE))


async def test_a_drain_that_cannot_be_stored_leaves_the_runner_as_it_was(idle: Platform) -> None:
    runner_id = await _ready_by_hand(idle)
    lease = idle.dispatcher.try_acquire(app_id("a"), request_id="1", caller=None, hint=None)
    idle.faulty.failures_left = 1
    with pytest.raises(Unavailable, match="disk is full"):
        await idle.runners.stop(SCOPE, runner_id, replace_first=False)
    [slot] = idle.fleet.slots(app_id("a"))
    assert (slot.open, slot.in_flight) == (True, 1)
    assert lease is not None
    idle.dispatcher.release(lease, Outcome.DONE)
    assert slot.in_flight == 0


async def test_a_caller_who_hangs_up_leaves_memory_and_store_the_same(idle: Platform) -> None:
    runner_id = await _ready_by_hand(idle)
    task = asyncio.create_task(idle.fleet.drain(runner_id, "why"))
    await asyncio.sleep(0)
    task.cancel()
    await idle.until(lambda: idle.runner(runner_id).desired is Desired.DRAIN)
    stored = await idle.store.get_runner(LOCAL, runner_id)
    assert stored is not None
    assert stored.desired is Desired.DRAIN


async def test_subscribers_are_called_once_for_ready_and_for_every_end(platform: Platform) -> None:
    heard: list[str] = []
    platform.fleet.subscribe(
        ready=lambda r: heard.append("ready"),
        failed_start=lambda r: heard.append("failed"),
        ended=lambda r: heard.append("ended"),
    )
    await platform.deploy()
    lease = await platform.get()
    platform.clock.advance(11)
    platform.engine.gone(lease.runner_id, "crashed", 1)
    platform.engine.tell(Event.GONE, lease.runner_id)
    await platform.until(lambda: not platform.fleet.runners and len(platform.engine.released) == 2)
    assert heard == ["ready", "ended"]


async def _ready_by_hand(idle: Platform) -> str:
    await idle.deploy(scaling={"min_concurrency": 1}, attach=False, strategy="recreate")
    await idle.reconciler.tick()
    await idle.reconciler.tick()
    [runner] = [r for r in idle.fleet.runners if r.desired is Desired.SERVE]
    await idle.until(lambda: idle.runner(runner.runner_id).state is RunnerState.SETUP)
    await idle.fleet.observe(Observation(runner_id=runner.runner_id, event=Event.READY, port=1))
    return runner.runner_id
