"""Commands that live as long as one call: input and output pass through it, and its end hangs the command up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from fal_grpc.v1 import shim_pb2
from fal_runner.command import Command
from fal_runner.descriptors import read_some

_CHUNK_BYTES = 128 * 1024
_QUEUE_CHUNKS = 4
_IDLE_SECONDS = 0.2  # after the exit: how long a pipe that a background child holds open may be silent
Stream: TypeAlias = "shim_pb2.ExecData.Stream.ValueType"
_STREAMS: dict[int, Stream] = {1: shim_pb2.ExecData.STREAM_STDOUT, 2: shim_pb2.ExecData.STREAM_STDERR}


class Session:
    """One command in one call.

    Args:
        command: what was started.
    """

    def __init__(self, command: Command) -> None:
        self._command = command
        self._queue: asyncio.Queue[tuple[Stream, bytes]] = asyncio.Queue(_QUEUE_CHUNKS)
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, requests: AsyncIterator[shim_pb2.ExecRequest]) -> AsyncIterator[shim_pb2.ExecResponse]:
        """Pass input in, output out, and the exit last; whoever stops iterating hangs the command up."""
        loop = asyncio.get_running_loop()
        pumps = [loop.create_task(self._pump(fd, _STREAMS[stream])) for fd, stream in self._command.outputs]
        self._tasks = [*pumps, loop.create_task(self._feed(requests))]
        async for data, stream in self._merged(pumps):
            yield shim_pb2.ExecResponse(data=shim_pb2.ExecData(data=data, stream=stream))
        code = await self._command.child.wait()
        exited = shim_pb2.ExecExit(code=code) if code >= 0 else shim_pb2.ExecExit(code=128 - code, signal=-code)
        yield shim_pb2.ExecResponse(exit=exited)

    async def end(self) -> None:
        """Let go of the command; one that still runs is hung up: SIGHUP to everything of the session, and SIGKILL to
        what is left after 2 s."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._command.close()
        if not self._command.exited:
            await self._command.end()

    async def _merged(self, pumps: list[asyncio.Task[None]]) -> AsyncIterator[tuple[bytes, Stream]]:
        """The output of all pumps, to the end; a pipe that stays open after the exit ends when it falls silent."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Task[tuple[Stream, bytes]] | None = None
        try:
            while True:
                if waiting is None:
                    waiting = loop.create_task(self._queue.get())
                open_pumps = [pump for pump in pumps if not pump.done()]
                if not open_pumps and self._queue.empty() and not waiting.done():
                    await asyncio.sleep(0)
                    if not waiting.done():
                        return
                exited = self._command.exited
                watched: set[asyncio.Future[Any]] = {waiting, *open_pumps}
                if not exited:
                    watched.add(self._command.child.exited)
                done, _ = await asyncio.wait(
                    watched,
                    timeout=_IDLE_SECONDS if exited else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if waiting in done:
                    stream, data = waiting.result()
                    waiting = None
                    yield data, stream
                elif not done:
                    return
        finally:
            if waiting is not None:
                waiting.cancel()

    async def _pump(self, fd: int, stream: Stream) -> None:
        while data := await read_some(fd, _CHUNK_BYTES):
            await self._queue.put((stream, data))

    async def _feed(self, requests: AsyncIterator[shim_pb2.ExecRequest]) -> None:
        """Carry out what the caller sends. The end of its messages is the end of the input, except on a terminal."""
        async for request in requests:
            match request.WhichOneof("input"):
                case "data":
                    await self._command.write(request.data)
                case "resize":
                    self._command.resize(request.resize.height, request.resize.width)
                case "eof":
                    await self._command.end_input()
                case "signal":
                    self._command.send_signal(request.signal)
                case _:
                    continue
        if not self._command.tty:
            await self._command.end_input()
