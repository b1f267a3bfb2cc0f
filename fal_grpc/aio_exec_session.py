"""A command in a runner that survives the link, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from fal_grpc.adapter import execs, shell
from fal_grpc.aio_calls import AsyncCalls
from fal_grpc.aio_session import AsyncShellSession
from fal_grpc.documented import documented_by
from fal_grpc.errors import (
    ArgumentError,
    CallError,
    ClientClosedError,
    ExecLinkError,
    FalError,
    NotFoundError,
    RpcFailure,
    UnimplementedError,
)
from fal_grpc.exec_session import PROMPT_SECONDS, UNTOLD, ExecSession, timed_out
from fal_grpc.reconnects import Reconnects
from fal_grpc.session import input_failed, session_closed

if TYPE_CHECKING:
    from fal_grpc.v1 import exec_pb2


async def start(
    calls: AsyncCalls,
    spec: execs.ExecSpec,
    *,
    stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None,
    interactive: bool,
    on_notice: Callable[[str], None],
) -> AsyncExecSession | AsyncShellSession:
    """As `exec_session.start`."""
    try:
        response = await calls.unary(calls.execs.StartExec, execs.start_request(spec, execs.new_id()))
    except UnimplementedError:
        if spec.keep:
            raise
    else:
        return AsyncExecSession(
            calls,
            execs.exec_info(response.exec),
            stdin=stdin,
            interactive=interactive,
            timeout_seconds=spec.timeout_seconds,
            notice=response.notice,
            on_notice=on_notice,
        )
    session = AsyncShellSession(
        calls,
        calls.runners.ShellRunner,
        spec.runner_id,
        execs.wrapped(spec),
        tty=spec.tty,
        stdin=stdin,
        interactive=interactive,
        timeout_seconds=spec.timeout_seconds,
    )
    if spec.size is not None and spec.tty and interactive:
        await session.resize(*spec.size)
    return session


@documented_by(ExecSession)
class AsyncExecSession:
    """`ExecSession` for asyncio: `async for` over it for its output, `async with` it."""

    def __init__(
        self,
        calls: AsyncCalls,
        info: execs.ExecInfo,
        *,
        attached: bool = False,
        stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None = None,
        interactive: bool = False,
        timeout_seconds: float | None = None,
        notice: str = "",
        on_notice: Callable[[str], None] = execs.no_notice,
    ) -> None:
        if interactive and stdin is not None:
            raise ArgumentError("stdin", "cannot be given to an interactive session; use its send()")
        self.exec_id = info.exec_id
        self.runner_id = info.runner_id
        self.info = info
        self.notice = notice
        self.dropped_bytes = 0
        self._calls = calls
        self._timeout_seconds = timeout_seconds
        self._on_notice = on_notice
        self._exit_code: int | None = None
        self._attached = attached
        self._closed = False
        self._input_error: BaseException | None = None
        self._size: tuple[int, int] | None = None
        self._output_offset: int | None = None if attached else 0
        self._told = 0
        self._book = execs.InputBook()
        self._changed = asyncio.Event()
        self._cancel: Callable[[], object] | None = None
        self._writing: asyncio.Task[None] | None = None
        # Started at once, so that input goes though nobody reads yet.
        self._feeding = None if interactive or attached else asyncio.get_running_loop().create_task(self._feed(stdin))

    @property
    def exit_code(self) -> int | None:
        return self._exit_code

    async def send(self, data: bytes) -> None:
        for begin in range(0, len(data), execs.CHUNK_BYTES):
            while self._book.full and not self._closed:
                await self._changed.wait()
            if self._closed:
                return
            self._book.add(data[begin : begin + execs.CHUNK_BYTES])
            self._notify()

    async def resize(self, height: int, width: int) -> None:
        self._size = (height, width)
        with suppress(*UNTOLD):  # told again when the link is back; nothing has no size
            await self._tell_size()

    async def close_input(self) -> None:
        self._book.ended = True
        self._notify()

    async def signal(self, number: int) -> None:
        from fal_grpc.v1 import exec_pb2

        request = exec_pb2.SignalExecRequest(runner_id=self.runner_id, exec_id=self.exec_id, signal=number)
        await self._calls.unary(self._calls.execs.SignalExec, request, deadline_seconds=PROMPT_SECONDS)

    async def hang_up(self) -> None:
        from fal_grpc.v1 import exec_pb2

        request = exec_pb2.CloseExecRequest(runner_id=self.runner_id, exec_id=self.exec_id)
        with suppress(NotFoundError):
            await self._calls.unary(self._calls.execs.CloseExec, request, deadline_seconds=PROMPT_SECONDS)

    async def detach(self) -> None:
        self._closed = True
        self._notify()
        if self._cancel is not None:
            self._cancel()
        tasks = [task for task in (self._writing, self._feeding) if task is not None]
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()
                await asyncio.wait([task])

    async def close(self) -> None:
        was_closed = self._closed
        await self.detach()
        if not was_closed and self._exit_code is None and not self.info.keep:
            with suppress(CallError, ClientClosedError):  # then it is hung up when nobody has come back for a while
                await self.hang_up()

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
        reconnects = Reconnects(self.info, self._on_notice)
        while True:
            try:
                async for message in self._read():
                    reconnects.succeeded()
                    if message.data:
                        yield shell.ShellOutput(data=message.data, stream=message.stream)
                    elif message.HasField("outcome"):
                        await self._end(message.outcome)
                        return
                error: FalError = reconnects.ended_early()
            except grpc.RpcError as failure:
                error = self._calls.error(cast("RpcFailure", failure), self._calls.execs.ReadExec)
            except ClientClosedError as closed:
                error = closed
            except asyncio.CancelledError:
                # gRPC reports a call that was cancelled here as a cancellation of the reader, which it is not.
                task = asyncio.current_task()
                if task is None or task.cancelling() or not (self._closed or self._input_error):
                    raise
                error = session_closed(self.runner_id)
            if self._input_error is not None:
                raise input_failed(self.runner_id, self._input_error) from self._input_error
            if self._closed and not isinstance(error, ClientClosedError):
                raise session_closed(self.runner_id)
            await asyncio.sleep(reconnects.pause(error))

    async def wait(self) -> int:
        async for _ in self:
            pass
        if self._exit_code is None:
            raise ExecLinkError(f"The session in runner {self.runner_id} ended without an exit code.")
        return self._exit_code

    async def _read(self) -> AsyncIterator[exec_pb2.ReadExecResponse]:
        """One connection's worth of output. The first message opens the way for input."""
        from fal_grpc.v1 import exec_pb2

        request = exec_pb2.ReadExecRequest(runner_id=self.runner_id, exec_id=self.exec_id, offset=self._output_offset)
        call = self._calls.open(self._calls.execs.ReadExec, request)
        self._cancel = call.cancel
        if self._closed or self._input_error is not None:
            call.cancel()
        first = True
        try:
            async for message in call:
                offset = message.offset
                if self._output_offset is not None and offset > self._output_offset:
                    self._lost(offset - self._output_offset)
                if first and self._attached and self._output_offset is None:
                    self._book.begin_at(message.input_offset)
                    if offset:
                        self._lost(offset)
                if self._book.taken(message.input_offset):
                    self._notify()
                self._output_offset = offset + len(message.data)
                if first:
                    first = False
                    await self._write()
                yield message
                if self._output_offset - self._told >= execs.ACK_BYTES:
                    self._told = self._book.received = self._output_offset
                    self._notify()
        finally:
            call.cancel()

    def _lost(self, count: int) -> None:
        self.dropped_bytes += count
        self._on_notice(f"{count:,} bytes of output were dropped here: nobody read them before the bound was met")

    async def _write(self) -> None:
        """Send input on a new stream: first all that was not taken from the one before."""
        if self._writing is not None:
            self._writing.cancel()
        if self._size is not None:
            with suppress(CallError):
                await self._tell_size()
        self._writing = asyncio.get_running_loop().create_task(self._send_all(self._book.sending()))

    async def _send_all(self, sending: execs.Sending) -> None:
        import grpc

        call = self._calls.upload(self._calls.execs.WriteExec)
        first = True
        try:
            while not self._closed:
                message = sending.next()
                if message is None:
                    await self._changed.wait()
                    continue
                if first:
                    message.runner_id, message.exec_id, first = self.runner_id, self.exec_id, False
                await call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # the link is broken; who reads learns of it too, and begins anew
        finally:
            call.cancel()

    async def _tell_size(self) -> None:
        from fal_grpc.v1 import exec_pb2, runner_pb2

        if self._size is not None:
            size = runner_pb2.TerminalSize(height=self._size[0], width=self._size[1])
            request = exec_pb2.ResizeExecRequest(runner_id=self.runner_id, exec_id=self.exec_id, tty_size=size)
            await self._calls.unary(self._calls.execs.ResizeExec, request, deadline_seconds=PROMPT_SECONDS)

    async def _feed(self, stdin: bytes | str | Iterable[bytes] | AsyncIterable[bytes] | None) -> None:
        """Give the caller's input. What his own iterable raises is raised again by reading."""
        try:
            if isinstance(stdin, AsyncIterable):
                async for data in stdin:
                    await self.send(data)
            else:
                for item in shell.inputs(stdin):
                    if isinstance(item, bytes):
                        await self.send(item)
            await self.close_input()
        except Exception as error:  # noqa: BLE001  # whatever it is
            self._input_error = error
            if self._cancel is not None:
                self._cancel()

    async def _end(self, outcome: exec_pb2.ExecOutcome) -> None:
        self._exit_code = outcome.exit_code
        await self.detach()
        if outcome.timed_out:
            raise timed_out(self.runner_id, self._timeout_seconds)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
