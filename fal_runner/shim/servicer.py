"""Serves fal.v1.Shim: checks the token, and converts between messages and the supervisor."""

# ruff: noqa: N802

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio

from fal_grpc.v1 import log_pb2, shim_pb2, shim_pb2_grpc
from fal_runner.exec.service import ExecService
from fal_runner.process.gpus import GpuMeter
from fal_runner.process.ports import PortUnavailable
from fal_runner.process.proc import boot_id, own_process
from fal_runner.process.subreaper import Subreaper
from fal_runner.process.usage import measure_descendants
from fal_runner.shim.address import TOKEN_METADATA
from fal_runner.shim.orphan import OrphanWatch, listens
from fal_runner.shim.prewarm import PrewarmedWorker
from fal_runner.shim.supervisor import State, Supervisor

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_BATCH_BYTES = 256 * 1024
_BATCH_SECONDS = 0.02


class StartRefused(Exception):
    """A worker cannot be started; the text says why."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Rejects every call without the token.

    Args:
        token: the shim's own; a shim that was started in advance gets it later.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.last_call_at = time.monotonic()

    def passes(self, token: str) -> bool:
        """Return whether this is the token. If so, count it as a call."""
        if not hmac.compare_digest(self.token.encode(), token.encode()):
            return False
        self.last_call_at = time.monotonic()
        return True

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        for key, value in handler_call_details.invocation_metadata or ():
            if key == TOKEN_METADATA and isinstance(value, str) and self.passes(value):
                return await continuation(handler_call_details)
        # A stream's handler, because gRPC reads a unary method's request before it calls the handler.
        return grpc.stream_stream_rpc_method_handler(_refuse)


async def _refuse(_requests: object, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"the metadata {TOKEN_METADATA} is not this runner's token")


class ShimServicer(shim_pb2_grpc.ShimServicer):
    """The calls of one shim.

    Args:
        directory: the runner's directory.
        reaper: starts processes.
        tokens: knows the token, and the time of the last call.
        execs: the commands of the runner.
        prewarmed: a worker that waits for its job; used if it suits.
    """

    def __init__(
        self,
        directory: Path,
        reaper: Subreaper,
        tokens: TokenInterceptor,
        execs: ExecService,
        prewarmed: PrewarmedWorker | None = None,
    ) -> None:
        self._directory = directory
        self._reaper = reaper
        self._tokens = tokens
        self._execs = execs
        self._prewarmed = prewarmed
        self._starting = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._runner: Supervisor | None = None
        self._measuring = asyncio.Lock()
        self._gpus: GpuMeter | None = None
        self._gpus_opened = False
        # Read at the start, because a shim without a free descriptor answers, too.
        self._identity = shim_pb2.ProcessIdentity(
            pid=os.getpid(), start_ticks=own_process().started_ticks, boot_id=boot_id()
        )
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    async def Start(self, request: shim_pb2.StartRequest, context: Context) -> shim_pb2.StartResponse:
        try:
            return await self.start(request.spec)
        except StartRefused as error:
            await context.abort(error.code, str(error))

    async def start(self, spec: shim_pb2.RunnerSpec) -> shim_pb2.StartResponse:
        """Start the worker, once. A second call with the same token gets the same answer.

        Raises:
            StartRefused: the worker cannot be started.
        """
        async with self._starting:
            if self._runner is not None:
                if (spec.runner_id, spec.token) != (self._runner.spec.runner_id, self._runner.spec.token):
                    raise StartRefused(grpc.StatusCode.ALREADY_EXISTS, "this shim looks after another runner")
                return _start_response(self._runner)
            _check(spec)
            prewarmed, self._prewarmed = self._prewarmed, None
            worker = await prewarmed.take(spec) if prewarmed is not None else None
            runner = Supervisor(self._reaper, self._directory, spec)
            try:
                runner.start(worker)
            except (OSError, ValueError, PortUnavailable) as error:
                message = f"the worker could not be started: {error}"
                raise StartRefused(grpc.StatusCode.FAILED_PRECONDITION, message) from error
            self._runner = self._execs.runner = runner
            self._tokens.token = spec.token
            if spec.orphan_seconds > 0:
                self._watching = asyncio.get_running_loop().create_task(self._stop_orphan(runner))
            self.started.set()
            return _start_response(runner)

    async def GetStatus(self, request: shim_pb2.GetStatusRequest, context: Context) -> shim_pb2.GetStatusResponse:
        status = shim_pb2.ShimStatus(
            shim=self._identity,
            state=State.STATE_WAITING,
            open_sessions=self._execs.open_count,
        )
        if self._runner is None:
            return shim_pb2.GetStatusResponse(status=status)
        runner = self._runner
        status.state = runner.state
        status.runner_id = runner.spec.runner_id
        status.worker.CopyFrom(runner.identity)
        status.last_event_sequence = len(runner.events)
        status.last_log_sequence = runner.journal.last
        status.acked_log_sequence = runner.journal.acked
        if runner.requests_in_flight is not None:
            status.requests_in_flight = runner.requests_in_flight
        if started := runner.event("worker_started"):
            status.started_at.CopyFrom(started.timestamp)
        if ready := runner.event("ready"):
            status.ready.CopyFrom(ready.ready)
            status.ready_at.CopyFrom(ready.timestamp)
        if exited := runner.event("exited"):
            status.exited.CopyFrom(exited.exited)
            status.exited_at.CopyFrom(exited.timestamp)
        return shim_pb2.GetStatusResponse(status=status)

    async def GetUsage(self, request: shim_pb2.GetUsageRequest, context: Context) -> shim_pb2.GetUsageResponse:
        await self._worker(context)
        async with self._measuring:
            return await asyncio.to_thread(self._measure)

    def _measure(self) -> shim_pb2.GetUsageResponse:
        used = measure_descendants(os.getpid())
        response = shim_pb2.GetUsageResponse(cpu_seconds=used.cpu_seconds, memory_bytes=used.memory_bytes)
        if not self._gpus_opened:
            self._gpus, self._gpus_opened = GpuMeter.open(), True
        gpus = None if self._gpus is None else self._gpus.measure(used.pids)
        if gpus is not None:
            response.gpu_memory_bytes = gpus.memory_bytes
            if gpus.cores is not None:
                response.gpu_cores = gpus.cores
        return response

    async def Watch(self, request: shim_pb2.WatchRequest, context: Context) -> AsyncIterator[shim_pb2.WatchResponse]:
        """Stream events as they occur."""
        runner = await self._worker(context)
        position = request.after
        if position > len(runner.events):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"after is {position}, the last event is {len(runner.events)}"
            )
        while True:
            while position < len(runner.events):
                event = runner.events[position]
                position += 1
                yield shim_pb2.WatchResponse(event=event)
                if event.HasField("exited"):
                    return
            await runner.changed()

    async def StreamLogs(
        self, request: shim_pb2.StreamLogsRequest, context: Context
    ) -> AsyncIterator[shim_pb2.StreamLogsResponse]:
        """Stream entries in batches. After a pause they go at once, otherwise those of 20 ms go together."""
        journal = (await self._worker(context)).journal
        reader = journal.reader(request.after_sequence)
        loop = asyncio.get_running_loop()
        next_at = 0.0
        while True:
            closed = journal.closed  # checked before reading, so that entries that arrive in between are read too
            batch = reader.read_batch(_BATCH_BYTES)
            if batch.entries:
                next_at = loop.time() + _BATCH_SECONDS
                yield batch
            elif closed:
                return
            else:
                await journal.wait()
                await asyncio.sleep(max(0.0, next_at - loop.time()))

    async def AckLogs(self, request: shim_pb2.AckLogsRequest, context: Context) -> shim_pb2.AckLogsResponse:
        journal = (await self._worker(context)).journal
        if request.sequence > journal.last:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"sequence is {request.sequence}, the last entry is {journal.last}"
            )
        journal.ack(request.sequence)
        return shim_pb2.AckLogsResponse()

    async def Stop(self, request: shim_pb2.StopRequest, context: Context) -> shim_pb2.StopResponse:
        runner = await self._worker(context)
        grace = request.grace_seconds if request.HasField("grace_seconds") else runner.spec.termination_grace_seconds
        if grace < 0 or not math.isfinite(grace):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"grace_seconds is {grace:g}: give 0 or more")
        runner.stop(grace)
        return shim_pb2.StopResponse()

    async def Kill(self, request: shim_pb2.KillRequest, context: Context) -> shim_pb2.KillResponse:
        (await self._worker(context)).kill()
        return shim_pb2.KillResponse()

    async def Shutdown(self, request: shim_pb2.ShutdownRequest, context: Context) -> shim_pb2.ShutdownResponse:
        """Kill the remaining processes, then end the shim."""
        if self._runner is not None:
            self._runner.kill()
            await self._runner.gone()
        self.ended.set()
        return shim_pb2.ShutdownResponse()

    async def until_unneeded(self, keep_seconds: float) -> None:
        """Wait for Shutdown, or until no controller calls for so long. The latter counts once the worker is gone."""
        if self._runner is not None:
            gone = asyncio.ensure_future(self._runner.gone())
            await asyncio.wait({gone, asyncio.ensure_future(self.ended.wait())}, return_when=asyncio.FIRST_COMPLETED)
        while not self.ended.is_set():
            silent = time.monotonic() - self._tokens.last_call_at
            if silent >= keep_seconds:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(keep_seconds - silent):
                    await self.ended.wait()

    async def _stop_orphan(self, runner: Supervisor) -> None:
        """Stop the worker in order once nobody can end it any more."""
        node_socket = runner.spec.node_socket
        watch = OrphanWatch(
            runner.spec.orphan_seconds,
            lambda: self._tokens.last_call_at,
            lambda: bool(node_socket) and listens(Path(node_socket)),
        )
        while (pause := await asyncio.to_thread(watch.look)) > 0:  # noqa: ASYNC110  # a death sends no event
            await asyncio.sleep(pause)
        runner.journal.note(
            f"neither a controller nor the node process was there for {runner.spec.orphan_seconds:g} s", log_pb2.WARNING
        )
        runner.stop(runner.spec.termination_grace_seconds)

    def terminate(self) -> None:
        """Stop the worker with its grace period. This process was asked to end."""
        if self._runner is not None:
            self._runner.stop(self._runner.spec.termination_grace_seconds)
        else:
            self.started.set()
            self.ended.set()

    async def _worker(self, context: Context) -> Supervisor:
        if self._runner is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "there is no worker yet: Start comes first")
        return self._runner


def _check(spec: shim_pb2.RunnerSpec) -> None:
    for field in ("runner_id", "token", "python", "working_dir", "bind_host"):
        if not getattr(spec, field):
            raise StartRefused(grpc.StatusCode.INVALID_ARGUMENT, f"spec.{field} is empty")
    if spec.WhichOneof("callable") is None:
        raise StartRefused(grpc.StatusCode.INVALID_ARGUMENT, "spec.function or spec.entrypoint must be given")
    if not os.access(spec.python, os.X_OK):
        raise StartRefused(grpc.StatusCode.FAILED_PRECONDITION, f"there is no interpreter at {spec.python}")
    if not os.access(spec.working_dir, os.X_OK):
        raise StartRefused(grpc.StatusCode.FAILED_PRECONDITION, f"there is no directory {spec.working_dir}")


def _start_response(runner: Supervisor) -> shim_pb2.StartResponse:
    response = shim_pb2.StartResponse(worker=runner.identity)
    if started := runner.event("worker_started"):
        response.started_at.CopyFrom(started.timestamp)
    return response
