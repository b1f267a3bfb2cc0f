"""A command or shell inside a runner, for asyncio: input goes in from one task while output is read in another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from fal_grpc.adapter import shell
from fal_grpc.aio_calls import AsyncCalls
from fal_grpc.documented import documented_by
from fal_grpc.errors import ArgumentError, ExecLinkError, FalError, RpcFailure
from fal_grpc.session import ShellSession, input_failed, link_error, no_exit_code, session_closed

if TYPE_CHECKING:
    import grpc
    import grpc.aio

    from fal_grpc.v1 import runner_pb2


@documented_by(ShellSession)
class AsyncShellSession:
    """`ShellSession` for asyncio: `async for` over it for its output, `async with` it."""

    def __init__(
        self,
        calls: AsyncCalls,
        method: grpc.aio.StreamStreamMultiCallable[runner_pb2.ShellRunnerInput, runner_pb2.ShellRunnerOutput],
        runner_id: str,
        command: Sequence[str],
        *,
        tty: bool,
        stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None,
        interactive: bool,
        timeout_seconds: float | None,
    ) -> None:
        if interactive and stdin is not None:
            raise ArgumentError("stdin", "cannot be given to an interactive session; use its send()")
        self.runner_id = runner_id
        self._tty = tty
        self._timeout_seconds = timeout_seconds
        self._exit_code: int | None = None
        self._started = False
        self._closed = False
        self._input_ended = False
        self._input_error: BaseException | None = None
        self._sending = asyncio.Lock()
        self._calls = calls
        self._method = method
        first = shell.start(runner_id, command, tty=tty)
        with calls.translated(method):
            self._call = calls.session(method, timeout_seconds=timeout_seconds)
        # Started at once, so that a session runs though nobody reads it yet.
        self._feeding = asyncio.create_task(self._feed(first, None if interactive else stdin, interactive=interactive))

    @property
    def exit_code(self) -> int | None:
        return self._exit_code

    async def send(self, data: bytes) -> None:
        await self._put(data)

    async def resize(self, height: int, width: int) -> None:
        await self._put(shell.Resize(height=height, width=width))

    async def close_input(self) -> None:
        await self._put(shell.CloseInput())

    async def signal(self, number: int) -> None:
        await self.send(shell.key_of(number, tty=self._tty))

    async def close(self) -> None:
        self._closed = True
        await self._finish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[shell.ShellOutput]:
        import grpc

        if self._exit_code is not None:
            return
        try:
            async for message in self._call:
                self._started = True
                item = shell.output(message)
                if isinstance(item, shell.ShellExit):
                    self._exit_code = item.exit_code
                    return
                if item is not None:
                    yield item
                if message.close:
                    break
        except grpc.RpcError as failure:
            raise self._broken(cast("RpcFailure", failure)) from self._input_error
        except asyncio.CancelledError:
            # gRPC reports a call that was cancelled here as a cancellation of the reader, which it is not.
            if self._input_error is not None:
                raise input_failed(self.runner_id, self._input_error) from self._input_error
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise session_closed(self.runner_id) from None
            raise
        finally:
            await self._finish()
        raise ExecLinkError(no_exit_code(self.runner_id))

    async def wait(self) -> int:
        async for _ in self:
            pass
        if self._exit_code is None:
            raise ExecLinkError(no_exit_code(self.runner_id))
        return self._exit_code

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
                    await self._put(data)
                await self._put(shell.CloseInput())
            else:
                for item in shell.inputs(stdin):
                    await self._put(item)
        except Exception as error:  # noqa: BLE001  # whatever the caller's own iterable raises; raised again by reading
            self._input_error = error
            self._call.cancel()

    async def _put(self, item: shell.ShellInput) -> None:
        """Send one input. Once the call is over, or the input, it does nothing."""
        if self._feeding is not asyncio.current_task() and not self._feeding.done():
            await asyncio.wait([self._feeding])
        async with self._sending:
            if self._input_ended:
                return
            for message in shell.messages(item, tty=self._tty):
                await self._write(message)
            if isinstance(item, shell.CloseInput):
                self._input_ended = True
                if not self._call.done():
                    await self._call.done_writing()

    async def _write(self, message: runner_pb2.ShellRunnerInput) -> None:
        import grpc

        if self._call.done():
            return
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The call ended meanwhile; why it did is for the reader to learn.
            self._input_ended = True
        except asyncio.CancelledError:
            # gRPC reports a call that was cancelled here as a cancellation of the writer, which it is not.
            task = asyncio.current_task()
            if task is None or task.cancelling() or not self._call.cancelled():
                raise
            self._input_ended = True

    def _broken(self, failure: RpcFailure) -> FalError:
        if self._input_error is not None:
            return input_failed(self.runner_id, self._input_error)
        if self._closed:
            return session_closed(self.runner_id)
        error = self._calls.error(failure, self._method)
        return link_error(error, self.runner_id, started=self._started, timeout_seconds=self._timeout_seconds)

    async def _finish(self) -> None:
        self._call.cancel()
        if self._feeding is not asyncio.current_task():
            self._feeding.cancel()
            await asyncio.wait([self._feeding])
