"""Builds environments and starts runners on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from fal_runner.isolation.levels import Isolation
from fal_server.builders import Builders, BuildSandboxes, ContainerBuilder, EngineTrials, VirtualenvBuilder
from fal_server.composition.files import socket_path
from fal_server.composition.nodes import JoinedNodes
from fal_server.composition.settings import Settings
from fal_server.composition.state import StateDir
from fal_server.composition.storage import Storage
from fal_server.core.builds import BuildLimits
from fal_server.core.gpus import counts_of, offered
from fal_server.core.identity import EVERY_ACCOUNT, AccountId
from fal_server.core.machines import MachineTypes, Node, Resources
from fal_server.core.revisions import Revision
from fal_server.engines.local import LocalHost, RunnerGroups, find_gpus
from fal_server.engines.local.sandboxes import Sandboxes
from fal_server.engines.remote.epoch import Epoch
from fal_server.engines.shim.engine import ShimEngine
from fal_server.ports import ExpectedStart
from fal_server.services.logs import Logs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """The engine, and the builder of what its runners run in.

    Attributes:
        host: this machine, which runs runners.
        nodes: the machines that joined.
        builder: picks one of the other two by the kind of an environment.
    """

    engine: ShimEngine
    host: LocalHost
    nodes: JoinedNodes
    virtualenvs: VirtualenvBuilder
    images: ContainerBuilder
    builder: Builders

    def expecting(self, variables: Callable[[AccountId], Mapping[str, str]]) -> Callable[[Revision], Awaitable[None]]:
        """Return what has a worker wait for a revision's first runner.

        Args:
            variables: returns the variables of every runner of an account.
        """

        async def expect(revision: Revision) -> None:
            await self.host.expect(
                ExpectedStart(
                    account=revision.account,
                    packages=revision.environments[0],
                    function=revision.function,
                    machine_types=revision.scaling.machine_types,
                    num_gpus=revision.num_gpus,
                    variables=variables(revision.account),
                )
            )

        return expect

    async def prepare_containers(self) -> None:
        """Remove what dead controllers left of builds. Log how containers run here."""
        await self.images.end_dead_builds()
        log.info("containers: %s", await self.images.report())


def build_execution(
    *,
    state: StateDir,
    settings: Settings,
    storage: Storage,
    logs: Logs,
    trust: Mapping[str, str],
    isolation: Isolation,
    epoch: Epoch,
    now: Callable[[], datetime],
    stack: AsyncExitStack,
) -> Execution:
    """Build the engine and the builders; the stack closes the engine.

    Args:
        logs: takes the lines of runners.
        isolation: the level of isolation of runners.
        epoch: which start of the controller this is.
        now: returns the time.
        trust: the variables that make programs trust this controller's authority. Builds need them because
            requirements may be files that were uploaded to this controller.
    """
    groups = RunnerGroups.detect(state.root)
    builds = BuildSandboxes(
        isolation=isolation,
        limits=build_limits(),
        bounds=groups,
        hidden=[state.root, state.content],
    )
    virtualenvs = VirtualenvBuilder(state.environments, state.cache, builds, {**os.environ, **trust})
    trials = EngineTrials(os.environ, state.containers)
    images = ContainerBuilder(
        state.environments / "images", storage.content.app_files, os.environ, trials, build_limits()
    )
    builder = Builders(virtualenvs, images)
    host = LocalHost(
        state.runners,
        node=describe_machine("local", settings.gpus, settings.machine_types, groups.enforced, settings.region),
        builder=builder,
        blobs=storage.content.blobs,
        files=storage.content.app_files,
        sandboxes=Sandboxes(
            isolation=isolation,
            home=state.home,
            data=lambda account: storage.data.of(account).directory,
            calls=socket_path(state.api_socket).parent,
            readable=[
                *(Path(path) for path in trust.values()),
                *(each.path for each in settings.shared if not each.writable),
            ],
            writable=[each.path for each in settings.shared if each.writable],
        ),
        warm_shims=settings.warm_shims,
        warm_workers=settings.warm_workers,
        groups=groups,
    )
    nodes = JoinedNodes(
        storage.store.nodes,
        machine_types=settings.machine_types,
        blobs=storage.content.blobs,
        files=storage.content.app_files,
        api_socket=socket_path(state.api_socket),
        epoch=epoch,
        trusted=settings.trusted_networks,
        now=now,
    )
    engine = ShimEngine(
        lambda: [host, *nodes.hosts],
        sink=logs.ingest,
        last_sequence=lambda runner_id: storage.store.logs.last_sequence(EVERY_ACCOUNT, runner_id),
    )
    stack.push_async_callback(engine.close)
    return Execution(engine=engine, host=host, nodes=nodes, virtualenvs=virtualenvs, images=images, builder=builder)


def build_limits() -> BuildLimits:
    """Return what a build may have of this machine."""
    return BuildLimits(memory_mib=_memory_mib() * 3 // 4)


def describe_machine(
    name: str,
    gpus_offered: Mapping[str, int],
    machine_types: MachineTypes,
    enforced: Mapping[str, str],
    region: str,
) -> Node:
    """Return what this machine has.

    Args:
        gpus_offered: how many GPUs it offers, by label; they need not exist.
        enforced: what enforces memory, processes and cpu of machine types, for people.
    """
    gpus = offered(find_gpus(), gpus_offered)
    return Node(
        name=name,
        total=Resources(
            milli_cpus=(os.cpu_count() or 1) * 1000,
            memory_mib=_memory_mib(),
            gpus=counts_of(gpus),
        ),
        machine_types=machine_types,
        gpus=gpus,
        bounds=enforced,
        region=region,
    )


def _memory_mib() -> int:
    return psutil.virtual_memory().total // (1024 * 1024)
