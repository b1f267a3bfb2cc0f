"""A machine of which a node process takes orders."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

import grpc
import grpc.aio

from fal_grpc.backoff import Backoff
from fal_grpc.cancellation import raise_if_cancelled
from fal_grpc.v1 import host_pb2 as pb
from fal_grpc.v1 import host_pb2_grpc, log_pb2
from fal_server.aio.tasks import TaskSet
from fal_server.core.faults import FailedPrecondition, Fault, InvalidArgument, NodeTrouble, NotFound, Unavailable
from fal_server.core.identity import AccountId
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.machines import MachineTypes, Node, Resources
from fal_server.core.runners import Runner
from fal_server.engines.remote import wire
from fal_server.engines.remote.api_calls import ApiCalls
from fal_server.engines.remote.names import DoorTarget
from fal_server.engines.remote.node_door import NodeDoor
from fal_server.engines.remote.process import NodeShimProcess
from fal_server.engines.remote.way import Way
from fal_server.engines.shim.client import ShimClient
from fal_server.engines.shim.host import Shim, missing_content
from fal_server.ports import Blobs, Building, DeployedFiles, LaunchSpec

log = logging.getLogger(__name__)
T = TypeVar("T")

_CALL_SECONDS = 30.0
_SWEEP_SECONDS = 60.0
# A node says something each second.
SILENT_SECONDS = 5.0
LOST_SECONDS = 60.0
_RETRIES = Backoff(first_seconds=0.1, longest_seconds=2.0)
_CHUNK_BYTES = 1024 * 1024
# So much of the node's content is known here; more is asked for again.
_MOST_KNOWN = 10_000
_FAULTS: dict[grpc.StatusCode, type[Fault]] = {
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: NodeTrouble,
}


class RemoteHost:
    """Implements NodeHost on another machine. Make and use it in one event loop.

    Args:
        way: to the node.
        machine_types: what runners can be.
        blobs: pickled code, which is sent to the node if it lacks it.
        files: the files of apps, likewise.
        wanted: returns the ids of all runners that may be there; None while that is not known yet.
        api_socket: where this machine's runners call the controller, to which calls of the node's are carried.
        own_variables: names of variables that mean something on the controller's machine alone.
        network_host: the node's address, if it is on a trusted network; otherwise empty.
        region: where the node was when it was last heard, which holds until its first word.
        located: is told each time that the node says where it is.
        certify: renews the node's certificate.
        noted: is told each time that the node answers again, or does not any more.
        silent_seconds: after so long without a word the node is away, and nothing is started on it.
        lost_seconds: after so long it is given up, with its runners.

    Attributes:
        heard: set while the node answers.
        silent: set while it does not, once it was tried.
        draining: whether nothing is to be started on it.
        machine: what it said last that it has.
        network_trouble: why its last runner has no port open on the trusted network; empty if it has one.
    """

    def __init__(
        self,
        way: Way,
        *,
        machine_types: MachineTypes,
        blobs: Blobs,
        files: DeployedFiles,
        wanted: Callable[[], Sequence[str] | None],
        api_socket: Path,
        own_variables: frozenset[str] = frozenset(),
        network_host: str = "",
        region: str = "",
        located: Callable[[str], Awaitable[None]] | None = None,
        certify: Callable[[host_pb2_grpc.HostAsyncStub, datetime], Awaitable[None]] | None = None,
        noted: Callable[[bool], None] = lambda _answers: None,
        silent_seconds: float = SILENT_SECONDS,
        lost_seconds: float = LOST_SECONDS,
    ) -> None:
        self.way = way
        self.draining = False
        self.heard = asyncio.Event()
        self.silent = asyncio.Event()
        self.machine = pb.Machine()
        self.network_trouble = ""
        self._machine_types = machine_types
        self._blobs = blobs
        self._files = files
        self._wanted = wanted
        self._api_socket = api_socket
        self._own_variables = own_variables
        self._network_host = network_host
        self._located = located
        self._certify = certify
        self._noted = noted
        self._silent_seconds = silent_seconds
        self._lost_seconds = lost_seconds
        self._channel = way.channel(DoorTarget.CONTROL, "controller")
        self._stub: host_pb2_grpc.HostAsyncStub = host_pb2_grpc.HostStub(self._channel)
        self._processes: set[NodeShimProcess] = set()
        self._connections: dict[str, WeakSet[socket.socket]] = {}
        self._node = Node(
            name=way.node, total=Resources(gpus={}), machine_types=machine_types, region=region, described=False
        )
        self._away = "it was not reached yet"
        self._since = datetime.now(UTC)
        self._living: dict[str, str] = {}
        self._version = 0
        # By hash and account, what the node had when it was asked last. It may have removed some since.
        self._known_content: set[tuple[str, str]] = set()
        self._following: asyncio.Task[None] | None = None
        self._api_calls: ApiCalls | None = None
        self._telling = TaskSet(log)

    def open(self) -> None:
        """Start to follow the node."""
        self._following = asyncio.get_running_loop().create_task(self._follow(), name=f"node {self.way.node}")
        self._api_calls = ApiCalls(self._stub, self._api_socket, self.heard)

    def node(self) -> Node:
        draining = "it is drained: `fal node drain --undo` lets runners start on it" if self.draining else ""
        return replace(self._node, trouble=self._away or draining or self._node.trouble)

    @property
    def away(self) -> str:
        """Why the node cannot be asked now; empty if it can."""
        return self._away

    async def start(self, spec: LaunchSpec, building: Building | None = None) -> Shim:
        if self._away:
            raise NodeTrouble(f"runner {spec.runner_id} could not be started on node {self.way.node}: {self._away}")
        variables = {name: value for name, value in spec.variables.items() if name not in self._own_variables}
        launch = wire.launch_request(replace(spec, variables=variables, network_host=self._network_host))
        content = _content_of(spec)
        try:
            known = content <= self._known_content
            if not known:
                await self._send_content(spec, content)
            try:
                handle, version = await self._launch(launch, building)
            except grpc.aio.AioRpcError as error:
                lacks = known and error.code() is grpc.StatusCode.FAILED_PRECONDITION
                if not lacks or not await self._send_content(spec, content):
                    raise
                handle, version = await self._launch(launch, building)
        except grpc.aio.AioRpcError as error:
            raise_if_cancelled()
            kind = _FAULTS.get(error.code(), Unavailable)
            raise kind(error.details() or f"node {self.way.node} does not answer") from error
        return self._shim(spec.runner_id, spec.token, handle, version)

    async def find(self, runner: Runner) -> Shim | None:
        if self._away:  # it counts as living until the node is given up
            return self._shim(runner.runner_id, runner.token, runner.handle, 0)
        if runner.handle and self._living.get(runner.runner_id) == runner.handle:
            return self._shim(runner.runner_id, runner.token, runner.handle, self._version)
        found = await self._find(runner)
        if not found.living:
            return None
        return self._shim(runner.runner_id, runner.token, found.living, found.version)

    async def remains(self, runner: Runner) -> Shim | None:
        last = (await self._find(runner)).last
        return self._shim(runner.runner_id, runner.token, last, 0) if last else None

    async def sweep(self, runner: Runner) -> None:
        await self._swept(runner.runner_id, runner.token)

    async def delete(self, runner_id: str, token: str | None = None) -> str:
        if self._away:
            return ""  # it is swept when the node is back, because nobody knows it any more
        request = pb.DeleteRequest(runner_id=runner_id, token=token or "")
        return (await self._ask(self._stub.Delete(request, timeout=_CALL_SECONDS))).shortage

    async def list(self) -> Sequence[str]:
        if self._away:
            return []
        return (await self._ask(self._stub.ListHost(pb.ListHostRequest(), timeout=_CALL_SECONDS))).runner_ids

    async def sweep_others(self, known: Sequence[str], followed: Sequence[str]) -> None:
        if self._away:
            return  # what nobody wants is swept when the node is back
        request = pb.SweepOthersRequest(known=known, followed=followed)
        await self._ask(self._stub.SweepOthers(request, timeout=_SWEEP_SECONDS))

    def observed(self, observation: Observation) -> None:
        """Tell the node of a runner that serves. It knows of the end of each by itself."""
        if observation.event is Event.READY:
            self._telling.spawn(self._tell_ready(observation.runner_id), name=f"a runner serves on {self.way.node}")

    async def _tell_ready(self, runner_id: str) -> None:
        try:
            await self._stub.NoteReady(pb.NoteReadyRequest(runner_id=runner_id), timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            log.debug("node %s is not told that a runner serves: %s", self.way.node, error.details())

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._api_calls is not None:
            await self._api_calls.close()
        await self._telling.close()
        await self._channel.close()

    async def leave(self, reason: str) -> None:
        """End what is on the node, if it answers. Give up its runners."""
        try:
            await self.sweep_others([], [])
        except Unavailable as fault:
            log.warning("%s", fault.message)
        self._give_up(reason)

    def reachable(self) -> bool:
        return not self._away

    async def answers(self) -> bool:
        try:
            await self._stub.ListHost(pb.ListHostRequest(), timeout=self._silent_seconds)
        except grpc.aio.AioRpcError as error:
            raise_if_cancelled()
            if not self._away:  # without asking, this may be known a little later
                self._count_as_away(error.details() or str(error.code()))
            return False
        return True

    def opened(self, app_host: str, connection: socket.socket) -> None:
        """Shut down an app's connection once its runner is given up. Leave it if it is closed by then."""
        self._connections.setdefault(app_host, WeakSet()).add(connection)

    async def _launch(self, launch: pb.LaunchRequest, building: Building | None) -> tuple[str, int]:
        """Return the handle of what was started. Also return the version of its state."""
        handle, version = "", 0
        async for seen in self._stub.Launch(launch):
            if seen.building and building is not None:
                await building()
            handle, version = seen.handle or handle, seen.version or version
            if seen.handle:  # the last one
                self.network_trouble = seen.network_trouble
        return handle, version

    async def _send_content(self, spec: LaunchSpec, content: Collection[tuple[str, str]]) -> bool:
        """Send what the node lacks of a launch. Return whether it lacked any."""
        if not content:
            return False
        asked = pb.LackRequest(contents=[pb.Content(hash=name, account=account) for name, account in content])
        lacking = (await self._stub.Lack(asked, timeout=_CALL_SECONDS)).contents
        for each in lacking:
            try:
                path = await asyncio.to_thread(self._path, each)
            except NotFound as fault:
                raise missing_content(spec) from fault
            await self._stub.Put(_parts(each, path), timeout=_SWEEP_SECONDS)
        if len(self._known_content) > _MOST_KNOWN:
            self._known_content.clear()
        self._known_content.update(content)
        return bool(lacking)

    def _path(self, content: pb.Content) -> Path:
        if content.account:
            return self._files.path(AccountId(content.account), content.hash)
        return self._blobs.path(content.hash)

    def _shim(self, runner_id: str, token: str, handle: str, version: int) -> Shim:
        process = NodeShimProcess(
            runner_id,
            handle,
            version,
            sweep=lambda: self._swept(runner_id, token),
            leftover=lambda after: self._leftover(runner_id, token, after),
            forget=self._forget,
        )
        self._processes.add(process)
        return Shim(process=process, client=ShimClient(NodeDoor(self.way, self._stub, runner_id), token))

    async def _find(self, runner: Runner) -> pb.FindResponse:
        request = pb.FindRequest(runner_id=runner.runner_id, token=runner.token, handle=runner.handle)
        return await self._ask(self._stub.Find(request, timeout=_CALL_SECONDS))

    async def _swept(self, runner_id: str, token: str) -> None:
        await self._ask(self._stub.Sweep(pb.SweepRequest(runner_id=runner_id, token=token), timeout=_SWEEP_SECONDS))

    async def _leftover(self, runner_id: str, token: str, after: int) -> AsyncIterator[Sequence[log_pb2.LogEntry]]:
        request = pb.ReadLeftoverRequest(runner_id=runner_id, token=token, after=after)
        async for seen in self._stub.ReadLeftover(request):
            yield list(seen.entries)

    async def _ask(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise_if_cancelled()
            raise Unavailable(f"node {self.way.node} does not answer: {error.details() or error.code()}") from error

    async def _follow(self) -> None:
        """Follow the node until this is closed."""
        loop = asyncio.get_running_loop()
        heard_at, failures = loop.time(), 0
        while True:
            try:
                async with contextlib.aclosing(self._states()) as states:
                    async for state in states:
                        if self._away:
                            await self._return(state)
                        self._take(state)
                        heard_at, self._since, failures = loop.time(), datetime.now(UTC), 0
                        if self._located is not None:
                            await self._located(state.machine.region)
                        await self._renew(state)
            except (grpc.aio.AioRpcError, TimeoutError, Fault) as error:
                raise_if_cancelled()
                overtaken = isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.ABORTED
                why = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
                self._count_as_away(why or "nothing came")
                if overtaken:
                    self._away = f"it takes no orders of this controller: {why}"
                    self._give_up(f"node {self.way.node} takes no orders of this controller: {why}")
            except Exception:
                log.exception("node %s: what it said could not be handled", self.way.node)
            if loop.time() - heard_at >= self._lost_seconds:
                self._give_up(f"node {self.way.node} was lost: it did not answer since {self._since:%H:%M:%S} UTC")
            failures += 1
            await asyncio.sleep(_RETRIES.pause(failures))

    def _count_as_away(self, why: str) -> None:
        """Note that the node does not answer. Its next word, which `_follow` hears, ends that."""
        known = bool(self._away)
        self._away = f"it does not answer since {self._since:%H:%M:%S} UTC ({why})"
        self.heard.clear()
        self.silent.set()
        if not known:
            log.warning("node %s does not answer: %s", self.way.node, why)
            self._noted(False)

    async def _states(self) -> AsyncGenerator[pb.WatchHostResponse]:
        call = self._stub.WatchHost(pb.WatchHostRequest())
        try:
            while True:
                async with asyncio.timeout(self._silent_seconds):
                    state = await call.read()
                if not isinstance(state, pb.WatchHostResponse):
                    return
                yield state
        finally:
            call.cancel()

    async def _return(self, state: pb.WatchHostResponse) -> None:
        """End what nobody wants any more. Do so before anything is started on the node again."""
        for process in self._processes:
            process.version = 0  # it was started before this state
        wanted = self._wanted()
        if wanted is not None:
            known = [*wanted, *(process.runner_id for process in self._processes if not process.ending)]
            request = pb.SweepOthersRequest(known=known)
            await self._stub.SweepOthers(request, timeout=_SWEEP_SECONDS)
        log.info("node %s answers, with %d runners", self.way.node, len(state.shims))
        self._away = ""
        self.silent.clear()
        self.heard.set()
        self._noted(True)

    def _take(self, state: pb.WatchHostResponse) -> None:
        self.machine = state.machine
        self._node = wire.node_of(self.way.node, state.machine, self._machine_types)
        self._living = {shim.runner_id: shim.handle for shim in state.shims}
        self._version = state.version
        for process in tuple(self._processes):
            process.seen(state.version, self._living)

    async def _renew(self, state: pb.WatchHostResponse) -> None:
        if self._certify is not None:
            try:
                await self._certify(self._stub, datetime.fromtimestamp(state.certificate_ends_at, UTC))
            except (grpc.aio.AioRpcError, InvalidArgument) as error:
                raise_if_cancelled()
                log.warning("the certificate of node %s could not be renewed: %s", self.way.node, error)

    def _give_up(self, reason: str) -> None:
        for process in tuple(self._processes):
            if process.alive():
                log.warning("runner %s: %s", process.runner_id, reason)
                process.lose(reason)
                for connection in self._connections.pop(self.way.app_host(process.runner_id), ()):
                    with contextlib.suppress(OSError):  # it is closed
                        connection.shutdown(socket.SHUT_RDWR)

    def _forget(self, process: NodeShimProcess) -> None:
        self._processes.discard(process)
        self._connections.pop(self.way.app_host(process.runner_id), None)


def _content_of(spec: LaunchSpec) -> set[tuple[str, str]]:
    """Return the hash and account of each content of a launch. Code has no account."""
    code = {(payload.blob, "") for payload in (spec.function, spec.setup) if payload is not None}
    return code | {(file.hash, str(spec.account)) for file in spec.files}


async def _parts(content: pb.Content, path: Path) -> AsyncIterator[pb.PutRequest]:
    with path.open("rb") as file:  # what is read of it is read in a thread
        yield pb.PutRequest(content=content, mode=os.fstat(file.fileno()).st_mode & 0o777)
        while data := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield pb.PutRequest(data=data)
