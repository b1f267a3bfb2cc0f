"""Runs a command in a runner for this process. It has this process's input, output, window size and exit code."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from queue import Empty, Queue, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import EXECS, RUNNERS, resolve
from fal_cli.interrupts import Started, interrupts
from fal_cli.options import open_client
from fal_cli.presentation.printable import visible
from fal_cli.terminal.terminal import InputPump, has_raw_mode, raw_mode, terminal_size

if TYPE_CHECKING:
    from fal.api import ExecSession, ShellOutput, ShellSession, SyncServerlessClient

_MOST_INTERRUPTS = 3
_MOST_OUTPUTS = 4  # how many outputs may be read before they are written
# On Windows a signal does not interrupt an unlimited wait.
_WAKE_SECONDS = 0.2 if sys.platform == "win32" else None


def run(args: argparse.Namespace, command: Sequence[str], *, tty: bool, send_input: bool) -> int:
    """Run a command in the runner `args.id`, and return its exit code.

    Args:
        args: the parsed command line.
        command: the command and its arguments; empty for a login shell.
        tty: whether the command gets this terminal.
        send_input: whether the command gets standard input; if not, it reads end-of-file.

    Raises:
        CommandError: the link broke for good (LINK_BROKEN: the command may or may not have ended), or the command ran
            out of time (TIMED_OUT).
    """
    if tty:
        _require_raw_mode()

    def open_session(client: SyncServerlessClient) -> ExecSession | ShellSession:
        return client.runners.exec_stream(
            resolve(client, RUNNERS, args.id, args),
            command,
            tty=tty,
            interactive=True,
            timeout=args.timeout,
            cwd=args.cwd,
            env=dict(args.env),
            keep=args.keep,
            size=terminal_size(sys.stdin.fileno()) if tty else None,
            term=os.environ.get("TERM") if tty else None,
            on_notice=_notice(raw=tty),
        )

    return _relay(args, open_session, tty=tty, descriptor=sys.stdin.fileno() if send_input else None)


def _require_raw_mode() -> None:
    if not has_raw_mode():
        raise CommandError(
            "this system's terminal cannot pass every key on, so an interactive command needs Linux or macOS. "
            "`fal runners exec ID -- COMMAND` works here, also with input from a file or a pipe"
        )


def start(args: argparse.Namespace) -> str:
    """Start a command in the runner `args.id`, and return its id. It is not read."""
    with open_client(args) as client:
        started = client.runners.exec(
            resolve(client, RUNNERS, args.id, args),
            args.command,
            tty=args.interactive,
            timeout=args.timeout,
            cwd=args.cwd,
            env=dict(args.env),
            detach=True,
        )
        return started.exec_id


def attach(args: argparse.Namespace) -> int:
    """Follow a running or recently ended command; return its exit code. Raises the errors of `run`."""
    with open_client(args) as client:
        if args.runner:
            args.runner = resolve(client, RUNNERS, args.runner, args)
        exec_id = resolve(client, EXECS, args.exec_id, args)
        info = client.controller().get_exec(exec_id, runner_id=args.runner)
    terminal = sys.stdin.isatty()
    tty = info.tty and terminal
    if tty:
        _require_raw_mode()

    def open_session(client: SyncServerlessClient) -> ExecSession:
        session = client.runners.attach(exec_id, runner_id=info.runner_id, on_notice=_notice(raw=tty))
        if tty:
            session.resize(*terminal_size(sys.stdin.fileno()))
        return session

    return _relay(
        args, open_session, tty=tty, descriptor=sys.stdin.fileno() if tty or not terminal else None, stay=True
    )


class Collected(NamedTuple):
    """The output of an ended command."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def collect(args: argparse.Namespace, command: Sequence[str], *, timeout: float) -> Collected:
    """Run a command in the runner `args.id`, and return its output. It has no input.

    Signals and errors are handled as in `run`.
    """
    stdout, stderr = bytearray(), bytearray()

    def open_session(client: SyncServerlessClient) -> ExecSession | ShellSession:
        args.id = resolve(client, RUNNERS, args.id, args)
        return client.runners.exec_stream(
            args.id, command, interactive=True, timeout=timeout, on_notice=_notice(raw=False)
        )

    code = _relay(
        args,
        open_session,
        tty=False,
        descriptor=None,
        write=lambda output: (stderr if output.is_stderr else stdout).extend(output.data),
    )
    return Collected(code, bytes(stdout), bytes(stderr))


def _relay(
    args: argparse.Namespace,
    open_session: Callable[[SyncServerlessClient], ExecSession | ShellSession],
    *,
    tty: bool,
    descriptor: int | None,
    stay: bool = False,
    write: Callable[[ShellOutput], object] | None = None,
) -> int:
    """Relay input and output until the command ends.

    Args:
        stay: keep the command's input open if there is none here, because another client may send some.
        write: receives the output, instead of this process's own outputs.
    """
    from fal.api import DeadlineExceededError, ExecLinkError, UnavailableError

    try:
        with interrupts.deferred(), open_client(args) as client, ExitStack() as stack:
            started = Started(lambda: open_session(client))
            stack.callback(_close, started)
            with interrupts.interruptible():
                session = started.result()
            if notice := getattr(session, "notice", ""):
                _notice(raw=False)(notice)
            if tty:
                stack.enter_context(raw_mode(sys.stdin.fileno()))
            pump = InputPump(
                descriptor,
                send=session.send,
                end=_ignore if stay and descriptor is None else session.close_input,
                resize=session.resize if tty else None,
            )
            stack.enter_context(pump.running())
            # Close the session first: the pump may be waiting in `send` for a runner that does not read.
            stack.enter_context(session)
            if not tty:
                stack.enter_context(_interrupts(session))
            write = write or _writer_of_outputs()
            with interrupts.interruptible():
                for output in _read_in_thread(session):
                    write(output)
                return session.wait()
    except DeadlineExceededError as error:
        raise CommandError(str(error), ExitCode.TIMED_OUT) from None
    except (ExecLinkError, UnavailableError) as error:
        raise CommandError(str(error), ExitCode.LINK_BROKEN) from None


def _close(started: Started[ExecSession | ShellSession]) -> None:
    """End the command. A signal may have arrived while it was being started."""
    session = started.settled()
    if session is not None:
        session.close()


def _read_in_thread(session: ExecSession | ShellSession) -> Generator[ShellOutput]:
    """Yield a session's output, which a thread reads; raise the reader's exception.

    A signal ends this process by an exception in its main thread. Raised inside gRPC, it would leave gRPC's locks held,
    and closing the session would wait for them forever.
    """
    outputs: Queue[ShellOutput | BaseException | None] = Queue(_MOST_OUTPUTS)

    def read() -> None:
        try:
            for output in session:
                outputs.put(output)
        except BaseException as error:  # noqa: BLE001  # the reader of the output raises it
            outputs.put(error)
        else:
            outputs.put(None)

    threading.Thread(target=read, name="fal-output", daemon=True).start()
    while (output := _next(outputs)) is not None:
        if isinstance(output, BaseException):
            raise output
        yield output


def _next(outputs: Queue[ShellOutput | BaseException | None]) -> ShellOutput | BaseException | None:
    while True:
        try:
            return outputs.get(timeout=_WAKE_SECONDS)
        except Empty:
            continue


@contextmanager
def _interrupts(session: ExecSession | ShellSession) -> Generator[None]:
    """Send Ctrl-C to the command as SIGINT. The third one, or one that cannot be sent, ends the session."""
    from fal.api import ExecSession, FalError

    if not isinstance(session, ExecSession):
        yield  # this kind of session cannot send signals: Ctrl-C ends it and its command
        return
    pressed: SimpleQueue[bool] = SimpleQueue()
    count = 0

    def interrupted(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count < _MOST_INTERRUPTS:
            pressed.put(True)
        elif callable(before):
            before(number, frame)

    def send() -> None:
        nonlocal count
        while pressed.get():
            try:
                session.signal(signal.SIGINT)
            except FalError as error:
                _notice(raw=False)(f"Ctrl-C could not be passed on: {error}")
                count = _MOST_INTERRUPTS
                _interrupt_main_thread()
            if count == _MOST_INTERRUPTS - 1:
                _notice(raw=False)("Ctrl-C once more hangs the command up.")

    before = signal.signal(signal.SIGINT, interrupted)
    threading.Thread(target=send, name="fal-interrupts", daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        pressed.put(False)


def _interrupt_main_thread() -> None:
    if sys.platform == "win32":  # os.kill would end the process
        import _thread

        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)


def _ignore() -> None:
    """Ignore the end of a missing input."""


def _notice(*, raw: bool) -> Callable[[str], None]:
    """Return a writer of link notices to standard error. On a raw terminal, lines need a CR, too."""
    before, after = ("\r\n", "\r\n") if raw else ("", "\n")

    def notify(message: str) -> None:
        sys.stderr.write(f"{before}fal: {visible(message)}{after}")
        sys.stderr.flush()

    return notify


def _writer_of_outputs() -> Callable[[ShellOutput], None]:
    out, err = sys.stdout.fileno(), sys.stderr.fileno()
    return lambda output: _write(err if output.is_stderr else out, output.data)


def _write(descriptor: int, data: bytes) -> None:
    """Write without Python's buffers, even to a full non-blocking descriptor."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
