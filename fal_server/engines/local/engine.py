"""Runs runners on this machine, each as a shim that is found again by its directory, process and token."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import grpc.aio

from fal_grpc.backoff import Backoff
from fal_grpc.v1 import shim_pb2
from fal_runner.isolation.levels import Isolation
from fal_runner.process.proc import tag_of
from fal_runner.shim.address import ShimIdentity
from fal_server.aio.tasks import TaskSet
from fal_server.core.faults import NodeTrouble, Unavailable
from fal_server.core.identity import AccountId
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.machines import Node
from fal_server.core.resources import ResourceSample
from fal_server.core.runners import Runner
from fal_server.engines.local.cgroup import RunnerGroup, RunnerGroups, end_group
from fal_server.engines.local.container import remove_container
from fal_server.engines.local.gpus import gpu_variables
from fal_server.engines.local.machine import LEAST_FREE_MIB, disk_trouble
from fal_server.engines.local.ownership import find_shim, reap, sweep, tags_in
from fal_server.engines.local.prepared import PreparedLaunch, Preparer
from fal_server.engines.local.rooms import Rooms
from fal_server.engines.local.runtimes import keep_runtime
from fal_server.engines.local.shim_process import LocalShimProcess, handle_of
from fal_server.engines.local.spawn import (
    BIND_HOST,
    keep_imports,
    lay_out,
    spawn_shim,
    spec_of,
    start_process,
    warm_key_of,
)
from fal_server.engines.local.warm_pool import REST_SECONDS, WarmKey, WarmPool
from fal_server.engines.shim.client import ShimClient
from fal_server.engines.shim.exec_channel import ShimExecChannel
from fal_server.engines.shim.exec_session import ShimExecSession
from fal_server.engines.shim.link import RunnerLink
from fal_server.ports import (
    Adopted,
    Blobs,
    Builder,
    Building,
    DeployedFiles,
    ExecRequest,
    ExecSession,
    LastSequence,
    LaunchSpec,
    LogSink,
    RunResult,
)

log = logging.getLogger(__name__)

_SILENT_SECONDS = 30.0
# How often the files of an ended runner are tried to be deleted, over half a minute, while the machine lacks something.
_MOST_DELETIONS = 12
_PAUSES = Backoff(first_seconds=0.25, longest_seconds=5.0)


class LocalEngine:
    """Implements Engine on this machine. Make and use it in one event loop.

    Args:
        runners_dir: holds a directory for each runner, named by its id; made with mode 0700.
        node: this machine and what it has.
        builder: builds the environments of runners.
        blobs: pickled code.
        files: the uploaded files of apps.
        sink: stores log lines.
        last_sequence: says how far a runner's lines are stored.
        rooms: what runners see of this machine; by default all of it, with `home` beside `runners_dir` as their HOME.
        least_free_mib: with less free space on the disk of `runners_dir`, nothing is started.
        warm_shims: how many shims to start ahead, so that a runner need not wait for one; about 25 MiB each.
        warm_workers: for how many of the environments used last to start a worker ahead, which imports what their
            runners import; about 25 MiB and those modules each.
        rest_seconds: how long after a runner's start to start nothing ahead.
        silent_seconds: if no line of an ended runner is stored for so long, the rest is read from its disk.
        groups: makes the control groups of runners; None finds out what this machine allows.
    """

    def __init__(
        self,
        runners_dir: Path,
        *,
        node: Node,
        builder: Builder,
        blobs: Blobs,
        files: DeployedFiles,
        sink: LogSink,
        last_sequence: LastSequence,
        rooms: Rooms | None = None,
        warm_shims: int = 0,
        warm_workers: int = 0,
        rest_seconds: float = REST_SECONDS,
        least_free_mib: int = LEAST_FREE_MIB,
        silent_seconds: float = _SILENT_SECONDS,
        groups: RunnerGroups | None = None,
    ) -> None:
        self._runners_dir = runners_dir.absolute()
        self._runners_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.rooms = rooms or Rooms(isolation=Isolation.VIEW, home=self._runners_dir.with_name("home"))
        self._node = node
        self._least_free_mib = least_free_mib
        self._silent_seconds = silent_seconds
        self._preparer = Preparer(builder, blobs, files)
        self._sink = sink
        self._last_sequence = last_sequence
        self._groups = RunnerGroups.detect(self._runners_dir.parent) if groups is None else groups
        self._imports = self._runners_dir.with_name("imports") if warm_workers else None
        if self._imports is not None:
            keep_imports(self._imports)
        warm_dir = self._runners_dir.with_name("warm")
        self.warm_pool = WarmPool(warm_shims, warm_workers, start_process, warm_dir, rest_seconds)
        self._warm_keys: dict[str, WarmKey] = {}
        self._bundles: dict[str, Path] = {}
        self._keeping = TaskSet(log)
        self._links: dict[str, RunnerLink] = {}
        self._observations: asyncio.Queue[Observation | None] = asyncio.Queue()
        self._closed = self._closing = False

    def nodes(self) -> Sequence[Node]:
        return (replace(self._node, trouble=disk_trouble(self._runners_dir, self._least_free_mib)),)

    async def start(self, spec: LaunchSpec, building: Building | None = None) -> tuple[str, str]:
        link = self._links.get(spec.runner_id)
        if link is not None and link.token == spec.token:
            return self._node.name, link.process.handle
        directory = self._directory(spec.runner_id)
        try:
            # After the app's own variables, which must not give it the GPUs of others.
            own = gpu_variables(self._node.gpus, spec.gpus)
            existing = tuple(gpu.id for gpu in self._node.gpus if gpu.exists and gpu.id in spec.gpus)
            spec = replace(spec, gpus=existing, variables={**spec.variables, **own})
            link = await self._begin(directory, await self._preparer.prepare(spec, building))
        except BaseException as error:
            await self._clean_up(directory, spec.token)
            trouble = disk_trouble(self._runners_dir, self._least_free_mib)
            if NodeTrouble.explains(error) or (trouble and isinstance(error, Exception)):
                raise NodeTrouble(f"runner {spec.runner_id} could not be started: {trouble or error}") from error
            if isinstance(error, OSError | ValueError | Unavailable):
                raise Unavailable(f"runner {spec.runner_id} could not be started: {error}") from error
            raise
        self._links[spec.runner_id] = link
        link.follow()
        return self._node.name, link.process.handle

    async def stop(self, runner: Runner, grace_seconds: float) -> None:
        link = self._links.get(runner.runner_id)
        if link is not None:
            await link.stop(grace_seconds)
        else:
            await self._end_unfollowed(runner)

    async def kill(self, runner: Runner) -> None:
        link = self._links.get(runner.runner_id)
        if link is not None:
            await link.kill()
        else:
            await self._end_unfollowed(runner)

    async def adopt(self, runner: Runner) -> Adopted | None:
        link = self._links.get(runner.runner_id)
        if link is not None:
            return Adopted(node=self._node.name, handle=link.process.handle)
        directory = self._directory(runner.runner_id)
        identity = find_shim(directory, runner.token)
        if identity is not None and runner.handle and runner.handle != handle_of(identity):
            identity = None
        names = (runner.account, runner.runner_id, runner.app_name, runner.revision_id)
        if identity is not None:
            link = self._link(directory, identity, runner.token, names)
            try:
                status = await link.client.status()
            except grpc.aio.AioRpcError as error:
                log.warning("runner %s: its shim does not answer (%s): ended", runner.runner_id, error.details())
            else:
                if status.runner_id == runner.runner_id:
                    self._links[runner.runner_id] = link
                    link.follow()
                    return Adopted(
                        node=self._node.name,
                        handle=link.process.handle,
                        exited=status.HasField("exited"),
                        requests_in_flight=_in_flight(status),
                    )
            await link.close()
        await sweep(tag_of(runner.token), directory)
        await self._store_leftover(directory, runner)
        await asyncio.to_thread(_delete, directory)
        return None

    async def requests_in_flight(self, runner: Runner) -> int | None:
        link = self._links.get(runner.runner_id)
        if link is None:
            return None
        try:
            return _in_flight(await link.client.status())
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Unavailable(f"the shim of runner {runner.runner_id} does not answer") from error
            return None  # its shim is ending

    async def resources(self, runner: Runner) -> ResourceSample | None:
        link = self._links.get(runner.runner_id)
        return None if link is None else await link.client.resources()

    async def exec(self, runner: Runner, request: ExecRequest) -> ExecSession:
        session = ShimExecSession(self.execs(runner), runner.runner_id)
        await session.begin(request)
        return session

    def execs(self, runner: Runner) -> ShimExecChannel:
        return self._followed(runner).client.execs(runner.runner_id)

    async def result(self, runner: Runner) -> RunResult:
        return await self._followed(runner).result()

    async def observations(self) -> AsyncIterator[Observation]:
        while (observation := await self._observations.get()) is not None:
            yield observation

    async def release(self, runner_id: str) -> None:
        directory = self._directory(runner_id)
        link = self._links.get(runner_id)
        if self._closed:
            raise Unavailable("the engine is closed, and what the runner has on disk may not be stored yet")
        if link is not None:
            await link.release()
        tries = 0
        while (shortage := await self._deleted(directory, link)) is not None:
            tries += 1
            if self._closing or tries == _MOST_DELETIONS:
                raise Unavailable(f"{directory} cannot be deleted: {shortage.strerror}") from shortage
            await asyncio.sleep(_PAUSES.pause(tries))
        self._links.pop(runner_id, None)  # only now: if this is cancelled, close() finishes it

    async def _deleted(self, directory: Path, link: RunnerLink | None) -> OSError | None:
        """Delete a runner's groups and directory; return what the machine lacked for it, as descriptors."""
        try:
            if link is not None:
                await end_group(directory, tag_of(link.token))
        except OSError as error:
            if not NodeTrouble.explains(error):
                raise
            return error
        return await asyncio.to_thread(_delete, directory)

    async def left_behind(self, known: Sequence[str]) -> Sequence[str]:
        names = await asyncio.to_thread(lambda: sorted(entry.name for entry in self._runners_dir.iterdir()))
        return [name for name in names if name not in known and name not in self._links]

    async def release_strangers(self, known: Sequence[str]) -> None:
        for name in await self.left_behind(known):
            directory = self._runners_dir / name
            for tag in await asyncio.to_thread(tags_in, directory):
                await sweep(tag, directory)
            await asyncio.to_thread(_delete, directory)
        followed = {tag_of(link.token) for link in self._links.values()}
        others = [identity for name in known if (identity := ShimIdentity.read(self._runners_dir / name)) is not None]
        await self._groups.end_others(followed | {identity.tag for identity in others})

    async def close(self) -> None:
        await self.warm_pool.close()
        await self._keeping.wait()
        self._closing = True
        for runner_id in [runner_id for runner_id, link in self._links.items() if link.finished]:
            try:
                await self.release(runner_id)
            except Unavailable as fault:
                log.warning("the files of runner %s stay: %s", runner_id, fault.message)
        links, self._links, self._closed = list(self._links.values()), {}, True
        await asyncio.gather(*(link.close() for link in links))
        self._observations.put_nowait(None)

    def _directory(self, runner_id: str) -> Path:
        directory = self._runners_dir / runner_id
        if directory.parent != self._runners_dir or runner_id in {"", ".", ".."}:
            raise Unavailable(f"{runner_id!r} is not the id of a runner")
        return directory

    def _followed(self, runner: Runner) -> RunnerLink:
        link = self._links.get(runner.runner_id)
        if link is None:
            raise Unavailable(f"runner {runner.runner_id} is not running on node {self._node.name}")
        return link

    def _link(
        self, directory: Path, identity: ShimIdentity, token: str, names: tuple[AccountId, str, str, str]
    ) -> RunnerLink:
        return RunnerLink(
            ShimClient(identity.address, token),
            LocalShimProcess(directory, identity),
            token,
            names,
            node=self._node.name,
            host=BIND_HOST,
            sink=self._sink,
            last_sequence=self._last_sequence,
            emit=self._observe,
            silent_seconds=self._silent_seconds,
        )

    def _observe(self, observation: Observation) -> None:
        self._observations.put_nowait(observation)
        warm_key = self._warm_keys.get(observation.runner_id)
        if warm_key is not None and observation.event in {Event.READY, Event.GONE}:
            bundle = self._bundles.pop(observation.runner_id, None)
            if bundle is not None and observation.event is Event.READY:
                self._keeping.spawn(asyncio.to_thread(keep_runtime, bundle, warm_key.imports_file))
            self.warm_pool.learn(warm_key)  # its worker has just listed what it has imported
        if observation.event is Event.GONE:
            self._warm_keys.pop(observation.runner_id, None)

    async def _begin(self, directory: Path, launch: PreparedLaunch) -> RunnerLink:
        """Start a shim and its worker, or use a shim that an earlier controller left half way."""
        token = launch.spec.token
        identity = find_shim(directory, token)
        warm_key = warm_key_of(launch, self.rooms, self._imports) if self._imports is not None else None

        def make_group() -> RunnerGroup:
            limits = None if launch.environment.container is not None else launch.spec.limits
            return self._groups.make(tag_of(token), directory, limits)

        if identity is not None:
            spec = spec_of(directory, launch, self.rooms, warm_key, await asyncio.to_thread(make_group))
        else:
            await self._clean_up(directory, token)
            warm_shim = self.warm_pool.take(warm_key)

            def prepare() -> RunnerGroup:
                lay_out(directory, launch, self.rooms, warm_shim)
                return make_group()

            try:
                group = await asyncio.to_thread(prepare)
            except BaseException:
                if warm_shim is not None:
                    await asyncio.shield(warm_shim.end())
                raise
            spec = spec_of(directory, launch, self.rooms, warm_key, group)
            identity = await spawn_shim(directory, spec, group, make_group, warm_shim)
        names = (launch.spec.account, launch.spec.runner_id, launch.spec.app_name, launch.spec.revision_id)
        link = self._link(directory, identity, token, names)
        try:
            await link.client.start(spec)
        except BaseException:
            await link.close()
            raise
        if warm_key is not None:
            self._warm_keys[launch.spec.runner_id] = warm_key
            if launch.function is not None:
                self._bundles[launch.spec.runner_id] = launch.function
        return link

    async def _clean_up(self, directory: Path, token: str) -> None:
        if await asyncio.to_thread(directory.exists):
            identity = ShimIdentity.read(directory)
            for tag in {tag_of(token)} | ({identity.tag} if identity is not None else set()):
                await sweep(tag, directory)
            if identity is not None:
                await reap(identity)
            await asyncio.to_thread(_delete, directory)

    async def _end_unfollowed(self, runner: Runner) -> None:
        """End whatever is left of a runner that is not followed, and report its end."""
        await sweep(tag_of(runner.token), self._directory(runner.runner_id))
        self._observations.put_nowait(Observation(runner_id=runner.runner_id, event=Event.GONE, node=self._node.name))

    async def _store_leftover(self, directory: Path, runner: Runner) -> None:
        names = (runner.account, runner.runner_id, runner.app_name, runner.revision_id)
        identity = ShimIdentity.read(directory)
        if identity is not None:
            link = self._link(directory, identity, runner.token, names)
            await link.store_leftover()
            await link.close()


def _in_flight(status: shim_pb2.ShimStatus) -> int | None:
    return status.requests_in_flight if status.HasField("requests_in_flight") else None


def _delete(path: Path) -> OSError | None:
    """Delete a runner's directory and its container, if it has one.

    Returns:
        What the machine lacked, if something stays that a later try may delete.
    """
    remove_container(path)
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return None
    shortages: list[OSError] = []

    def note(_function: object, _path: str, error: tuple[type[BaseException], BaseException, object]) -> None:
        if isinstance(error[1], OSError) and NodeTrouble.explains(error[1]):
            shortages.append(error[1])

    shutil.rmtree(path, onerror=note)
    return shortages[0] if shortages else None
