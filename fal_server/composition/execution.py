"""Builds environments and starts runners on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from fal_runner.isolation.levels import Isolation
from fal_server.builders import Builders, BuildSandboxes, ContainerBuilder, EngineTrials, VirtualenvBuilder
from fal_server.composition.files import socket_path
from fal_server.composition.settings import Settings
from fal_server.composition.state import StateDir
from fal_server.composition.storage import Storage
from fal_server.core.builds import BuildLimits
from fal_server.core.gpus import counts_of, offered
from fal_server.core.identity import EVERY_ACCOUNT
from fal_server.core.machines import Node, Resources
from fal_server.engines.local import LocalHost, RunnerGroups, find_gpus
from fal_server.engines.local.sandboxes import Sandboxes
from fal_server.engines.shim.engine import ShimEngine
from fal_server.services.logs import Logs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """The engine, and the builder of what its runners run in.

    Attributes:
        host: this machine, which runs runners.
        builder: picks one of the other two by the kind of an environment.
    """

    engine: ShimEngine
    host: LocalHost
    virtualenvs: VirtualenvBuilder
    images: ContainerBuilder
    builder: Builders

    async def prepare_containers(self) -> None:
        """Remove what dead controllers left of their builds, and log how containers run here."""
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
    stack: AsyncExitStack,
) -> Execution:
    """Build the engine and the builders; the stack closes the engine.

    Args:
        logs: takes the lines of runners.
        isolation: the level of isolation of runners.
        trust: the variables that make programs trust this controller's authority. Builds need them because
            requirements may be files that were uploaded to this controller.
    """
    groups = RunnerGroups.detect(state.root)
    builds = BuildSandboxes(
        isolation=isolation,
        limits=BuildLimits(memory_mib=_memory_mib() * 3 // 4),
        bounds=groups,
        hidden=state.root,
    )
    virtualenvs = VirtualenvBuilder(state.environments, state.cache, builds, {**os.environ, **trust})
    trials = EngineTrials(os.environ, state.containers)
    images = ContainerBuilder(state.environments / "images", storage.app_files, os.environ, trials)
    builder = Builders(virtualenvs, images)
    host = LocalHost(
        state.runners,
        node=_node(settings, groups.enforced),
        builder=builder,
        blobs=storage.blobs,
        files=storage.app_files,
        sandboxes=Sandboxes(
            isolation=isolation,
            home=state.home,
            data=lambda account: storage.data.of(account).directory,
            readable=[
                *(Path(path) for path in trust.values()),
                *(each.path for each in settings.shared if not each.writable),
            ],
            writable=[
                socket_path(state.api_socket).parent,
                *(each.path for each in settings.shared if each.writable),
            ],
        ),
        warm_shims=settings.warm_shims,
        warm_workers=settings.warm_workers,
        groups=groups,
    )
    engine = ShimEngine(
        lambda: [host],
        sink=logs.ingest,
        last_sequence=lambda runner_id: storage.store.logs.last_sequence(EVERY_ACCOUNT, runner_id),
    )
    stack.push_async_callback(engine.close)
    return Execution(engine=engine, host=host, virtualenvs=virtualenvs, images=images, builder=builder)


def _node(settings: Settings, enforced: Mapping[str, str]) -> Node:
    gpus = offered(find_gpus(), settings.gpus)
    return Node(
        name="local",
        total=Resources(
            milli_cpus=(os.cpu_count() or 1) * 1000,
            memory_mib=_memory_mib(),
            gpus=counts_of(gpus),
        ),
        machine_types=settings.machine_types,
        gpus=gpus,
        bounds=enforced,
    )


def _memory_mib() -> int:
    return psutil.virtual_memory().total // (1024 * 1024)
