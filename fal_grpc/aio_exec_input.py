"""Writes a command's input across broken links, from tasks. `exec_input.py` says why there are two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable

from fal_grpc.adapter import execs, shell
from fal_grpc.aio_calls import AsyncCalls


class AsyncExecInput:
    """The input of a command, taken from the caller. It is sent on one stream after another.

    Attributes:
        error: the exception of the caller's input; the session raises it when it is read.
    """

    def __init__(self, calls: AsyncCalls, info: execs.ExecInfo, *, on_failure: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._calls = calls
        self._info = info
        self._on_failure = on_failure
        self._buffer = execs.InputBuffer()
        self._changed = asyncio.Event()
        self._stopped = False
        self._writing: asyncio.Task[None] | None = None
        self._feeding: asyncio.Task[None] | None = None

    def feed(self, stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None) -> None:
        """Start taking the complete input from the caller. Nobody needs to read the output yet."""
        self._feeding = asyncio.get_running_loop().create_task(self._feed(stdin))

    async def send(self, data: bytes) -> None:
        """Add input. Wait while the runner does not read; after `stop`, do nothing."""
        for start in range(0, len(data), execs.CHUNK_BYTES):
            while self._buffer.full and not self._stopped:
                await self._changed.wait()
            if self._stopped:
                return
            self._buffer.add(data[start : start + execs.CHUNK_BYTES])
            self._notify()

    def end(self) -> None:
        """Mark the end of the input."""
        self._buffer.ended = True
        self._notify()

    def resume_at(self, offset: int) -> None:
        """Continue at the offset that an earlier session reached."""
        self._buffer.resume_at(offset)

    def taken(self, offset: int) -> None:
        """Record the offset up to which the runner has taken the input."""
        if self._buffer.taken(offset):
            self._notify()

    def acknowledge(self, offset: int) -> None:
        """Tell the runner the offset up to which the output was received."""
        self._buffer.received = offset
        self._notify()

    def restart(self) -> None:
        """Send on a new stream. It starts with the first byte that the runner has not taken."""
        if self._stopped:
            return
        if self._writing is not None:
            self._writing.cancel()
        self._writing = asyncio.get_running_loop().create_task(self._send_all(self._buffer.sending()))

    async def stop(self) -> None:
        """Stop sending."""
        self._stopped = True
        self._notify()
        for task in (self._writing, self._feeding):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
                await asyncio.wait([task])

    async def _send_all(self, sending: execs.Sending) -> None:
        import grpc

        call = self._calls.upload(self._calls.execs.WriteExec)
        first = True
        try:
            while not self._stopped:
                message = sending.next()
                if message is None:
                    await self._changed.wait()
                    continue
                if first:
                    message.runner_id, message.exec_id, first = self._info.runner_id, self._info.exec_id, False
                await call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # the link is broken: the reader notices it, too, and restarts this
        finally:
            call.cancel()

    async def _feed(self, stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None) -> None:
        try:
            if isinstance(stdin, AsyncIterable):
                async for data in stdin:
                    await self.send(shell.input_bytes(data))
            else:
                for item in shell.inputs(stdin):
                    if isinstance(item, bytes):
                        await self.send(item)
            self.end()
        except Exception as error:  # noqa: BLE001  # whatever the caller's own iterable raises
            self.error = error
            self._on_failure()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
