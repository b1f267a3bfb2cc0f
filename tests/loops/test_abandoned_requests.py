"""A slot stays taken while a runner processes an abandoned request."""

from __future__ import annotations

import asyncio

import pytest

from fal_server.core.lifecycle import Event, Observation
from fal_server.core.routing import Outcome
from fal_server.core.runners import RunnerState
from fal_server.loops.abandoned_requests import AbandonedRequests
from tests.fakes.domain import START, app_id, make_runner
from tests.fakes.platform import Platform


async def busy(platform: Platform, count: int, **scaling: int) -> AbandonedRequests:
    """Return a restarted platform with one runner that has requests."""
    await platform.deploy(scaling=scaling)
    revision = platform.app().revision_id
    await platform.fleet.add([make_runner(state=RunnerState.IDLE, ready_at=START, revision_id=revision)])
    platform.engine.alive["x"] = None
    platform.engine.busy["x"] = count
    earlier = AbandonedRequests(platform.catalog, platform.fleet, platform.dispatcher, platform.engine, platform.clock)
    await platform.reattach(earlier.hold)
    platform.clock.advance(2)
    return earlier


def place(platform: Platform):
    return platform.dispatcher.try_acquire(app_id("a"), request_id="new", caller=None, hint=None)


async def test_the_slot_opens_when_the_request_has_ended(idle: Platform) -> None:
    earlier = await busy(idle, 1)
    await earlier.look()
    assert place(idle) is None
    idle.engine.busy["x"] = 0
    await earlier.look()
    lease = place(idle)
    assert lease is not None
    idle.dispatcher.release(lease, Outcome.DONE)
    assert idle.fleet.usage("x").in_flight == 0


async def test_the_slot_opens_when_the_runner_cannot_say_any_more(idle: Platform) -> None:
    earlier = await busy(idle, 1)
    del idle.engine.busy["x"]
    await earlier.look()
    assert place(idle) is not None


async def test_no_slot_is_held_beyond_the_request_timeout(idle: Platform) -> None:
    earlier = await busy(idle, 1)
    idle.clock.advance(idle.app().scaling.request_timeout)
    await earlier.look()
    assert place(idle) is not None


async def test_a_caller_who_leaves_frees_the_slot_only_when_the_app_is_done(idle: Platform) -> None:
    abandoned = await busy(idle, 0)
    lease = place(idle)
    assert lease is not None
    idle.engine.busy["x"] = 1
    idle.dispatcher.release(lease, Outcome.CLIENT_GONE)
    assert await abandoned.look() is not None
    assert (place(idle), idle.fleet.usage("x").in_flight) == (None, 1)
    idle.engine.busy["x"] = 0
    idle.clock.advance(2)
    assert await abandoned.look() is None
    assert idle.fleet.usage("x").in_flight == 0
    assert place(idle) is not None


async def test_a_request_that_has_not_begun_opens_no_slot_of_another(idle: Platform) -> None:
    abandoned = await busy(idle, 1, max_multiplexing=2)
    lease = place(idle)
    assert lease is not None
    await abandoned.look()  # the runner counts 1: the earlier one, or the new one
    assert (place(idle), idle.fleet.usage("x").in_flight) == (None, 2)
    idle.clock.advance(2)
    idle.engine.busy["x"] = 2
    await abandoned.look()
    assert (place(idle), idle.fleet.usage("x").in_flight) == (None, 2)
    idle.engine.busy["x"] = 1
    await abandoned.look()
    assert idle.fleet.usage("x").in_flight == 1


async def test_a_caller_who_leaves_before_the_request_begins_keeps_the_slot(idle: Platform) -> None:
    abandoned = await busy(idle, 0)
    lease = place(idle)
    assert lease is not None
    idle.dispatcher.release(lease, Outcome.CLIENT_GONE)
    await abandoned.look()
    assert place(idle) is None
    idle.clock.advance(2)
    await abandoned.look()
    assert place(idle) is not None


async def test_a_runner_that_cannot_be_asked_keeps_its_slots_and_stops_no_other(
    idle: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    abandoned = await busy(idle, 1)
    other = make_runner("y", state=RunnerState.IDLE, ready_at=START, revision_id=idle.app().revision_id)
    await idle.fleet.add([other])
    idle.engine.poisoned = {"x"}
    idle.engine.busy["y"] = 1
    abandoned.hold({"y": 1})
    idle.clock.advance(2)
    idle.engine.busy["y"] = 0
    await abandoned.look()
    await abandoned.look()
    assert caplog.text.count("runner x was not asked for requests; it is set aside") == 1
    assert (idle.fleet.usage("x").in_flight, idle.fleet.usage("y").in_flight) == (1, 0)
    idle.clock.advance(idle.app().scaling.request_timeout)
    await abandoned.look()
    assert idle.fleet.usage("x").in_flight == 0


async def silent(platform: Platform) -> AbandonedRequests:
    """Return a restarted platform with one runner, whose node is silent."""
    platform.engine.silent = {"x"}
    platform.fleet.node_answers("here", False)
    abandoned = await busy(platform, 1)
    await abandoned.look()
    assert place(platform) is None
    platform.fleet.node_answers("here", True)
    return abandoned


async def test_a_runner_of_a_node_that_was_silent_gets_no_request_until_it_has_said_what_it_works_on(
    idle: Platform,
) -> None:
    abandoned = await silent(idle)
    await abandoned.look()
    assert place(idle) is None
    idle.engine.silent = set()
    idle.clock.advance(2)
    await abandoned.look()
    assert (place(idle), idle.fleet.usage("x").in_flight) == (None, 1)
    idle.engine.busy["x"] = 0
    idle.clock.advance(2)
    await abandoned.look()
    assert place(idle) is not None
    assert await abandoned.look() is None


async def test_who_waits_is_served_once_the_runner_of_a_silent_node_has_answered(idle: Platform) -> None:
    abandoned = await silent(idle)
    waits = asyncio.ensure_future(
        idle.dispatcher.acquire(app_id("a"), request_id="new", caller=None, hint=None, start_timeout=None)
    )
    idle.engine.silent = set()
    idle.engine.busy["x"] = 0
    await abandoned.look()
    assert (await waits).runner_id == "x"


async def test_a_runner_is_asked_no_longer_than_its_requests_may_last(idle: Platform) -> None:
    abandoned = await silent(idle)
    idle.clock.advance(idle.app().scaling.request_timeout)
    await abandoned.look()
    assert place(idle) is not None
    assert await abandoned.look() is None


async def test_a_runner_that_ends_unasked_is_not_asked_any_more(idle: Platform) -> None:
    abandoned = await silent(idle)
    await idle.fleet.observe(Observation(runner_id="x", event=Event.GONE))
    assert await abandoned.look() is None
