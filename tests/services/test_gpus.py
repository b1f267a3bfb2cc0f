"""The number of GPUs that apps hold, by their living runners."""

from __future__ import annotations

from fal_server.core.machines import MachineTypes
from fal_server.services.gpus import Gpus
from tests.fakes.domain import SCOPE
from tests.fakes.platform import Platform


async def test_gpus_are_counted_by_living_runners(platform: Platform) -> None:
    gpus = Gpus(platform.fleet, platform.catalog, MachineTypes())
    await platform.deploy("at-rest")
    await platform.deploy("on-cpu", scaling={"min_concurrency": 2, "machine_types": ("S",)})
    await platform.deploy("on-gpu", scaling={"min_concurrency": 1, "machine_types": ("GPU-A",)}, num_gpus=2)
    await platform.until(lambda: sum(runner.routable for runner in platform.fleet.runners) == 3)
    assert gpus.gpus_by_app(SCOPE) == {"at-rest": {}, "on-cpu": {"S": 2}, "on-gpu": {"GPU-A": 2}}
    await platform.apps.delete(SCOPE, "on-gpu", "")
    await platform.until(lambda: len([one for one in platform.fleet.runners if not one.ended]) == 2)
    assert gpus.gpus_by_app(SCOPE) == {"at-rest": {}, "on-cpu": {"S": 2}}
