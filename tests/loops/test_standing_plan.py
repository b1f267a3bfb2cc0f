"""In every platform's history, its reconciler's plan equals a full plan."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fal_server.core.actions import Action
from fal_server.core.apps import Strategy
from fal_server.core.faults import Fault
from fal_server.core.identity import AppId
from fal_server.core.reconcile import Look, StandingPlan
from fal_server.core.revisions import HealthCheck
from fal_server.core.routing import Outcome
from fal_server.live.dispatch import Lease
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.engine import Start
from tests.fakes.platform import Platform

NAMES = ("a", "b", "c")
STEPS = 60


@pytest.fixture
async def followed(idle: Platform) -> AsyncIterator[Platform]:
    """Return a platform that gets its engine's observations. It plans on the test's command."""
    watch = asyncio.create_task(idle.reconciler.watch())
    yield idle
    idle.reconciler.stop_starting()
    await idle.reconciler.close()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    await idle.dispatcher.close()


class Life:
    """Apply one action after another to a platform."""

    def __init__(self, platform: Platform, seed: int) -> None:
        self.platform = platform
        self.chance = random.Random(seed)
        self.leases: list[Lease] = []
        self.waiting: list[asyncio.Task[Lease]] = []
        self.deploys: list[asyncio.Task[object]] = []

    async def step(self) -> None:
        name = self.chance.choice(NAMES)
        match self.chance.randrange(10):
            case 0 | 1 | 2:
                await self.change_app(name)
            case 3 | 4 | 5 if self.platform.fleet.runners:
                await self.change_runner(self.chance.choice(self.platform.fleet.runners).runner_id)
            case 6 | 7:
                self.change_requests(name)
            case _:
                self.platform.clock.advance(self.chance.choice([0.5, 5, 11, 31]))
        for _ in range(20):
            await asyncio.sleep(0)

    async def change_app(self, name: str) -> None:
        platform, chance = self.platform, self.chance
        match chance.randrange(4):
            case 0:
                await platform.apps.update(SCOPE, name, "", {"max_concurrency": chance.randint(1, 4)})
            case 1 if chance.random() < 0.3:
                await platform.apps.delete(SCOPE, name, "")
            case _:
                checked = chance.choice([None, HealthCheck(path="/health")])
                scaling = {"min_concurrency": chance.randrange(2), "max_concurrency": 3, "keep_alive": 30}
                strategy = chance.choice(list(Strategy))
                deploy = platform.deploy(name, strategy=strategy, scaling=scaling, health_check=checked)
                self.deploys.append(asyncio.create_task(deploy))  # it may wait for later steps

    async def change_runner(self, runner_id: str) -> None:
        platform, chance = self.platform, self.chance
        platform.engine.start_as = chance.choice([Start.READY, Start.READY, Start.WAITS, Start.ENDS])
        match chance.randrange(3):
            case 0:
                await platform.fleet.drain(runner_id, "stopped by request")
            case 1:
                platform.engine.gone(runner_id, "it crashed", 1)
            case _:
                platform.engine.ready(runner_id)

    def change_requests(self, name: str) -> None:
        platform, chance = self.platform, self.chance
        match chance.randrange(4):
            case 0 if self.leases:
                lease = self.leases.pop(chance.randrange(len(self.leases)))
                platform.dispatcher.release(lease, chance.choice([Outcome.DONE, Outcome.DONE, Outcome.UNAVAILABLE]))
            case 1 if self.waiting:
                self.waiting.pop(0).cancel()
            case _:
                lease = platform.dispatcher.try_acquire(app_id(name), request_id="q", caller=None, hint=None)
                if lease is not None:
                    self.leases.append(lease)
                elif platform.catalog.get(app_id(name)) is not None:
                    self.waiting.append(platform.ask(name, start_timeout=1e6))

    async def end(self) -> None:
        tasks: tuple[asyncio.Task[Any], ...] = (*self.waiting, *self.deploys)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def over_everything(platform: Platform) -> list[Action]:
    """Return a plan without earlier looks."""
    reconciler, catalog = platform.reconciler, platform.catalog
    known = {app.app_id for app in (*catalog.apps, *catalog.ephemeral_apps)}
    known |= {runner.app_id for runner in platform.fleet.runners}
    return StandingPlan().plan(map(reconciler.look, known), platform.engine.nodes(), platform.clock.now())


@pytest.mark.parametrize("seed", range(6))
async def test_the_reconciler_plans_what_a_plan_over_everything_has(followed: Platform, seed: int) -> None:
    life = Life(followed, seed)
    for name in NAMES:
        await followed.deploy(name, strategy=Strategy.RECREATE)
    try:
        for _ in range(STEPS):
            try:
                await life.step()
            except Fault:
                continue  # the platform may refuse it
            whole = over_everything(followed)
            assert sorted(map(repr, await followed.reconciler.planned())) == sorted(map(repr, whole))
            if life.chance.random() < 0.7:
                await followed.reconciler.tick()
    finally:
        await life.end()


async def test_an_app_that_changes_after_its_examination_is_examined_again(
    followed: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciler = followed.reconciler
    for name in NAMES:
        await followed.deploy(name, strategy=Strategy.RECREATE)
    await reconciler.planned()
    plain, looked = reconciler.look, list[AppId]()

    def look(app: AppId) -> Look:
        looked.append(app)
        if app == app_id("b"):
            reconciler._unplanned.update(looked)  # as the end of a start does, which is another task
        return plain(app)

    monkeypatch.setattr(reconciler, "look", look)
    reconciler._unplanned.update([app_id("a"), app_id("b")])
    await reconciler.planned()
    before = set(looked)
    looked.clear()
    await reconciler.planned()
    assert app_id("b") in before
    assert app_id("b") in looked


async def test_a_failing_plan_loses_no_app(followed: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    reconciler = followed.reconciler
    for name in NAMES:
        await followed.deploy(name, strategy=Strategy.RECREATE)
    plain, looked = reconciler.look, list[AppId]()

    def look(app: AppId) -> Look:
        looked.append(app)
        return plain(app)

    with monkeypatch.context() as failing:
        failing.setattr(reconciler, "look", lambda _: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            await reconciler.planned()
    monkeypatch.setattr(reconciler, "look", look)
    await reconciler.planned()
    assert {app_id(name) for name in NAMES} <= set(looked)
