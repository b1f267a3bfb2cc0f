"""A command in a runner that outlives its link."""

# Generated from fal_grpc/aio_exec_session.py by scripts/gen_blocking.py; do not edit.

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from fal_grpc.adapter import execs, shell
from fal_grpc.adapter.values import check_on_notice, flag, no_notice
from fal_grpc.calls import Calls
from fal_grpc.errors import (
    ArgumentError,
    CallError,
    ClientClosedError,
    FalError,
    NotFoundError,
    RpcFailure,
    UnavailableError,
    UnimplementedError,
)
from fal_grpc.exec_input import ExecInput
from fal_grpc.exec_link import (
    PROMPT_SECONDS,
    UNREPORTED,
    ExecReconnectPolicy,
    input_failed,
    no_exit_code,
    session_closed,
    timed_out,
)
from fal_grpc.shell_session import ShellSession

if TYPE_CHECKING:
    from fal_grpc.v1 import exec_pb2


def start(
    calls: Calls,
    spec: execs.ExecSpec,
    *,
    stdin: bytes | str | Iterable[bytes] | None,
    interactive: bool,
    on_notice: Callable[[str], None],
) -> ExecSession | ShellSession:
    """Start a command. If the controller lacks execs, start one that ends with its link."""
    shell.check_stdin(stdin)
    flag("interactive", interactive)
    check_on_notice(on_notice)
    try:
        response = calls.unary(calls.execs.StartExec, execs.start_request(spec, execs.new_id()))
    except UnimplementedError:
        if spec.keep:
            raise
    else:
        return ExecSession(
            calls,
            execs.exec_info(response.exec),
            stdin=stdin,
            interactive=interactive,
            timeout_seconds=spec.timeout_seconds,
            notice=response.notice,
            on_notice=on_notice,
        )
    session = ShellSession(
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
        session.resize(*spec.size)
    return session


class ExecSession:
    """A command that runs in a runner. Iterate over it for its output; then `exit_code` is known.

    If the link breaks, it reconnects, and iterating resumes with the next byte. One task can send input while another
    reads. A command that is not kept gets SIGHUP if the session is closed before it has exited.

    Attributes:
        info: the command at the start of the session.
        notice: a message of the controller for the person at the terminal; may be empty.
        dropped_bytes: how much output was lost because nobody read it in time.
    """

    def __init__(
        self,
        calls: Calls,
        info: execs.ExecInfo,
        *,
        attached: bool = False,
        stdin: bytes | str | Iterable[bytes] | None = None,
        interactive: bool = False,
        timeout_seconds: float | None = None,
        notice: str = "",
        on_notice: Callable[[str], None] = no_notice,
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
        self._size: tuple[int, int] | None = None
        self._offset: int | None = None if attached else 0
        self._acknowledged = 0
        self._cancel_reading: Callable[[], object] | None = None
        self._input = ExecInput(calls, info, on_failure=self._stop_reading)
        if not interactive and not attached:
            self._input.feed(stdin)

    @property
    def exit_code(self) -> int | None:
        """The command's exit code; None until it is known."""
        return self._exit_code

    def send(self, data: bytes) -> None:
        """Send input to the command. Wait while the runner does not read; after the command's end, do nothing."""
        self._input.send(data)

    def resize(self, height: int, width: int) -> None:
        """Set the size of the command's terminal, in characters."""
        self._size = (height, width)
        with suppress(*UNREPORTED):
            self._report_size()

    def close_input(self) -> None:
        """End the input: the command reads end-of-file."""
        self._input.end()

    def signal(self, number: int) -> None:
        """Send a signal to the foreground job of the terminal. Without one, send it to all processes of the command.

        Raises:
            UnavailableError: the link is broken now.
            DeadlineExceededError: the controller did not answer within 5 seconds.
        """
        from fal_grpc.v1 import exec_pb2

        request = exec_pb2.SignalExecRequest(runner_id=self.runner_id, exec_id=self.exec_id, signal=number)
        self._calls.unary(self._calls.execs.SignalExec, request, deadline_seconds=PROMPT_SECONDS)

    def hang_up(self) -> None:
        """End the command: SIGHUP to all of its processes, SIGKILL after 2 seconds."""
        from fal_grpc.v1 import exec_pb2

        request = exec_pb2.CloseExecRequest(runner_id=self.runner_id, exec_id=self.exec_id)
        with suppress(NotFoundError):
            self._calls.unary(self._calls.execs.CloseExec, request, deadline_seconds=PROMPT_SECONDS)

    def detach(self) -> None:
        """End the session but not the command. One that is not kept gets SIGHUP after a while."""
        self._closed = True
        self._stop_reading()
        self._input.stop()

    def close(self) -> None:
        """End the session. The command ends too, unless it has exited or is kept; a second close does nothing."""
        was_closed = self._closed
        self.detach()
        if not was_closed and self._exit_code is None and not self.info.keep:
            with suppress(CallError, ClientClosedError):  # the runner ends it anyway if nobody reads it for a while
                self.hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[shell.ShellOutput]:
        """Yield the command's output until it has exited.

        Raises:
            ExecLinkError: the link broke for good, so the exit code is unknown.
            CallError: the controller refused: no permission, or another reader took over.
            DeadlineExceededError: the command was ended at its timeout.
        """
        import grpc

        if self._exit_code is not None:
            return
        policy = ExecReconnectPolicy(self.info, self._on_notice)
        while True:
            try:
                for message in self._read():
                    policy.succeeded()
                    if message.data:
                        yield shell.ShellOutput(data=message.data, stream=message.stream)
                    elif message.HasField("outcome"):
                        self._end(message.outcome)
                        return
                error: FalError = UnavailableError("the stream ended early")
            except grpc.RpcError as failure:
                error = self._calls.error(cast("RpcFailure", failure), self._calls.execs.ReadExec)
            except ClientClosedError as closed:
                error = closed
            if self._input.error is not None:
                raise input_failed(self.runner_id, self._input.error) from self._input.error
            if self._closed and not isinstance(error, ClientClosedError):
                raise session_closed(self.runner_id)
            time.sleep(policy.pause(error))

    def wait(self) -> int:
        """Read to the end, drop the output, and return the exit code. Raises the errors of iterating."""
        for _ in self:
            pass
        if self._exit_code is None:
            raise no_exit_code(self.runner_id)
        return self._exit_code

    def _read(self) -> Iterator[exec_pb2.ReadExecResponse]:
        """Read over one connection. Its first message starts sending input."""
        from fal_grpc.v1 import exec_pb2

        request = exec_pb2.ReadExecRequest(runner_id=self.runner_id, exec_id=self.exec_id, offset=self._offset)
        call = self._calls.open(self._calls.execs.ReadExec, request)
        self._cancel_reading = call.cancel
        if self._closed or self._input.error is not None:
            call.cancel()
        first = True
        try:
            for message in call:
                if self._offset is not None and message.offset > self._offset:
                    self._drop(message.offset - self._offset)
                if first and self._attached and self._offset is None:
                    self._input.resume_at(message.input_offset)
                    if message.offset:
                        self._drop(message.offset)
                self._input.taken(message.input_offset)
                self._offset = message.offset + len(message.data)
                if first:
                    first = False
                    if self._size is not None:
                        with suppress(CallError):
                            self._report_size()
                    self._input.restart()
                yield message
                if self._offset - self._acknowledged >= execs.ACK_BYTES:
                    self._acknowledged = self._offset
                    self._input.acknowledge(self._offset)
        finally:
            call.cancel()

    def _stop_reading(self) -> None:
        if self._cancel_reading is not None:
            self._cancel_reading()

    def _drop(self, count: int) -> None:
        self.dropped_bytes += count
        self._on_notice(f"{count:,} bytes of output were dropped here: nobody read them in time")

    def _report_size(self) -> None:
        from fal_grpc.v1 import exec_pb2, runner_pb2

        if self._size is not None:
            size = runner_pb2.TerminalSize(height=self._size[0], width=self._size[1])
            request = exec_pb2.ResizeExecRequest(runner_id=self.runner_id, exec_id=self.exec_id, tty_size=size)
            self._calls.unary(self._calls.execs.ResizeExec, request, deadline_seconds=PROMPT_SECONDS)

    def _end(self, outcome: exec_pb2.ExecOutcome) -> None:
        self._exit_code = outcome.exit_code
        self.detach()
        if outcome.timed_out:
            raise timed_out(self.runner_id, self._timeout_seconds)
