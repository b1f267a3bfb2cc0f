"""Runs runners on any machines. It starts a shim for each, and follows it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import grpc.aio

from fal_grpc.backoff import Backoff
from fal_grpc.cancellation import raise_if_cancelled
from fal_grpc.v1 import shim_pb2
from fal_server.core.faults import NodeTrouble, Unavailable
from fal_server.core.identity import AccountId
from fal_server.core.lifecycle import Event, Observation
from fal_server.core.machines import Node
from fal_server.core.resources import ResourceSample
from fal_server.core.runners import Runner
from fal_server.engines.shim.exec_channel import ShimExecChannel
from fal_server.engines.shim.exec_session import ShimExecSession
from fal_server.engines.shim.host import NodeHost, Shim
from fal_server.engines.shim.link import RunnerLink
from fal_server.ports import (
    Adopted,
    Building,
    ExecRequest,
    ExecSession,
    LastSequence,
    LaunchSpec,
    LogSink,
    RunResult,
)

log = logging.getLogger(__name__)

_SILENT_SECONDS = 30.0
# How often to try to delete an ended runner's files, over half a minute, while the machine lacks something.
_MOST_DELETIONS = 12
# How often to ask a shim to which the connection breaks, although its machine answers.
_MOST_QUESTIONS = 3
_PAUSES = Backoff(first_seconds=0.25, longest_seconds=5.0)


class ShimEngine:
    """Implements Engine. Create and use it in one event loop.

    Args:
        hosts: returns the machines as they are now; a runner's machine stays the same object while it has runners.
        sink: stores log lines.
        last_sequence: says how far a runner's lines are stored.
        silent_seconds: if no line of an ended runner is stored for this long, the rest is read from disk.
    """

    def __init__(
        self,
        hosts: Callable[[], Iterable[NodeHost]],
        *,
        sink: LogSink,
        last_sequence: LastSequence,
        silent_seconds: float = _SILENT_SECONDS,
    ) -> None:
        self._hosts = hosts
        self._silent_seconds = silent_seconds
        self._sink = sink
        self._last_sequence = last_sequence
        self._links: dict[str, RunnerLink] = {}
        self._hosts_of: dict[str, NodeHost] = {}
        self._observations: asyncio.Queue[Observation | None] = asyncio.Queue()
        self._closed = self._closing = False

    def nodes(self) -> Sequence[Node]:
        return [host.node() for host in self._hosts()]

    async def start(self, spec: LaunchSpec, building: Building | None = None) -> tuple[str, str]:
        link = self._links.get(spec.runner_id)
        if link is not None and link.token == spec.token:
            return link.node, link.process.handle
        host = next(iter(self._at(spec.node)), None)
        if host is None:
            raise NodeTrouble(f"runner {spec.runner_id} could not be started: there is no node {spec.node}")
        shim = await host.start(spec, building)
        names = (spec.account, spec.runner_id, spec.app_name, spec.revision_id)
        self._follow(host, self._link(host, shim, spec.token, names), spec.runner_id)
        return host.node().name, shim.process.handle

    async def stop(self, runner: Runner, grace_seconds: float) -> None:
        link = self._reachable(runner)
        if link is not None:
            await link.stop(grace_seconds)
        else:
            await self._end_unfollowed(runner)

    async def kill(self, runner: Runner) -> None:
        link = self._reachable(runner)
        if link is not None:
            await link.kill()
        else:
            await self._end_unfollowed(runner)

    async def adopt(self, runner: Runner) -> Adopted | None:
        link = self._links.get(runner.runner_id)
        if link is not None:
            silent = not self._hosts_of[runner.runner_id].reachable()
            count = None if silent else await self.requests_in_flight(runner)
            return Adopted(node=link.node, handle=link.process.handle, requests_in_flight=count, silent=silent)
        for host in self._at(runner.node):
            adopted = await self._adopt_on(host, runner)
            if adopted is not None:
                return adopted
        return None

    async def _adopt_on(self, host: NodeHost, runner: Runner) -> Adopted | None:
        """Follow what lives of a runner on a machine. Else end and store what is left of it."""
        while True:
            async with _unless_away(host, Unavailable, grpc.aio.AioRpcError):
                shim = await host.find(runner)
                adopted = None if shim is None else await self._adopt(host, shim, runner)
                if adopted is None and host.reachable():
                    await host.sweep(runner)
                    await self._store_remains(host, runner)
                    await host.delete(runner.runner_id)
                return adopted

    async def _adopt(self, host: NodeHost, shim: Shim, runner: Runner) -> Adopted | None:
        """Follow a living shim. None if it does not answer, or is another runner's."""
        link = self._link(host, shim, runner.token, _names(runner))
        try:
            status = await self._status(host, link, runner.runner_id) if host.reachable() else None
        except BaseException:
            await link.close()
            raise
        if status is not None and status.runner_id == runner.runner_id:
            self._follow(host, link, runner.runner_id)
            return Adopted(
                node=link.node,
                handle=link.process.handle,
                exited=status.HasField("exited"),
                requests_in_flight=_in_flight(status),
            )
        # One whose end is stored is not followed: it ends when its machine is back, because nobody wants it.
        if status is None and not host.reachable() and not runner.ended:
            self._follow(host, link, runner.runner_id)
            return Adopted(node=link.node, handle=link.process.handle, silent=True)
        await link.close()
        return None

    async def _status(self, host: NodeHost, link: RunnerLink, runner_id: str) -> shim_pb2.ShimStatus | None:
        """Ask a shim for its status. None if it does not answer, or if its machine does not."""
        tries = 0
        while True:
            try:
                return await link.client.status()
            except grpc.aio.AioRpcError as error:
                raise_if_cancelled()
                if not await host.answers():
                    return None
                tries += 1
                broke_off = error.code() is grpc.StatusCode.UNAVAILABLE and link.process.alive()
                if not broke_off or tries == _MOST_QUESTIONS:
                    log.warning("runner %s: its shim does not answer (%s): ended", runner_id, error.details())
                    return None

    async def requests_in_flight(self, runner: Runner) -> int | None:
        link = self._reachable(runner)
        if link is None:
            return None
        try:
            return _in_flight(await link.client.status())
        except grpc.aio.AioRpcError as error:
            raise_if_cancelled()
            # While its process may live, so may what it works on: perhaps only the way to it broke.
            if link.process.alive():
                raise Unavailable(f"the shim of runner {runner.runner_id} does not answer") from error
            return None

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
        link = self._links.get(runner_id)
        if self._closed:
            raise Unavailable("the engine is closed, and what the runner has on disk may not be stored yet")
        if link is not None:
            await link.release()
        for host in [self._hosts_of[runner_id]] if link is not None else list(self._hosts()):
            await self._delete(host, runner_id, None if link is None else link.token)
        self._links.pop(runner_id, None)  # only now, so that close() finishes it if this is cancelled
        self._hosts_of.pop(runner_id, None)

    async def _delete(self, host: NodeHost, runner_id: str, token: str | None) -> None:
        tries = 0
        while shortage := await host.delete(runner_id, token):
            tries += 1
            if self._closing or tries == _MOST_DELETIONS:
                raise Unavailable(f"what runner {runner_id} left cannot be deleted: {shortage}")
            await asyncio.sleep(_PAUSES.pause(tries))

    async def left_behind(self, known: Sequence[str]) -> Sequence[str]:
        names: list[str] = []
        for host in self._hosts():
            async with _unless_away(host, Unavailable):
                names += await host.list()
        return [name for name in names if name not in known and name not in self._links]

    async def release_strangers(self, known: Sequence[str]) -> None:
        for host in self._hosts():
            followed = {name: link.token for name, link in self._links.items() if self._hosts_of[name] is host}
            async with _unless_away(host, Unavailable):
                await host.sweep_others([*known, *followed], list(followed.values()))

    async def close(self) -> None:
        self._closing = True
        for runner_id in [runner_id for runner_id, link in self._links.items() if link.finished]:
            try:
                await self.release(runner_id)
            except Unavailable as fault:
                log.warning("the files of runner %s stay: %s", runner_id, fault.message)
        links, self._links, self._closed = list(self._links.values()), {}, True
        await asyncio.gather(*(link.close() for link in links))
        await asyncio.gather(*(host.close() for host in self._hosts()))
        self._observations.put_nowait(None)

    def _at(self, name: str) -> list[NodeHost]:
        """Return the machine of this name. Without a name, return all: the start was interrupted before it had one."""
        return [host for host in self._hosts() if name in {"", host.node().name}]

    def _followed(self, runner: Runner) -> RunnerLink:
        link = self._links.get(runner.runner_id)
        if link is None:
            raise Unavailable(f"runner {runner.runner_id} is not running on node {runner.node or '(none)'}")
        return link

    def _reachable(self, runner: Runner) -> RunnerLink | None:
        """Return the link to a runner, if it has one.

        Raises:
            Unavailable: its node does not answer.
        """
        host = self._hosts_of.get(runner.runner_id)
        if host is not None and not host.reachable():
            raise Unavailable(f"node {runner.node} does not answer")
        return self._links.get(runner.runner_id)

    def _follow(self, host: NodeHost, link: RunnerLink, runner_id: str) -> None:
        self._links[runner_id] = link
        self._hosts_of[runner_id] = host
        link.follow()

    def _link(self, host: NodeHost, shim: Shim, token: str, names: tuple[AccountId, str, str, str]) -> RunnerLink:
        def emit(observation: Observation) -> None:
            self._observations.put_nowait(observation)
            host.observed(observation)

        return RunnerLink(
            shim.client,
            shim.process,
            token,
            names,
            node=host.node().name,
            sink=self._sink,
            last_sequence=self._last_sequence,
            emit=emit,
            silent_seconds=self._silent_seconds,
        )

    async def _end_unfollowed(self, runner: Runner) -> None:
        """End what is left of an unfollowed runner, and report its end."""
        for host in self._at(runner.node):
            await host.sweep(runner)
        self._observations.put_nowait(Observation(runner_id=runner.runner_id, event=Event.GONE, node=runner.node))

    async def _store_remains(self, host: NodeHost, runner: Runner) -> None:
        shim = await host.remains(runner)
        if shim is not None:
            link = self._link(host, shim, runner.token, _names(runner))
            try:
                await link.store_leftover()
            finally:
                await link.close()


@asynccontextmanager
async def _unless_away(host: NodeHost, *failures: type[Exception]) -> AsyncGenerator[None]:
    """Ignore these failures if the machine does not answer."""
    try:
        yield
    except failures:
        raise_if_cancelled()
        if await host.answers():
            raise


def _names(runner: Runner) -> tuple[AccountId, str, str, str]:
    return runner.account, runner.runner_id, runner.app_name, runner.revision_id


def _in_flight(status: shim_pb2.ShimStatus) -> int | None:
    return status.requests_in_flight if status.HasField("requests_in_flight") else None
