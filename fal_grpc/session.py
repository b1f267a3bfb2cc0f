"""A command or shell inside a runner, blocking: input goes in from one thread while output is read in another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from fal_grpc.adapter import shell
from fal_grpc.calls import Calls
from fal_grpc.errors import (
    ArgumentError,
    CallError,
    ClientClosedError,
    DeadlineExceededError,
    ExecLinkError,
    FalError,
    RpcFailure,
    UnreachableError,
)

if TYPE_CHECKING:
    import grpc

    from fal_grpc.v1 import runner_pb2

_BROKEN = frozenset({"UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED", "ABORTED", "DATA_LOSS"})
_PENDING_INPUTS = 16


class ShellSession:
    """A command that runs in a runner. Iterate over it for its output; after that, `exit_code` is known.

    `send`, `resize` and `close_input` may be called from other threads than the one that reads. The command is ended
    when the session is closed before it has exited.
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
        self._input_error: BaseException | None = None
        self._outbox = _Outbox()
        self._calls = calls
        self._method = method
        first = shell.start(runner_id, command, tty=tty)
        items = iter(self._outbox) if interactive else shell.inputs(stdin)
        with calls.translated(method):
            self._call = calls.session(method, self._requests(first, items), timeout_seconds=timeout_seconds)

    @property
    def exit_code(self) -> int | None:
        """The command's exit code; None as long as it is not known."""
        return self._exit_code

    def send(self, data: bytes) -> None:
        """Give the command input. Waits while the runner does not read; after the command's end it does nothing."""
        self._outbox.put(data)

    def resize(self, height: int, width: int) -> None:
        """Tell the command's terminal its new size, in characters."""
        self._outbox.put(shell.Resize(height=height, width=width))

    def close_input(self) -> None:
        """Say that no more input comes: the command reads end-of-file."""
        self._outbox.put(shell.CloseInput())

    def signal(self, number: int) -> None:
        """Send the command a signal: this kind of session can only type the key that a terminal has for it.

        Raises:
            ArgumentError: there is no terminal, or no key.
        """
        self.send(shell.key_of(number, tty=self._tty))

    def close(self) -> None:
        """End the session, and the command if it has not exited. A second close does nothing."""
        self._closed = True
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[shell.ShellOutput]:
        """The command's output, as it comes, until it has exited.

        Raises:
            ExecLinkError: the link broke, so the exit code is not known.
            CallError: the controller refused: no such runner, not allowed, no more sessions.
            DeadlineExceededError: the command outlasted the timeout.
        """
        import grpc

        if self._exit_code is not None:
            return
        try:
            for message in self._call:
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
            raise self._broken(self._calls.error(cast("RpcFailure", failure), self._method)) from self._input_error
        finally:
            self._finish()
        raise ExecLinkError(no_exit_code(self.runner_id))

    def wait(self) -> int:
        """Read on to the end without looking at the output, and return the exit code; raises as iterating does."""
        for _ in self:
            pass
        if self._exit_code is None:
            raise ExecLinkError(no_exit_code(self.runner_id))
        return self._exit_code

    def _requests(
        self, first: runner_pb2.ShellRunnerInput, items: Iterator[shell.ShellInput]
    ) -> Iterator[runner_pb2.ShellRunnerInput]:
        """What is sent. gRPC reads this in a thread of its own, so an error in the caller's input is kept for him."""
        yield first
        try:
            for item in items:
                yield from shell.messages(item, tty=self._tty)
                if isinstance(item, shell.CloseInput):
                    return
        except Exception as error:  # noqa: BLE001  # whatever the caller's own iterable raises; raised again by reading
            self._input_error = error
            self._call.cancel()

    def _broken(self, error: CallError | ClientClosedError) -> FalError:
        if self._input_error is not None:
            return input_failed(self.runner_id, self._input_error)
        if self._closed and not isinstance(error, ClientClosedError):
            return session_closed(self.runner_id)
        return link_error(error, self.runner_id, started=self._started, timeout_seconds=self._timeout_seconds)

    def _finish(self) -> None:
        self._outbox.close()
        self._call.cancel()


class _Outbox:
    """Inputs on their way to gRPC's sending thread: a few at a time, so that a runner that does not read is felt."""

    def __init__(self) -> None:
        self._items: deque[shell.ShellInput] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: shell.ShellInput) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < _PENDING_INPUTS)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[shell.ShellInput]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._items)
                if self._closed:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


def no_exit_code(runner_id: str) -> str:
    """What to say where a session ended without an exit code."""
    return (
        f"The session in runner {runner_id} ended without an exit code: how the command ended is not known. "
        f"`fal runners list` shows whether the runner is still there."
    )


def input_failed(runner_id: str, error: BaseException) -> ExecLinkError:
    """What to raise where the caller's own input raised."""
    return ExecLinkError(f"The input for the command in runner {runner_id} failed: {error!r}")


def session_closed(runner_id: str) -> ExecLinkError:
    """What to raise where the caller closed the session too early."""
    return ExecLinkError(f"The session in runner {runner_id} was closed before the command had exited.")


def link_error(
    error: CallError | ClientClosedError, runner_id: str, *, started: bool, timeout_seconds: float | None
) -> FalError:
    """What to raise for an error that ended a session.

    A refusal stays what it is, and so does a controller that was never reached. All else is a broken link: the command
    may have run, and its exit code is not known.
    """
    if isinstance(error, DeadlineExceededError) and timeout_seconds is not None:
        return DeadlineExceededError(
            f"The command in runner {runner_id} had not exited after {timeout_seconds:g} seconds and was ended.",
            details=error.details,
            method=error.method,
            target=error.target,
        )
    if isinstance(error, ClientClosedError) or error.code not in _BROKEN:
        return error
    if isinstance(error, UnreachableError) and not started:
        return error
    broken = ExecLinkError(
        f"The link to the command in runner {runner_id} broke: {error.details or error.code}. "
        "How the command ended, or whether it did, is not known."
    )
    broken.__cause__ = error
    return broken
