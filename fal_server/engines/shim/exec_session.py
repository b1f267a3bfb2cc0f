"""Runs a command for a caller. It ends the command with the caller's stream."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

from google.protobuf.message import Message

from fal_grpc.v1 import exec_pb2, runner_pb2
from fal_runner.exec.message_socket import ConnectionBroken, MessageSocket
from fal_server.core.faults import Fault, Unavailable
from fal_server.engines.shim.exec_channel import ShimExecChannel
from fal_server.ports import ExecOutput, ExecRequest, TerminalSize

_CHUNK_BYTES = 128 * 1024
_ACK_BYTES = 2 * 1024 * 1024
_LINGER_SECONDS = 5.0  # for a controller that dies: it cannot end its commands, and no caller returns to them


class ShimExecSession:
    """Implements ExecSession.

    Args:
        channel: to the runner's commands.
        runner_id: the runner.
    """

    def __init__(self, channel: ShimExecChannel, runner_id: str) -> None:
        self._channel = channel
        self._runner_id = runner_id
        self._exec_id = secrets.token_hex(8)
        self._links = AsyncExitStack()
        self._output: MessageSocket | None = None
        self._input: MessageSocket | None = None
        self._received: MessageSocket | None = None
        self._input_offset = 0
        self._finished = False

    async def begin(self, request: ExecRequest) -> None:
        """Start the command.

        Raises:
            Fault: it is refused.
            Unavailable: the shim cannot be reached.
        """
        start = exec_pb2.StartExecRequest(
            runner_id=self._runner_id,
            exec_id=self._exec_id,
            command=request.command,
            tty=request.tty,
            tty_size=_size(request.size),
            cwd=request.cwd or "",
            env=request.variables,
            linger_seconds=_LINGER_SECONDS,
        )
        await self._channel.call("StartExec", start.SerializeToString())
        try:
            await self._connect()
        except BaseException:
            await self.close()
            raise

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _CHUNK_BYTES):
            piece = data[start : start + _CHUNK_BYTES]
            message = exec_pb2.WriteExecRequest(offset=self._input_offset, data=piece)
            self._input_offset += len(piece)
            await self._send(self._input, message)

    async def resize(self, size: TerminalSize) -> None:
        await self._call("ResizeExec", exec_pb2.ResizeExecRequest(exec_id=self._exec_id, tty_size=_size(size)))

    async def send_eof(self) -> None:
        await self._send(self._input, exec_pb2.WriteExecRequest(offset=self._input_offset, eof=True))

    async def signal(self, number: int) -> None:
        await self._call("SignalExec", exec_pb2.SignalExecRequest(exec_id=self._exec_id, signal=number))

    async def output(self) -> AsyncIterator[ExecOutput]:
        acknowledged = 0
        while True:
            message = await self._next()
            if message.HasField("outcome"):
                self._finished = True
                yield ExecOutput(exit_code=message.outcome.exit_code)
                return
            if message.data:
                yield ExecOutput(data=message.data, stream=message.stream)
            received = message.offset + len(message.data)
            if received - acknowledged >= _ACK_BYTES:
                acknowledged = received
                await self._send(self._received, exec_pb2.WriteExecRequest(received_offset=received))

    async def close(self) -> None:
        if not self._finished:
            self._finished = True
            await self._call("CloseExec", exec_pb2.CloseExecRequest(exec_id=self._exec_id))
        await self._links.aclose()

    async def _connect(self) -> None:
        """Start to read its output. Open one connection for input and one for acknowledgements.

        With one for both, input that the command does not read would delay the acknowledgement that it waits for.
        """
        reading = exec_pb2.ReadExecRequest(runner_id=self._runner_id, exec_id=self._exec_id, offset=0)
        self._output = await self._links.enter_async_context(self._channel.open("ReadExec"))
        await self._output.send(reading.SerializeToString())
        await self._next()  # the first response comes at once, and is empty
        names = exec_pb2.WriteExecRequest(runner_id=self._runner_id, exec_id=self._exec_id).SerializeToString()
        self._input = await self._links.enter_async_context(self._channel.open("WriteExec"))
        self._received = await self._links.enter_async_context(self._channel.open("WriteExec"))
        for link in (self._input, self._received):
            await link.send(names)

    async def _next(self) -> exec_pb2.ReadExecResponse:
        if self._output is None:
            raise Unavailable(f"the command in runner {self._runner_id} was not started")
        try:
            received = await self._output.receive()
        except ConnectionBroken as error:
            what = "was closed" if self._finished else f"broke: {error.strerror}"
            raise Unavailable(f"the link to runner {self._runner_id} {what}") from error
        if not isinstance(received, bytes):
            self._channel.check(received)
            raise Unavailable(f"the link to runner {self._runner_id} ended before the command's exit code came")
        return exec_pb2.ReadExecResponse.FromString(received)

    async def _call(self, method: str, request: Message) -> None:
        with suppress(Fault):  # the command may have ended, and its exit code follows
            await self._channel.call(method, request.SerializeToString())

    async def _send(self, link: MessageSocket | None, message: exec_pb2.WriteExecRequest) -> None:
        if link is not None:
            with suppress(ConnectionBroken):  # as above
                await link.send(message.SerializeToString())


def _size(size: TerminalSize) -> runner_pb2.TerminalSize:
    return runner_pb2.TerminalSize(height=size.height, width=size.width)
