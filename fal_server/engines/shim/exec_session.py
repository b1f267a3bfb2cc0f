"""A command that ends with the stream that it was asked for on: one of the shim's commands, read here and hung up."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

from google.protobuf.message import Message

from fal_grpc.v1 import exec_pb2, runner_pb2
from fal_runner.exec.message_socket import ConnectionBroken, MessageSocket
from fal_server.core.faults import Fault, Unavailable
from fal_server.engines.shim.exec_channel import ShimExecChannel
from fal_server.ports import ExecOutput, ExecRequest

_CHUNK_BYTES = 128 * 1024
_ACK_BYTES = 2 * 1024 * 1024
_LINGER_SECONDS = 5.0  # a controller that dies cannot hang its commands up; nobody comes back for these


class ShimExecSession:
    """Implements ExecSession.

    Args:
        line: to the runner's commands.
        runner_id: the runner.
    """

    def __init__(self, line: ShimExecChannel, runner_id: str) -> None:
        self._line = line
        self._runner_id = runner_id
        self._exec_id = secrets.token_hex(8)
        self._links = AsyncExitStack()
        self._output: MessageSocket | None = None
        self._input: MessageSocket | None = None
        self._received: MessageSocket | None = None
        self._input_offset = 0
        self._over = False

    async def begin(self, request: ExecRequest) -> None:
        """Ask for the command.

        Raises:
            Fault: it is refused.
            Unavailable: the shim cannot be reached.
        """
        start = exec_pb2.StartExecRequest(
            runner_id=self._runner_id,
            exec_id=self._exec_id,
            command=request.command,
            tty=request.tty,
            tty_size=runner_pb2.TerminalSize(height=request.height, width=request.width),
            cwd=request.cwd or "",
            env=request.variables,
            linger_seconds=_LINGER_SECONDS,
        )
        await self._line.call("StartExec", start.SerializeToString())
        try:
            await self._connect()
        except BaseException:
            await self.close()
            raise

    async def write(self, data: bytes) -> None:
        """Send to its stdin; waits while the command does not read."""
        for start in range(0, len(data), _CHUNK_BYTES):
            piece = data[start : start + _CHUNK_BYTES]
            message = exec_pb2.WriteExecRequest(offset=self._input_offset, data=piece)
            self._input_offset += len(piece)
            await self._send(self._input, message)

    async def resize(self, height: int, width: int) -> None:
        """Tell a terminal's new size, in character cells."""
        size = runner_pb2.TerminalSize(height=height, width=width)
        await self._tell("ResizeExec", exec_pb2.ResizeExecRequest(exec_id=self._exec_id, tty_size=size))

    async def send_eof(self) -> None:
        """Close its stdin; on a terminal, type the end-of-file character."""
        await self._send(self._input, exec_pb2.WriteExecRequest(offset=self._input_offset, eof=True))

    async def signal(self, number: int) -> None:
        """Send a signal to the command's group; on a terminal, to the foreground job."""
        await self._tell("SignalExec", exec_pb2.SignalExecRequest(exec_id=self._exec_id, signal=number))

    async def output(self) -> AsyncIterator[ExecOutput]:
        """What it writes, as it comes; ends after the exit code.

        Raises:
            Unavailable: the link to the runner broke, so that the exit code is not known.
        """
        told = 0
        while True:
            message = await self._next()
            if message.HasField("outcome"):
                self._over = True
                yield ExecOutput(exit_code=message.outcome.exit_code)
                return
            if message.data:
                yield ExecOutput(data=message.data, stream=message.stream)
            received = message.offset + len(message.data)
            if received - told >= _ACK_BYTES:
                told = received
                await self._send(self._received, exec_pb2.WriteExecRequest(received_offset=received))

    async def close(self) -> None:
        """Hang up."""
        if not self._over:
            self._over = True
            await self._tell("CloseExec", exec_pb2.CloseExecRequest(exec_id=self._exec_id))
        await self._links.aclose()

    async def _connect(self) -> None:
        """Become its reader, and open the ways for its input and for what was received.

        These are two, so that a command that waits to write is not kept waiting by one that does not read.
        """
        reading = exec_pb2.ReadExecRequest(runner_id=self._runner_id, exec_id=self._exec_id, offset=0)
        self._output = await self._links.enter_async_context(self._line.open("ReadExec"))
        await self._output.send(reading.SerializeToString())
        await self._next()  # the first comes at once, and says nothing
        names = exec_pb2.WriteExecRequest(runner_id=self._runner_id, exec_id=self._exec_id).SerializeToString()
        self._input = await self._links.enter_async_context(self._line.open("WriteExec"))
        self._received = await self._links.enter_async_context(self._line.open("WriteExec"))
        for link in (self._input, self._received):
            await link.send(names)

    async def _next(self) -> exec_pb2.ReadExecResponse:
        if self._output is None:
            raise Unavailable(f"the command in runner {self._runner_id} was not begun")
        try:
            received = await self._output.receive()
        except ConnectionBroken as error:
            words = "was closed" if self._over else f"broke: {error.strerror}"
            raise Unavailable(f"the link to runner {self._runner_id} {words}") from error
        if not isinstance(received, bytes):
            self._line.check(received)
            raise Unavailable(f"the link to runner {self._runner_id} ended before the command's exit code came")
        return exec_pb2.ReadExecResponse.FromString(received)

    async def _tell(self, method: str, request: Message) -> None:
        """What is said to a command that has ended goes nowhere: its exit code is on the way."""
        with suppress(Fault):
            await self._line.call(method, request.SerializeToString())

    async def _send(self, link: MessageSocket | None, message: exec_pb2.WriteExecRequest) -> None:
        if link is not None:
            with suppress(ConnectionBroken):  # the same
                await link.send(message.SerializeToString())
