"""A command or shell inside a runner, for asyncio. It ends with its link."""

# The source of fal_grpc/shell_session.py: run `make gen` after a change.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from fal_grpc.adapter import shell
from fal_grpc.aio_calls import AsyncCalls
from fal_grpc.aio_shell_input import AsyncShellInput
from fal_grpc.errors import ArgumentError, CallError, ClientClosedError, FalError, RpcFailure
from fal_grpc.exec_link import input_failed, link_error, no_exit_code, session_closed

if TYPE_CHECKING:
    import grpc.aio

    from fal_grpc.v1 import runner_pb2


class AsyncShellSession:
    """A command that runs in a runner. Iterate with `async for` for its output; then `exit_code` is known.

    One task can send input while another reads. Closing the session ends a command that has not exited.
    """

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
        self._calls = calls
        self._method = method
        first = shell.start(runner_id, command, tty=tty)
        self._input = AsyncShellInput(
            calls, method, first, stdin=stdin, interactive=interactive, timeout_seconds=timeout_seconds
        )

    @property
    def exit_code(self) -> int | None:
        """The command's exit code; None until it is known."""
        return self._exit_code

    async def send(self, data: bytes) -> None:
        """Send input to the command. Wait while the runner does not read; after the command's end, do nothing."""
        await self._input.put(data)

    async def resize(self, height: int, width: int) -> None:
        """Set the size of the command's terminal, in characters."""
        await self._input.put(shell.Resize(height=height, width=width))

    async def close_input(self) -> None:
        """End the input: the command reads end-of-file."""
        await self._input.put(shell.CloseInput())

    async def signal(self, number: int) -> None:
        """Send a signal by its key. This kind of session has no other way.

        Raises:
            ArgumentError: the command has no terminal, or the signal no key.
        """
        await self.send(shell.key_of(number, tty=self._tty))

    async def close(self) -> None:
        """End the session, and the command if it has not exited. A second close does nothing."""
        self._closed = True
        await self._input.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[shell.ShellOutput]:
        """Yield the command's output until it has exited.

        Raises:
            ExecLinkError: the link broke, so the exit code is unknown.
            CallError: the controller refused: no such runner, no permission, too many sessions.
            DeadlineExceededError: the command was ended at its timeout.
        """
        import grpc

        if self._exit_code is not None:
            return
        try:
            async for message in self._input.call:
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
            error = self._calls.error(cast("RpcFailure", failure), self._method)
            raise self._broken(error) from self._input.error
        except asyncio.CancelledError:
            # gRPC also raises this when the call itself was cancelled, by `close` or after failed input.
            if self._input.error is not None:
                raise input_failed(self.runner_id, self._input.error) from self._input.error
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise session_closed(self.runner_id) from None
            raise
        finally:
            await self._input.stop()
        raise no_exit_code(self.runner_id)

    async def wait(self) -> int:
        """Read to the end, drop the output, and return the exit code. Raises the errors of iterating."""
        async for _ in self:
            pass
        if self._exit_code is None:
            raise no_exit_code(self.runner_id)
        return self._exit_code

    def _broken(self, error: CallError | ClientClosedError) -> FalError:
        if self._input.error is not None:
            return input_failed(self.runner_id, self._input.error)
        if self._closed and not isinstance(error, ClientClosedError):
            return session_closed(self.runner_id)
        return link_error(error, self.runner_id, started=self._started, timeout_seconds=self._timeout_seconds)
