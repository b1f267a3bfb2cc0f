"""Writes a shell session's input from tasks. `shell_input.py` says why there are two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING

from fal_grpc.adapter import shell
from fal_grpc.aio_calls import AsyncCalls

if TYPE_CHECKING:
    import grpc.aio

    from fal_grpc.v1 import runner_pb2


class AsyncShellInput:
    """The call of a shell session, and its pending input.

    Attributes:
        call: the call; iterate over it for the output.
        error: the exception of the caller's input; the session raises it when it is read.
    """

    def __init__(
        self,
        calls: AsyncCalls,
        method: grpc.aio.StreamStreamMultiCallable[runner_pb2.ShellRunnerInput, runner_pb2.ShellRunnerOutput],
        first: runner_pb2.ShellRunnerInput,
        *,
        stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None,
        interactive: bool,
        timeout_seconds: float | None,
    ) -> None:
        self.error: BaseException | None = None
        self._tty = first.tty
        self._ended = False
        self._sending = asyncio.Lock()
        with calls.translated(method):
            self.call = calls.session(method, timeout_seconds=timeout_seconds)
        # Started at once, so that the command runs even if nobody reads yet.
        self._feeding = asyncio.create_task(self._feed(first, stdin, interactive=interactive))

    async def put(self, item: shell.ShellInput) -> None:
        """Send one input. After the end of the input or of the call, it does nothing."""
        if self._feeding is not asyncio.current_task() and not self._feeding.done():
            await asyncio.wait([self._feeding])
        async with self._sending:
            if self._ended:
                return
            for message in shell.messages(item, tty=self._tty):
                await self._write(message)
            if isinstance(item, shell.CloseInput):
                self._ended = True
                if not self.call.done():
                    await self.call.done_writing()

    async def stop(self) -> None:
        """Cancel the call, and stop sending."""
        self.call.cancel()
        if self._feeding is not asyncio.current_task():
            self._feeding.cancel()
            await asyncio.wait([self._feeding])

    async def _feed(
        self,
        first: runner_pb2.ShellRunnerInput,
        stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None,
        *,
        interactive: bool,
    ) -> None:
        async with self._sending:
            await self._write(first)
        if interactive:
            return
        try:
            if isinstance(stdin, AsyncIterable):
                async for data in stdin:
                    await self.put(shell.input_bytes(data))
                await self.put(shell.CloseInput())
            else:
                for item in shell.inputs(stdin):
                    await self.put(item)
        except Exception as error:  # noqa: BLE001  # whatever the caller's own iterable raises
            self.error = error
            self.call.cancel()

    async def _write(self, message: runner_pb2.ShellRunnerInput) -> None:
        import grpc

        if self.call.done():
            return
        try:
            await self.call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The call has ended; the reader reports why.
            self._ended = True
        except asyncio.CancelledError:
            # gRPC also raises this when the call itself was cancelled.
            task = asyncio.current_task()
            if task is None or task.cancelling() or not self.call.cancelled():
                raise
            self._ended = True
