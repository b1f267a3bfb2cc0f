"""Commands and shells that end with their link: a session's messages."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fal_grpc.adapter.runner import check_runner_id
from fal_grpc.adapter.values import flag, texts
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import runner_pb2

STDOUT = 1
STDERR = 2
CHUNK_BYTES = 32 * 1024
"""Bytes of input in a message: larger messages are no faster, smaller ones are slower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellOutput:
    """Bytes that a command wrote to STDOUT (1) or STDERR (2). All output of a terminal is STDOUT."""

    data: bytes
    stream: int = STDOUT

    @property
    def is_stderr(self) -> bool:
        """Whether the command wrote it to its standard error."""
        return self.stream == STDERR


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellExit:
    """The exit code of a command. It is 128 plus the signal's number if a signal ended it."""

    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """The exit code and the output of a command. With a terminal, all output is in `stdout`."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def text(self) -> str:
        """`stdout` decoded as UTF-8; invalid bytes become replacement characters."""
        return self.stdout.decode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """The new size of a terminal, in characters."""

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class CloseInput:
    """The end of the input."""


ShellInput = bytes | Resize | CloseInput


def start(runner_id: str, command: Sequence[str], *, tty: bool) -> runner_pb2.ShellRunnerInput:
    """Return the first message of a session.

    Args:
        runner_id: the runner.
        command: the command and its arguments; empty means a login shell.
        tty: whether it gets a terminal. Always sent, because unset means yes.

    Raises:
        ArgumentError: the id is empty, or the command is one text instead of a list.
    """
    from fal_grpc.v1 import runner_pb2

    words = command_words(command)
    return runner_pb2.ShellRunnerInput(runner_id=check_runner_id(runner_id), command=words, tty=flag("tty", tty))


def command_words(command: object) -> list[str]:
    """Return a command and its arguments.

    Raises:
        ArgumentError: it is not a list of texts.
    """
    if isinstance(command, str):
        raise ArgumentError("command", f"must be a list, such as ['sh', '-c', {command!r}]")
    return texts("command", command, empty=True)


def messages(item: ShellInput, *, tty: bool) -> Iterator[runner_pb2.ShellRunnerInput]:
    """Yield the messages for one input. A terminal's end of input has none: closing the stream signals it."""
    from fal_grpc.v1 import runner_pb2

    match item:
        case Resize(height=height, width=width):
            size = runner_pb2.TerminalSize(height=height, width=width)
            yield runner_pb2.ShellRunnerInput(tty_size=size)
        case CloseInput():
            if not tty:
                yield runner_pb2.ShellRunnerInput(close=True)
        case data:
            view = memoryview(data)
            for offset in range(0, len(view), CHUNK_BYTES):
                yield runner_pb2.ShellRunnerInput(data=bytes(view[offset : offset + CHUNK_BYTES]))


_KEYS = {2: b"\x03", 3: b"\x1c", 20: b"\x1a"}


def key_of(number: int, *, tty: bool) -> bytes:
    """Return the key that makes a terminal send a signal: Ctrl-C, Ctrl-\\ or Ctrl-Z.

    Raises:
        ArgumentError: there is no terminal, or the signal has no key.
    """
    if not tty or number not in _KEYS:
        raise ArgumentError("signal", f"{number} cannot be sent to a command that ends with its link")
    return _KEYS[number]


def output(message: runner_pb2.ShellRunnerOutput) -> ShellOutput | ShellExit | None:
    """Return a message's output or exit code; None if it has neither.

    If a message has an exit code, the rest of it is ignored, as in the published client.
    """
    if message.HasField("exit_code"):
        return ShellExit(exit_code=message.exit_code)
    if message.data:
        return ShellOutput(data=message.data, stream=STDERR if message.stream == STDERR else STDOUT)
    return None


def inputs(stdin: bytes | str | Iterable[bytes] | None) -> Iterator[ShellInput]:
    """Yield the complete input of a command, and then its end."""
    if isinstance(stdin, str):
        yield stdin.encode()
    elif isinstance(stdin, bytes | bytearray | memoryview):
        yield bytes(stdin)
    elif stdin is not None:
        for item in stdin:
            yield input_bytes(item)
    yield CloseInput()


def input_bytes(item: object) -> bytes:
    """Check and return a part of an input.

    Raises:
        ArgumentError: it is not bytes.
    """
    if not isinstance(item, bytes | bytearray | memoryview):
        raise ArgumentError("stdin", f"must give bytes, not {type(item).__name__}")
    return bytes(item)


def check_stdin(stdin: object) -> None:
    """Check an input as far as possible without reading it.

    Raises:
        ArgumentError: it is neither text, bytes, nor an iterable of bytes.
    """
    if stdin is None or isinstance(stdin, str | bytes | bytearray | memoryview):
        return
    if not isinstance(stdin, Iterable | AsyncIterable) or isinstance(stdin, Mapping):
        raise ArgumentError("stdin", f"must be text, bytes, or an iterable of bytes, not {type(stdin).__name__}")
    if isinstance(stdin, list | tuple):
        for item in stdin:
            input_bytes(item)
