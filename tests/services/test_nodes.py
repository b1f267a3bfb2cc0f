"""A caller's view of nodes. It has reserved resources and holders of GPUs, without other accounts' names."""

from __future__ import annotations

from dataclasses import replace

from fal_server.core.identity import Scope
from fal_server.core.machines import MachineTypes, Node, Resources
from fal_server.services.nodes import Nodes
from tests.fakes.domain import SCOPE
from tests.fakes.platform import OTHER, Platform

NODE = Node(name="here", total=Resources(milli_cpus=4000, memory_mib=8192, gpus={"GPU-A": 3}))


async def test_gpus_and_their_holders(platform: Platform) -> None:
    platform.engine.machines = [NODE]
    nodes = Nodes(platform.fleet, platform.engine.nodes, MachineTypes())
    await platform.deploy("pair", scaling={"min_concurrency": 1, "machine_types": ("GPU-A",)}, num_gpus=2)
    await platform.deploy("small", scaling={"min_concurrency": 1, "machine_types": ("S",)})
    await platform.until(lambda: sum(runner.routable for runner in platform.fleet.runners) == 2)
    [view] = await nodes.list(SCOPE)
    assert view.node == NODE
    assert view.reserved_mib == 1024 + 1024
    [pair] = [runner for runner in platform.fleet.runners if runner.app_name == "pair"]
    assert [(each.gpu.id, each.held, each.runner) for each in view.gpus] == [
        ("GPU-A/0", True, pair),
        ("GPU-A/1", True, pair),
        ("GPU-A/2", False, None),
    ]
    assert pair.gpus == ("GPU-A/0", "GPU-A/1")
    [theirs] = await nodes.list(Scope(account=OTHER, permissions=frozenset()))
    assert [(each.held, each.runner) for each in theirs.gpus] == [(True, None), (True, None), (False, None)]


async def test_a_gpu_is_free_again_once_its_runner_is_gone(platform: Platform) -> None:
    platform.engine.machines = [replace(NODE, total=replace(NODE.total, gpus={"GPU-A": 1}), gpus=())]
    await platform.deploy("one", scaling={"min_concurrency": 1, "machine_types": ("GPU-A",)})
    await platform.until(lambda: any(runner.routable for runner in platform.fleet.runners))
    [first] = platform.fleet.runners
    await platform.apps.delete(SCOPE, "one", "")
    await platform.until(lambda: not platform.fleet.runners)
    await platform.deploy("two", scaling={"min_concurrency": 1, "machine_types": ("GPU-A",)})
    await platform.until(lambda: any(r.routable and r.app_name == "two" for r in platform.fleet.runners))
    [second] = [runner for runner in platform.fleet.runners if runner.app_name == "two"]
    assert first.gpus == second.gpus == ("GPU-A/0",)


async def test_a_runner_whose_machine_type_is_gone_reserves_nothing(platform: Platform) -> None:
    platform.engine.machines = [NODE]
    await platform.deploy("small", scaling={"min_concurrency": 1, "machine_types": ("S",)})
    await platform.until(lambda: any(runner.routable for runner in platform.fleet.runners))
    [view] = await Nodes(platform.fleet, platform.engine.nodes, MachineTypes(named={})).list(SCOPE)
    assert view.reserved_mib == 0
