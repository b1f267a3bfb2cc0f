"""A command in a runner that survives the link, blocking: it is read on where the connection broke."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from fal_grpc.adapter import execs, shell
from fal_grpc.calls import Answers, Calls
from fal_grpc.errors import (
    ArgumentError,
    CallError,
    ClientClosedError,
    DeadlineExceededError,
    ExecLinkError,
    FalError,
    NotFoundError,
    RpcFailure,
    UnavailableError,
    UnimplementedError,
)
from fal_grpc.reconnects import Reconnects
from fal_grpc.session import ShellSession, input_failed, session_closed

if TYPE_CHECKING:
    import grpc

    from fal_grpc.v1 import exec_pb2

PROMPT_SECONDS = 5.0
"""The deadline of what somebody at a terminal waits for: Ctrl-C, another size, the end. A controller that does not
answer must not hold the terminal; a command that could not be hung up is when nobody has come back for it."""
UNTOLD = (UnavailableError, DeadlineExceededError, NotFoundError)


def start(
    calls: Calls,
    spec: execs.ExecSpec,
    *,
    stdin: bytes | str | Iterable[bytes] | None,
    interactive: bool,
    on_notice: Callable[[str], None],
) -> ExecSession | ShellSession:
    """Start a command; with a controller that does not know such commands, one that ends with its link."""
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
    """A command that runs in a runner. Iterate over it for its output; after that, `exit_code` is known.

    When the link breaks, it is tried again, and iterating goes on with the next byte. `send`, `resize`, `signal` and
    `close_input` may be called from other threads than the one that reads. A command that is not kept is hung up when
    the session is closed before it has exited.
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
        self._changed = threading.Condition()
        self._generation = 0
        self._reading: Answers[exec_pb2.ReadExecResponse] | None = None
        self._writing: grpc.Future | None = None  # type: ignore[type-arg]
        if not interactive and not attached:
            threading.Thread(target=self._feed, args=(stdin,), name="fal-exec-input", daemon=True).start()

    @property
    def exit_code(self) -> int | None:
        """The command's exit code; None as long as it is not known."""
        return self._exit_code

    def send(self, data: bytes) -> None:
        """Give the command input. Waits while the runner does not read; after the command's end it does nothing."""
        for start in range(0, len(data), execs.CHUNK_BYTES):
            with self._changed:
                self._changed.wait_for(lambda: self._closed or not self._book.full)
                if self._closed:
                    return
                self._book.add(data[start : start + execs.CHUNK_BYTES])
                self._changed.notify_all()

    def resize(self, height: int, width: int) -> None:
        """Tell the command's terminal its new size, in characters."""
        self._size = (height, width)
        with suppress(*UNTOLD):  # told again when the link is back; nothing has no size
            self._tell_size()

    def close_input(self) -> None:
        """Say that no more input comes: the command reads end-of-file."""
        with self._changed:
            self._book.ended = True
            self._changed.notify_all()

    def signal(self, number: int) -> None:
        """Send the command a signal: to the foreground job of a terminal, else to all of its processes.

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
        """End the session, and leave the command as it is: one that is not kept is hung up after a while."""
        with self._changed:
            self._closed = True
            self._generation += 1
            self._changed.notify_all()
        for call in (self._reading, self._writing):
            if call is not None:
                call.cancel()

    def close(self) -> None:
        """End the session, and hang the command up unless it has exited or is kept. A second close does nothing."""
        was_closed = self._closed
        self.detach()
        if not was_closed and self._exit_code is None and not self.info.keep:
            with suppress(CallError, ClientClosedError):  # then it is hung up when nobody has come back for a while
                self.hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[shell.ShellOutput]:
        """The command's output, as it comes, until it has exited.

        Raises:
            ExecLinkError: the link broke for good, so the exit code is not known.
            CallError: the controller refused: not allowed, or somebody else reads the command now.
            DeadlineExceededError: the command outlasted its time and was ended.
        """
        import grpc

        if self._exit_code is not None:
            return
        reconnects = Reconnects(self.info, self._on_notice)
        while True:
            try:
                for message in self._read():
                    reconnects.succeeded()
                    if message.data:
                        yield shell.ShellOutput(data=message.data, stream=message.stream)
                    elif message.HasField("outcome"):
                        self._end(message.outcome)
                        return
                error: FalError = reconnects.ended_early()
            except grpc.RpcError as failure:
                error = self._calls.error(cast("RpcFailure", failure), self._calls.execs.ReadExec)
            except ClientClosedError as closed:
                error = closed
            if self._input_error is not None:
                raise input_failed(self.runner_id, self._input_error) from self._input_error
            if self._closed and not isinstance(error, ClientClosedError):
                raise session_closed(self.runner_id)
            time.sleep(reconnects.pause(error))

    def wait(self) -> int:
        """Read on to the end without looking at the output, and return the exit code; raises as iterating does."""
        for _ in self:
            pass
        if self._exit_code is None:
            raise ExecLinkError(f"The session in runner {self.runner_id} ended without an exit code.")
        return self._exit_code

    def _read(self) -> Iterator[exec_pb2.ReadExecResponse]:
        """One connection's worth of output. The first message opens the way for input."""
        from fal_grpc.v1 import exec_pb2

        request = exec_pb2.ReadExecRequest(runner_id=self.runner_id, exec_id=self.exec_id, offset=self._output_offset)
        method = self._calls.execs.ReadExec
        call = self._reading = self._calls.open(method, request)
        if self._closed:
            call.cancel()
        first = True
        for message in call:
            offset = message.offset
            if self._output_offset is not None and offset > self._output_offset:
                self._lost(offset - self._output_offset)
            with self._changed:
                if first and self._attached and self._output_offset is None:
                    self._book.begin_at(message.input_offset)
                    if offset:
                        self._lost(offset)
                if self._book.taken(message.input_offset):  # a thread that is woken for nothing costs much
                    self._changed.notify_all()
            self._output_offset = offset + len(message.data)
            if first:
                first = False
                self._write()
            yield message
            if self._output_offset - self._told >= execs.ACK_BYTES:
                self._told = self._output_offset
                with self._changed:
                    self._book.received = self._output_offset
                    self._changed.notify_all()

    def _lost(self, count: int) -> None:
        self.dropped_bytes += count
        self._on_notice(f"{count:,} bytes of output were dropped here: nobody read them before the bound was met")

    def _write(self) -> None:
        """Send input on a new stream: first all that was not taken from the one before."""
        if self._writing is not None:
            self._writing.cancel()
        if self._size is not None:
            with suppress(CallError):
                self._tell_size()
        with self._changed:
            self._generation += 1
            generation, sending = self._generation, self._book.sending()
            self._changed.notify_all()
        self._writing = self._calls.upload(self._calls.execs.WriteExec, self._messages(generation, sending))

    def _messages(self, generation: int, sending: execs.Sending) -> Iterator[exec_pb2.WriteExecRequest]:
        first = True
        while True:
            with self._changed:
                message = sending.next()
                while message is None:
                    if self._generation != generation:
                        return
                    self._changed.wait()
                    message = sending.next()
                if self._generation != generation:
                    return
            if first:
                message.runner_id, message.exec_id, first = self.runner_id, self.exec_id, False
            yield message

    def _tell_size(self) -> None:
        from fal_grpc.v1 import exec_pb2, runner_pb2

        if self._size is not None:
            size = runner_pb2.TerminalSize(height=self._size[0], width=self._size[1])
            request = exec_pb2.ResizeExecRequest(runner_id=self.runner_id, exec_id=self.exec_id, tty_size=size)
            self._calls.unary(self._calls.execs.ResizeExec, request, deadline_seconds=PROMPT_SECONDS)

    def _feed(self, stdin: bytes | str | Iterable[bytes] | None) -> None:
        """Give the caller's input. What his own iterable raises is raised again by reading."""
        try:
            for item in shell.inputs(stdin):
                if isinstance(item, bytes):
                    self.send(item)
            self.close_input()
        except Exception as error:  # noqa: BLE001  # whatever it is
            self._input_error = error
            if self._reading is not None:
                self._reading.cancel()

    def _end(self, outcome: exec_pb2.ExecOutcome) -> None:
        self._exit_code = outcome.exit_code
        self.detach()
        if outcome.timed_out:
            raise timed_out(self.runner_id, self._timeout_seconds)


def timed_out(runner_id: str, seconds: float | None) -> DeadlineExceededError:
    """What to raise where a command was ended because its time was over."""
    words = "in its time" if seconds is None else f"after {seconds:g} seconds"
    return DeadlineExceededError(f"The command in runner {runner_id} had not exited {words} and was ended.")
