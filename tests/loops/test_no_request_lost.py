"""Under load, no request is lost or broken. Deploys, rollouts, stops and scaling come in any order."""

from __future__ import annotations

import asyncio
import random

import pytest

from fal_server.core.apps import Strategy
from fal_server.core.faults import NotFound
from fal_server.core.routing import Outcome
from tests.fakes.domain import SCOPE, app_id
from tests.fakes.platform import Platform

CLIENTS, REQUESTS, CHANGES = 8, 240, 16
KINDS = ["deploy", "recreate", "rollout", "force", "stop", "replace", "scale", "time"]


class Rush:
    """Send requests until enough are served and all changes are made."""

    def __init__(self, platform: Platform, seed: int) -> None:
        self.platform = platform
        self.chance = random.Random(seed)
        self.served = 0
        self.changed = False

    async def client(self) -> None:
        platform = self.platform
        while not self.changed or self.served < REQUESTS:
            lease = await platform.dispatcher.acquire(
                app_id("a"), request_id="q", caller=None, hint=None, start_timeout=None
            )
            assert lease.runner_id in platform.engine.alive, "a request was sent to a runner that is gone"
            for _ in range(self.chance.randint(0, 5)):
                await asyncio.sleep(0)
            assert lease.runner_id in platform.engine.alive, "a runner ended under its request"
            assert lease.runner_id not in [stopped for stopped, _ in platform.engine.stopped]
            platform.dispatcher.release(lease, Outcome.DONE)
            self.served += 1
            await asyncio.sleep(0)

    async def changes(self) -> None:
        for _ in range(CHANGES):
            await self.change(self.chance.choice(KINDS))
        self.changed = True

    async def change(self, kind: str) -> None:
        platform, chance = self.platform, self.chance
        match kind:
            case "deploy" | "recreate":
                await platform.deploy(strategy=Strategy.ROLLING if kind == "deploy" else Strategy.RECREATE)
            case "rollout" | "force":
                await platform.apps.rollout(SCOPE, "a", "", force=kind == "force")
            case "stop" | "replace" if platform.fleet.runners:
                runner = chance.choice(platform.fleet.runners)
                try:
                    await platform.runners.stop(SCOPE, runner.runner_id, replace_first=kind == "replace")
                except NotFound:
                    return  # it has ended meanwhile
            case "scale":
                await platform.apps.update(SCOPE, "a", "", {"max_concurrency": chance.randint(1, 5)})
            case _:
                platform.clock.advance(chance.choice([1, 11]))


@pytest.mark.parametrize("seed", range(4))
async def test_no_request_is_lost_or_cut_off(platform: Platform, seed: int) -> None:
    await platform.deploy(scaling={"max_concurrency": 4, "max_multiplexing": 2, "keep_alive": 1})
    rush = Rush(platform, seed)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(rush.changes())
        for _ in range(CLIENTS):
            tasks.create_task(rush.client())
    assert rush.served >= REQUESTS
    assert all(not platform.fleet.usage(r.runner_id).in_flight for r in platform.fleet.runners)
    assert platform.engine.killed == []
    async with asyncio.timeout(20):
        while platform.fleet.runners:  # without load, all end
            platform.clock.advance(100)
            await platform.changed.wait(platform.changed.count, 0.05)
