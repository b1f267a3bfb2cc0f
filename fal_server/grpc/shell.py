"""A command or login shell inside a runner. Streams go in both directions until the exit code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import suppress

from fal_grpc.v1 import runner_pb2 as pb
from fal_server.core.faults import Fault, InvalidArgument, Unavailable
from fal_server.grpc.caller import Caller
from fal_server.grpc.streams import closing
from fal_server.ports import ExecOutput, ExecRequest, ExecSession, TerminalSize
from fal_server.services.runners import Runners


async def serve_shell(
    runners: Runners, requests: AsyncIterator[pb.ShellRunnerInput], caller: Caller
) -> AsyncGenerator[pb.ShellRunnerOutput]:
    """Serve one session. When the caller leaves, this is closed and sends the command SIGHUP.

    Raises:
        InvalidArgument: the first message names no runner, or a later one is invalid.
        Unavailable: the link to the runner broke before the exit code.
    """
    first = await anext(requests, None)
    if first is None or not first.runner_id:
        raise InvalidArgument("runner_id", "the first message names no runner: send its id")
    request = _exec_request(first)
    session = await runners.exec(caller.scope, first.runner_id, request)
    try:
        await caller.accept()
        sending = asyncio.create_task(_send_input(session, first, requests, tty=request.tty))
        try:
            async with closing(session.output()) as output:
                while True:
                    part = await _next(output, sending)
                    if part is None:
                        raise Unavailable("the link to the runner broke: how the command ended is not known")
                    if part.data:
                        yield pb.ShellRunnerOutput(data=part.data, stream=part.stream)
                    if part.exit_code is not None:
                        # Published clients ignore everything else in a message with an exit code.
                        yield pb.ShellRunnerOutput(exit_code=part.exit_code)
                        return
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, Fault):
                await sending
    finally:
        await session.close()


async def _next(output: AsyncIterator[ExecOutput], sending: asyncio.Task[None]) -> ExecOutput | None:
    """Return the next output, or None at its end.

    Raises:
        InvalidArgument: the caller sent an invalid message meanwhile.
    """
    reading = asyncio.ensure_future(_anext(output))
    try:
        if not sending.done():
            await asyncio.wait((reading, sending), return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not sending.cancelled():
            failure = sending.exception()
            # A command that no longer reads, or has ended, still has an exit code to send.
            if failure is not None and not (isinstance(failure, Fault) and not isinstance(failure, InvalidArgument)):
                raise failure
        return await reading
    finally:
        if not reading.done():
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


def _anext(output: AsyncIterator[ExecOutput]) -> Awaitable[ExecOutput | None]:
    return anext(output, None)


async def _send_input(
    session: ExecSession, first: pb.ShellRunnerInput, requests: AsyncIterator[pb.ShellRunnerInput], *, tty: bool
) -> None:
    """Forward the caller's input to the command.

    With a terminal, the end of the input has no effect, as when a user stops typing.
    """
    open_input = await _send(session, first, tty=tty, open_input=True)
    async for message in requests:
        open_input = await _send(session, message, tty=tty, open_input=open_input)
    if open_input and not tty:
        await session.send_eof()


async def _send(session: ExecSession, message: pb.ShellRunnerInput, *, tty: bool, open_input: bool) -> bool:
    """Forward one message, and return whether the input is still open."""
    if message.HasField("tty_size"):
        size = _size(message.tty_size)
        if tty:
            await session.resize(size)
    if message.data:
        if not open_input:
            raise InvalidArgument("data", "data came after close: send close last")
        await session.write(message.data)
    if message.close and open_input:
        await session.send_eof()
        return False
    return open_input


def _exec_request(first: pb.ShellRunnerInput) -> ExecRequest:
    # Clients that are older than the field mean a terminal.
    tty = first.tty if first.HasField("tty") else True
    size = _size(first.tty_size) if first.HasField("tty_size") else TerminalSize()
    return ExecRequest(command=tuple(first.command), tty=tty, size=size)


def _size(size: pb.TerminalSize) -> TerminalSize:
    return TerminalSize(height=size.height, width=size.width)
