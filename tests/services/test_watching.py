"""A watcher of apps and runners always has what the lists have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from fal_server.core.faults import NotFound
from fal_server.core.resources import ResourceSample
from fal_server.core.routing import Outcome
from fal_server.core.runners import RunnerState
from fal_server.live.feed import Changes
from fal_server.live.runner_view import RunnerView
from fal_server.loops.resources import ResourceLoop
from fal_server.services.views import AppView
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.platform import Platform


class Watcher:
    """Merge the messages of a platform's watches."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.runners: dict[str, RunnerView] = {}
        self.apps: dict[str, AppView] = {}
        self.versions = ["", ""]
        self.ended: dict[str, str] = {}

    async def catch_up(self) -> None:
        """Resume from the last versions, with one message each."""
        platform = self.platform
        watched = platform.runners.watch(SCOPE, "", "main", since=None, version=self.versions[0])
        changes = await _first(watched)
        if changes.snapshot:
            self.runners.clear()
        for view in changes.rows:
            self.runners[view.runner.runner_id] = view
            if view.state is RunnerState.TERMINATED:
                self.ended[view.runner.runner_id] = self.runners.pop(view.runner.runner_id).runner.reason
        for view in changes.removed:
            self.runners.pop(view.runner.runner_id, None)
        apps = await _first(platform.apps.watch(SCOPE, "main", self.versions[1]))
        if apps.snapshot:
            self.apps.clear()
        self.apps.update({app.app.name: app for app in apps.rows})
        for app in apps.removed:
            self.apps.pop(app.app.name, None)
        self.versions = [changes.version, apps.version]

    async def check(self) -> None:
        """Catch up, and compare with the lists."""
        await self.catch_up()
        listed = await self.platform.runners.list(SCOPE, since=None, include_pending=True)
        assert [_timeless(view) for view in self.runners.values()] == [_timeless(view) for view in listed]
        assert sorted(self.apps) == [view.app.name for view in await self.platform.apps.list(SCOPE, "main")]
        assert [self.apps[name] for name in sorted(self.apps)] == list(await self.platform.apps.list(SCOPE, "main"))


def _timeless(view: RunnerView) -> RunnerView:
    expires = None if view.expires_in_seconds is None else 0
    return replace(view, uptime_seconds=0.0, expires_in_seconds=expires)


async def _first(stream: AsyncGenerator[Changes]) -> Changes:
    async with asyncio.timeout(60), aclosing(stream) as changes:
        return await anext(changes)


async def test_a_watcher_has_what_the_lists_say(platform: Platform) -> None:
    watchers = [Watcher(platform), Watcher(platform)]

    async def check() -> None:
        for watcher in watchers:
            await watcher.check()

    await check()
    await platform.deploy("a", scaling={"keep_alive": 60, "max_concurrency": 3})
    await check()
    lease = await platform.get("a")
    await check()
    assert watchers[0].apps["a"].load is not None
    assert watchers[0].apps["a"].load.in_flight == 1
    other = platform.ask("a")
    await platform.until(lambda: len(platform.fleet.runners) == 2)
    await check()
    platform.dispatcher.release(lease, Outcome.DONE)
    platform.dispatcher.release(await other, Outcome.DONE)
    await check()
    await platform.apps.update(SCOPE, "a", "main", {"min_concurrency": 2})
    await check()  # none expires any more, although the runners themselves did not change
    assert {view.expires_in_seconds for view in watchers[0].runners.values()} == {None}
    await platform.runners.kill(SCOPE, lease.runner_id)
    await platform.until(lambda: platform.fleet.get(lease.runner_id) is None)
    await check()
    assert watchers[0].ended[lease.runner_id] == "killed by request"
    await platform.deploy("b")
    await platform.apps.delete(SCOPE, "a", "main")
    await platform.until(lambda: not platform.fleet.of_app(app_id()))
    await check()
    assert list(watchers[0].apps) == ["b"]


async def test_what_is_told_later_is_told_without_asking(platform: Platform) -> None:
    async with asyncio.timeout(60), aclosing(platform.apps.watch(SCOPE, "main", "")) as stream:
        assert (await anext(stream)).snapshot
        await platform.deploy("a")
        async for changes in stream:
            if any(view.app.name == "a" for view in changes.rows):
                break


async def test_a_snapshot_has_the_ended_ones_on_request(platform: Platform) -> None:
    await platform.deploy("a")
    lease = await platform.get("a")
    await platform.runners.kill(SCOPE, lease.runner_id)
    await platform.until(lambda: not platform.fleet.runners)
    since = platform.clock.now() - timedelta(minutes=5)
    found = await _first(platform.runners.watch(SCOPE, "a", "main", since=since, version=""))
    assert [view.state for view in found.rows] == [RunnerState.TERMINATED]
    assert (await _first(platform.runners.watch(SCOPE, "", "main", since=None, version=""))).rows == []


async def test_only_the_runners_of_one_app(platform: Platform) -> None:
    for name in ("a", "b"):
        await platform.deploy(name)
        await platform.get(name)
    found = await _first(platform.runners.watch(SCOPE, "b", "main", since=None, version=""))
    assert [view.runner.app_name for view in found.rows] == ["b"]
    with pytest.raises(NotFound):
        await _first(platform.runners.watch(SCOPE, "nosuch", "main", since=None, version=""))


async def test_what_a_runner_uses_is_told(platform: Platform) -> None:
    await platform.deploy("a")
    lease = await platform.get("a")
    watcher = Watcher(platform)
    loop = ResourceLoop(platform.fleet, platform.engine, platform.resources, platform.clock)
    platform.clock.advance(10)
    platform.engine.measured[lease.runner_id] = ResourceSample(cpu_seconds=5.0, memory_bytes=1 << 20)
    await loop.measure()
    await watcher.check()
    used = watcher.runners[lease.runner_id].resources
    assert used is not None
    assert (used.cpu_cores, used.memory_bytes) == (0.5, 1 << 20)
    platform.clock.advance(2)
    platform.engine.measured[lease.runner_id] = ResourceSample(cpu_seconds=9.0, memory_bytes=5 << 20)
    await loop.measure()
    await watcher.check()
    used = watcher.runners[lease.runner_id].resources
    assert used is not None
    assert (used.cpu_cores, used.memory_bytes) == (2.0, 5 << 20)
    await platform.runners.kill(SCOPE, lease.runner_id)
    await platform.until(lambda: not platform.fleet.runners)
    assert platform.resources.of(lease.runner_id) is None
