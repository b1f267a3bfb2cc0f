"""A command or shell inside a runner. It ends with its link."""

# Generated from fal_grpc/aio_shell_session.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from fal_grpc.adapter import shell
from fal_grpc.calls import Calls
from fal_grpc.errors import ArgumentError, CallError, ClientClosedError, FalError, RpcFailure
from fal_grpc.exec_link import input_failed, link_error, no_exit_code, session_closed
from fal_grpc.shell_input import ShellInput

if TYPE_CHECKING:
    import grpc

    from fal_grpc.v1 import runner_pb2


class ShellSession:
    """A command that runs in a runner. Iterate over it for its output; then `exit_code` is known.

    One task can send input while another reads. Closing the session ends a command that has not exited.
    """

    def __init__(
        self,
        calls: Calls,
        method: grpc.StreamStreamMultiCallable[runner_pb2.ShellRunnerInput, runner_pb2.ShellRunnerOutput],
        runner_id: str,
        command: Sequence[str],
        *,
        tty: bool,
        stdin: bytes | str | Iterable[bytes] | None,
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
        self._input = ShellInput(
            calls, method, first, stdin=stdin, interactive=interactive, timeout_seconds=timeout_seconds
        )

    @property
    def exit_code(self) -> int | None:
        """The command's exit code; None until it is known."""
        return self._exit_code

    def send(self, data: bytes) -> None:
        """Send input to the command. Wait while the runner does not read; after the command's end, do nothing."""
        self._input.put(data)

    def resize(self, height: int, width: int) -> None:
        """Set the size of the command's terminal, in characters."""
        self._input.put(shell.Resize(height=height, width=width))

    def close_input(self) -> None:
        """End the input: the command reads end-of-file."""
        self._input.put(shell.CloseInput())

    def signal(self, number: int) -> None:
        """Send a signal by its key. This kind of session has no other way.

        Raises:
            ArgumentError: the command has no terminal, or the signal no key.
        """
        self.send(shell.key_of(number, tty=self._tty))

    def close(self) -> None:
        """End the session, and the command if it has not exited. A second close does nothing."""
        self._closed = True
        self._input.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[shell.ShellOutput]:
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
            for message in self._input.call:
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
        finally:
            self._input.stop()
        raise no_exit_code(self.runner_id)

    def wait(self) -> int:
        """Read to the end, drop the output, and return the exit code. Raises the errors of iterating."""
        for _ in self:
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
