"""Calls one shim."""

from __future__ import annotations

import grpc
import grpc.aio

from fal_grpc.cancellation import raise_if_cancelled
from fal_grpc.v1 import shim_pb2, shim_pb2_grpc
from fal_runner.exec.message_socket import MessageSocket
from fal_runner.shim.address import TOKEN_METADATA
from fal_server.core.faults import Unavailable
from fal_server.core.resources import ResourceSample
from fal_server.engines.shim.exec_channel import ShimExecChannel
from fal_server.engines.shim.runner_door import Door

_CALL_SECONDS = 10.0
_START_SECONDS = 30.0
_MEASURE_SECONDS = 3.0
Watching = grpc.aio.UnaryStreamCall[shim_pb2.WatchRequest, shim_pb2.WatchResponse]
Logging = grpc.aio.UnaryStreamCall[shim_pb2.StreamLogsRequest, shim_pb2.StreamLogsResponse]


class ShimClient:
    """A channel to a shim; every call carries the runner's token.

    Args:
        door: the way to its runner; closed with this client.
        token: the runner's token.
    """

    def __init__(self, door: Door, token: str) -> None:
        self._door = door
        self._token = token
        self._links: set[MessageSocket] = set()
        self._channel = door.channel()
        self._stub = shim_pb2_grpc.ShimStub(self._channel)
        self._metadata = ((TOKEN_METADATA, token),)

    def host(self, *, on_network: bool) -> str:
        """Return the host at which the runner's ports are reached.

        Args:
            on_network: whether its port is open on a trusted network, too.
        """
        return self._door.network_host if on_network else self._door.host

    async def start(self, spec: shim_pb2.RunnerSpec) -> None:
        """Start the worker.

        Raises:
            Unavailable: the shim cannot start it; the message says why.
        """
        try:
            await self._stub.Start(
                shim_pb2.StartRequest(spec=spec),
                timeout=_START_SECONDS,
                metadata=self._metadata,
                wait_for_ready=True,
            )
        except grpc.aio.AioRpcError as error:
            raise_if_cancelled()
            late = f"its shim did not answer within {_START_SECONDS:g} s; the machine may be overloaded"
            says = late if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else error.details()
            raise Unavailable(says or str(error.code())) from error

    async def status(self) -> shim_pb2.ShimStatus:
        """Ask for the shim's status.

        Raises:
            grpc.aio.AioRpcError: it does not answer, or has another token.
        """
        response = await self._stub.GetStatus(
            shim_pb2.GetStatusRequest(), timeout=_CALL_SECONDS, metadata=self._metadata, wait_for_ready=True
        )
        return response.status

    async def resources(self) -> ResourceSample | None:
        """Measure the runner's resource usage. None if its shim does not answer soon, or cannot measure."""
        try:
            used = await self._stub.GetUsage(
                shim_pb2.GetUsageRequest(), timeout=_MEASURE_SECONDS, metadata=self._metadata
            )
        except grpc.aio.AioRpcError:
            raise_if_cancelled()
            return None
        return ResourceSample(
            cpu_seconds=used.cpu_seconds,
            memory_bytes=used.memory_bytes,
            gpu_memory_bytes=used.gpu_memory_bytes if used.HasField("gpu_memory_bytes") else None,
            gpu_cores=used.gpu_cores if used.HasField("gpu_cores") else None,
        )

    def watch(self, after: int) -> Watching:
        """Stream the events after this one."""
        return self._stub.Watch(shim_pb2.WatchRequest(after=after), metadata=self._metadata)

    def logs(self, after: int) -> Logging:
        """Stream the log entries after this one."""
        return self._stub.StreamLogs(shim_pb2.StreamLogsRequest(after_sequence=after), metadata=self._metadata)

    async def ack_logs(self, sequence: int) -> None:
        """Acknowledge that the entries up to this one are stored."""
        request = shim_pb2.AckLogsRequest(sequence=sequence)
        await self._stub.AckLogs(request, timeout=_CALL_SECONDS, metadata=self._metadata)

    async def stop(self, grace_seconds: float) -> None:
        """Have the shim send SIGTERM, and SIGKILL after the grace."""
        request = shim_pb2.StopRequest(grace_seconds=grace_seconds)
        await self._stub.Stop(request, timeout=_CALL_SECONDS, metadata=self._metadata)

    async def kill(self) -> None:
        """Have the shim send SIGKILL to everything."""
        await self._stub.Kill(shim_pb2.KillRequest(), timeout=_CALL_SECONDS, metadata=self._metadata)

    async def shut_down(self) -> None:
        """End the shim."""
        await self._stub.Shutdown(shim_pb2.ShutdownRequest(), timeout=_CALL_SECONDS, metadata=self._metadata)

    def execs(self, runner_id: str) -> ShimExecChannel:
        """The channel to the commands beside the worker."""
        return ShimExecChannel(self._door, self._token, runner_id, self._links)

    async def close(self) -> None:
        """Close the channel and the open calls."""
        for link in self._links:
            link.close()
        await self._channel.close()
        self._door.close()
