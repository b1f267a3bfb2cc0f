"""A command beside a worker, as the controller holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
import grpc.aio

from fal_grpc.v1 import runner_pb2, shim_pb2
from fal_server.core.faults import Unavailable
from fal_server.ports import ExecOutput, ExecRequest

Call: TypeAlias = "grpc.aio.StreamStreamCall[shim_pb2.ExecRequest, shim_pb2.ExecResponse]"
_CHUNK_BYTES = 128 * 1024


class LocalExecSession:
    """Implements ExecSession over the shim's Exec call.

    Args:
        call: the call, not yet begun.
        runner_id: for messages.
    """

    def __init__(self, call: Call, runner_id: str) -> None:
        self._call = call
        self._runner_id = runner_id

    async def begin(self, request: ExecRequest) -> None:
        """Ask for the command.

        Raises:
            Unavailable: the shim cannot be reached, or refuses.
        """
        start = shim_pb2.ExecStart(
            command=request.command,
            tty=request.tty,
            size=runner_pb2.TerminalSize(height=request.height, width=request.width),
            cwd=request.cwd or "",
            env=request.variables,
        )
        try:
            await self._call.write(shim_pb2.ExecRequest(start=start))
            await self._call.initial_metadata()  # comes when the command was started, or with a refusal
            if self._call.done() and await self._call.code() is not grpc.StatusCode.OK:
                raise Unavailable(f"runner {self._runner_id}: {await self._call.details()}")
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"runner {self._runner_id}: {error.details()}") from error

    async def write(self, data: bytes) -> None:
        """Send to its stdin; waits while the command does not read."""
        for start in range(0, len(data), _CHUNK_BYTES):
            await self._send(shim_pb2.ExecRequest(data=data[start : start + _CHUNK_BYTES]))

    async def resize(self, height: int, width: int) -> None:
        """Tell a terminal's new size, in character cells."""
        await self._send(shim_pb2.ExecRequest(resize=runner_pb2.TerminalSize(height=height, width=width)))

    async def send_eof(self) -> None:
        """Close its stdin; on a terminal, type the end-of-file character."""
        await self._send(shim_pb2.ExecRequest(eof=shim_pb2.ExecEof()))

    async def signal(self, number: int) -> None:
        """Send a signal to the command's group; on a terminal, to the foreground job."""
        await self._send(shim_pb2.ExecRequest(signal=number))

    async def output(self) -> AsyncIterator[ExecOutput]:
        """What it writes, as it comes; ends after the exit code.

        Raises:
            Unavailable: the link to the runner broke, so that the exit code is not known.
        """
        try:
            async for response in self._call:
                if response.HasField("exit"):
                    yield ExecOutput(exit_code=response.exit.code)
                    return
                yield ExecOutput(data=response.data.data, stream=response.data.stream)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"the link to runner {self._runner_id} broke: {error.details()}") from error
        except asyncio.CancelledError:
            if this_task_is_cancelled():
                raise
            raise Unavailable(f"the link to runner {self._runner_id} was closed") from None
        raise Unavailable(f"the link to runner {self._runner_id} ended before the command's exit code came")

    async def close(self) -> None:
        """Hang up."""
        self._call.cancel()

    async def _send(self, request: shim_pb2.ExecRequest) -> None:
        """What is sent after the command has ended is dropped: its exit code is on the way."""
        if self._call.done():
            return
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            return
        except asyncio.CancelledError:
            if this_task_is_cancelled():
                raise


def this_task_is_cancelled() -> bool:
    """Whether a CancelledError is meant for this task: gRPC raises one too, when the call or channel is closed."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
