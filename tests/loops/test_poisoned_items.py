"""An item with an unexpected error is set aside. It does not stop others."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest

from fal_server.core.revisions import HealthCheck
from fal_server.loops.health import HealthLoop
from tests.fakes.domain import app_id
from tests.fakes.platform import Platform, running
from tests.fakes.queueing import queueing


class Poisoned:
    """A wrapper whose method raises for some first arguments."""

    def __init__(self, part: Any, method: str) -> None:
        self._part, self._method = part, method
        self.poison: set[Hashable] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name != self._method:
            return found

        def call(item: Any) -> Any:
            if getattr(item, "runner_id", item) in self.poison:
                raise RuntimeError("nobody foresaw this")
            return found(item)

        return call


async def test_a_runner_without_a_check_leaves_the_others_theirs(idle: Platform) -> None:
    health: Any = Poisoned(idle.health, "check_of")
    idle.health_loop = HealthLoop(health, idle.catalog, idle.fleet, idle.prober, idle.clock, idle.changed)
    check = HealthCheck(path="/health", start_period_seconds=0)
    async with running(idle):
        await idle.deploy(scaling={"min_concurrency": 2, "max_concurrency": 2}, health_check=check)
        await idle.until(lambda: len([r for r in idle.fleet.runners if idle.health.vitals(r.runner_id).proven]) == 2)
        first, second = idle.fleet.runners
        health.poison.add(first.runner_id)
        idle.prober.asked.clear()
        idle.clock.advance(15)
        await idle.until(lambda: second.port in idle.prober.asked)
        assert first.port not in idle.prober.asked
        health.poison.clear()
        idle.clock.advance(60)
        await idle.until(lambda: first.port in idle.prober.asked)


@pytest.mark.parametrize("method", ["take", "overdue"])
async def test_an_app_whose_line_fails_leaves_the_others_theirs(platform: Platform, method: str) -> None:
    backlog: Any = Poisoned(platform.backlog, method)
    platform.backlog = backlog
    for name in ("a", "b"):
        await platform.deploy(name)
    async with queueing(platform) as q:
        backlog.poison.add(app_id("a"))
        stuck = await q.submit("a")
        assert (await q.completed(await q.submit("b"), "b")).status == 200
        assert q.backlog.get(stuck) is not None
        backlog.poison.clear()
        q.pass_time(60)
        assert (await q.completed(stuck)).status == 200
