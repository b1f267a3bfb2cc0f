"""The door of a runner on another machine."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from typing import cast

import grpc
import grpc.aio

from fal_grpc.cancellation import raise_if_cancelled
from fal_grpc.v1 import host_pb2 as pb
from fal_grpc.v1 import host_pb2_grpc
from fal_server.aio.tasks import TaskSet
from fal_server.core.faults import Unavailable
from fal_server.engines.remote.names import DoorTarget
from fal_server.engines.remote.tunnel import splice_socket
from fal_server.engines.remote.way import Way

log = logging.getLogger(__name__)


class NodeDoor:
    """Implements Door for a runner of a node.

    Args:
        way: to the node.
        stub: calls its node process.
        runner_id: the runner.
    """

    def __init__(self, way: Way, stub: host_pb2_grpc.HostAsyncStub, runner_id: str) -> None:
        self._way = way
        self._stub = stub
        self._runner_id = runner_id
        self._tunnels = TaskSet(log)

    @property
    def host(self) -> str:
        return self._way.app_host(self._runner_id)

    @property
    def network_host(self) -> str:
        return self._way.app_host(self._runner_id, on_network=True)

    def channel(self) -> grpc.aio.Channel:
        return self._way.channel(DoorTarget.SHIM, self._runner_id)

    async def connect(self) -> socket.socket:
        call = self._stub.Enter()
        try:
            await call.write(pb.EnterRequest(runner_id=self._runner_id))
            first = await call.read()
            if first is grpc.aio.EOF:
                raise Unavailable(f"runner {self._runner_id} takes no commands now")
        except grpc.aio.AioRpcError as error:
            raise_if_cancelled()
            raise Unavailable(error.details() or f"runner {self._runner_id} takes no commands now") from error
        ours, theirs = socket.socketpair()

        async def incoming() -> AsyncIterator[bytes]:
            while (message := await call.read()) is not grpc.aio.EOF:
                yield cast("pb.EnterResponse", message).data

        async def send(data: bytes) -> None:
            await call.write(pb.EnterRequest(data=data))

        async def tunnel() -> None:
            try:
                await splice_socket(ours, incoming=incoming(), send=send, end=call.done_writing)
            except (grpc.aio.AioRpcError, OSError, grpc.aio.UsageError) as error:
                log.debug("the way to the commands of runner %s broke: %s", self._runner_id, error)
            finally:
                call.cancel()

        self._tunnels.spawn(tunnel(), name=f"commands of runner {self._runner_id}")
        return theirs

    def close(self) -> None:
        """Do nothing: each connection ends with whoever has it."""
