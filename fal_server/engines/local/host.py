"""Runs shims on this machine. It finds them again by directory, process and token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fal_runner.isolation.levels import Isolation
from fal_runner.process.proc import tag_of
from fal_runner.process.removal import remove_tree
from fal_runner.shim.address import ShimIdentity
from fal_server.aio.tasks import TaskSet
from fal_server.core.faults import NodeTrouble, Unavailable
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.machines import Node
from fal_server.core.runners import Runner
from fal_server.engines.local.cgroup import RunnerGroup, RunnerGroups, end_group
from fal_server.engines.local.container import remove_container
from fal_server.engines.local.gpus import devices_of, gpu_variables
from fal_server.engines.local.machine import LEAST_FREE_MIB, disk_trouble
from fal_server.engines.local.ownership import find_shim, reap, sweep, tags_in
from fal_server.engines.local.prepared import PreparedLaunch, Preparer
from fal_server.engines.local.runtimes import keep_runtime
from fal_server.engines.local.sandboxes import Sandboxes
from fal_server.engines.local.shim_process import LocalShimProcess, handle_of
from fal_server.engines.local.spawn import (
    Orphans,
    expected_warm_key,
    keep_imports,
    lay_out,
    make_home,
    spawn_shim,
    spec_of,
    start_process,
    warm_key_of,
)
from fal_server.engines.local.warm_pool import REST_SECONDS, WarmKey, WarmPool
from fal_server.engines.shim.client import ShimClient
from fal_server.engines.shim.host import Shim
from fal_server.engines.shim.runner_door import UnixDoor
from fal_server.ports import Blobs, Builder, Building, DeployedFiles, ExpectedStart, LaunchSpec

log = logging.getLogger(__name__)


class LocalHost:
    """Implements NodeHost on this machine. Make and use it in one event loop.

    Args:
        runners_dir: holds a directory for each runner, named by its id; made with mode 0700.
        node: this machine and its resources.
        builder: builds runners' environments.
        blobs: pickled code.
        files: the uploaded files of apps.
        sandboxes: what runners see of this machine; by default all of it, with `home` beside `runners_dir` as HOME.
        least_free_mib: nothing is started if the disk of `runners_dir` has less free space.
        warm_shims: how many shims to keep started, so that a runner need not wait for one; about 25 MiB each.
        warm_workers: for how many recently used environments to keep a worker started that has imported what their
            runners import; about 25 MiB and those modules each.
        rest_seconds: how long after a runner's start not to start any of these.
        groups: creates the control groups of runners; None finds out what this machine allows.
        orphans: when runners stop by themselves; None: never.
    """

    def __init__(
        self,
        runners_dir: Path,
        *,
        node: Node,
        builder: Builder,
        blobs: Blobs,
        files: DeployedFiles,
        sandboxes: Sandboxes | None = None,
        warm_shims: int = 0,
        warm_workers: int = 0,
        rest_seconds: float = REST_SECONDS,
        least_free_mib: int = LEAST_FREE_MIB,
        groups: RunnerGroups | None = None,
        orphans: Orphans | None = None,
    ) -> None:
        self._orphans = orphans
        self._runners_dir = runners_dir.absolute()
        self._runners_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.sandboxes = sandboxes or Sandboxes(isolation=Isolation.VIEW, home=self._runners_dir.with_name("home"))
        self._node = node
        self._least_free_mib = least_free_mib
        self._preparer = Preparer(builder, blobs, files)
        self._groups = RunnerGroups.detect(self._runners_dir.parent) if groups is None else groups
        self._imports = self._runners_dir.with_name("imports") if warm_workers else None
        if self._imports is not None:
            keep_imports(self._imports)
        warm_dir = self._runners_dir.with_name("warm")
        self.warm_pool = WarmPool(warm_shims, warm_workers, start_process, warm_dir, rest_seconds)
        self._warm_keys: dict[str, WarmKey] = {}
        self._bundles: dict[str, Path] = {}
        self._keeping = TaskSet(log)

    def node(self) -> Node:
        return replace(self._node, trouble=disk_trouble(self._runners_dir, self._least_free_mib))

    def reachable(self) -> bool:
        return True

    async def answers(self) -> bool:
        return True

    async def start(self, spec: LaunchSpec, building: Building | None = None) -> Shim:
        directory = self._directory(spec.runner_id)
        try:
            # After the app's variables, which must not give it others' GPUs.
            own = gpu_variables(self._node.gpus, spec.gpus)
            devices = devices_of(self._node.gpus, spec.gpus)
            existing = tuple(gpu.id for gpu in self._node.gpus if gpu.exists and gpu.id in spec.gpus)
            spec = replace(spec, gpus=existing, variables={**spec.variables, **own})
            launch = await self._preparer.prepare(spec, building)
            return await self._begin(directory, replace(launch, devices=devices, gpu_variables=own))
        except BaseException as error:
            await self._clean_up(directory, spec.token)
            trouble = disk_trouble(self._runners_dir, self._least_free_mib)
            if NodeTrouble.explains(error) or (trouble and isinstance(error, Exception)):
                raise NodeTrouble(f"runner {spec.runner_id} could not be started: {trouble or error}") from error
            if isinstance(error, OSError | ValueError | Unavailable):
                raise Unavailable(f"runner {spec.runner_id} could not be started: {error}") from error
            raise

    async def expect(self, start: ExpectedStart) -> None:
        """Have a worker wait for a runner that will probably start here."""
        if self._imports is None:
            return
        machine_type, _ = self._node.machine_types.choose(start.machine_types, start.num_gpus, self._node.total)
        if machine_type is None or self._node.machine_types.resources_of(machine_type, start.num_gpus).gpus:
            return
        try:
            found = await self._preparer.find(start)
            if found is None:
                return
            python, function = found
            own = gpu_variables(self._node.gpus, ())
            warm_key = expected_warm_key(start, python, own, self.sandboxes, self._imports)
            await asyncio.to_thread(make_home, self.sandboxes, start.account)
            if function is not None:
                await asyncio.to_thread(keep_runtime, function, warm_key.imports_file)
        except (OSError, ValueError) as error:
            log.warning("no worker waits for the first runner: %s", error)
            return
        self.warm_pool.expect(warm_key)

    async def find(self, runner: Runner) -> Shim | None:
        directory = self._directory(runner.runner_id)
        identity = find_shim(directory, runner.token)
        if identity is None or (runner.handle and runner.handle != handle_of(identity)):
            return None
        return self._shim(directory, identity, runner.token)

    async def remains(self, runner: Runner) -> Shim | None:
        directory = self._directory(runner.runner_id)
        identity = ShimIdentity.read(directory)
        return None if identity is None else self._shim(directory, identity, runner.token)

    async def sweep(self, runner: Runner) -> None:
        await sweep(tag_of(runner.token), self._directory(runner.runner_id))

    async def delete(self, runner_id: str, token: str | None = None) -> str:
        directory = self._directory(runner_id)
        try:
            if token is not None:
                await end_group(directory, tag_of(token))
        except OSError as error:
            if not NodeTrouble.explains(error):
                raise
            return error.strerror or str(error)
        return await asyncio.to_thread(_delete, directory)

    async def list(self) -> Sequence[str]:
        return await asyncio.to_thread(lambda: sorted(entry.name for entry in self._runners_dir.iterdir()))

    async def sweep_others(self, known: Sequence[str], followed: Sequence[str]) -> None:
        for name in await self.list():
            if name in known:
                continue
            await _end(self._runners_dir / name)
            self._warm_keys.pop(name, None)  # nobody observes its end
            self._bundles.pop(name, None)
        others = [identity for name in known if (identity := ShimIdentity.read(self._runners_dir / name)) is not None]
        await self._groups.end_others({tag_of(token) for token in followed} | {identity.tag for identity in others})

    def observed(self, observation: Observation) -> None:
        warm_key = self._warm_keys.get(observation.runner_id)
        if warm_key is not None and observation.event in {Event.READY, Event.GONE}:
            bundle = self._bundles.pop(observation.runner_id, None)
            if bundle is not None and observation.event is Event.READY:
                self._keeping.spawn(asyncio.to_thread(keep_runtime, bundle, warm_key.imports_file))
            self.warm_pool.learn(warm_key)  # its worker has just listed its imports
        if observation.event is Event.GONE:
            self._warm_keys.pop(observation.runner_id, None)

    async def close(self) -> None:
        await self.warm_pool.close()
        await self._keeping.wait()

    def _directory(self, runner_id: str) -> Path:
        directory = self._runners_dir / runner_id
        if directory.parent != self._runners_dir or runner_id in {"", ".", ".."}:
            raise Unavailable(f"{runner_id!r} is not the id of a runner")
        return directory

    def _shim(self, directory: Path, identity: ShimIdentity, token: str) -> Shim:
        client = ShimClient(UnixDoor(Path(identity.address), directory.name), token)
        return Shim(process=LocalShimProcess(directory, identity), client=client)

    async def _begin(self, directory: Path, launch: PreparedLaunch) -> Shim:
        """Start a shim and its worker. If an earlier controller did not finish a shim's start, use that."""
        token = launch.spec.token
        identity = find_shim(directory, token)
        warm_key = warm_key_of(launch, self.sandboxes, self._imports) if self._imports is not None else None

        def make_group() -> RunnerGroup:
            limits = None if launch.environment.container is not None else launch.spec.limits
            return self._groups.make(tag_of(token), directory, limits)

        if identity is not None:
            spec = spec_of(
                directory, launch, self.sandboxes, warm_key, await asyncio.to_thread(make_group), self._orphans
            )
        else:
            await self._clean_up(directory, token)
            warm_shim = self.warm_pool.take(warm_key)

            def prepare() -> RunnerGroup:
                lay_out(directory, launch, self.sandboxes, warm_shim)
                return make_group()

            try:
                group = await asyncio.to_thread(prepare)
            except BaseException as error:
                if warm_shim is None:
                    raise
                await asyncio.shield(warm_shim.end())
                if not isinstance(error, OSError):
                    raise
                # Its directory cannot become the runner's, such as if runners have a disk of their own.
                log.warning("runner %s starts without a waiting worker: %s", launch.spec.runner_id, error)
                warm_shim = None
                await self._clean_up(directory, token)
                group = await asyncio.to_thread(prepare)
            spec = spec_of(directory, launch, self.sandboxes, warm_key, group, self._orphans)
            identity = await spawn_shim(directory, spec, group, make_group, warm_shim)
        shim = self._shim(directory, identity, token)
        try:
            await shim.client.start(spec)
        except BaseException:
            await shim.client.close()
            raise
        if warm_key is not None:
            self._warm_keys[launch.spec.runner_id] = warm_key
            if launch.function is not None:
                self._bundles[launch.spec.runner_id] = launch.function
        return shim

    async def _clean_up(self, directory: Path, token: str) -> None:
        if await asyncio.to_thread(directory.exists):
            identity = ShimIdentity.read(directory)
            for tag in {tag_of(token)} | ({identity.tag} if identity is not None else set()):
                await sweep(tag, directory)
            if identity is not None:
                await reap(identity)
            await asyncio.to_thread(_delete, directory)


async def end_all(runners_dir: Path, groups: RunnerGroups) -> None:
    """End every runner of a directory. Another controller gave them up, and nobody else can reach them."""
    for entry in await asyncio.to_thread(lambda: sorted(runners_dir.iterdir())):
        await _end(entry)
    await groups.end_others(())


async def _end(directory: Path) -> None:
    for tag in await asyncio.to_thread(tags_in, directory):
        await sweep(tag, directory)
    await asyncio.to_thread(_delete, directory)


def _delete(path: Path) -> str:
    """Delete a runner's directory and its container.

    Returns:
        What the machine lacked, if something is left for a later attempt; else an empty string.
    """
    remove_container(path)
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return ""
    try:
        remove_tree(path)
    except OSError as error:
        return f"{path}: {error.strerror}" if NodeTrouble.explains(error) else ""
    return ""
