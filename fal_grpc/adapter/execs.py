"""Commands in runners that outlive their link. Holds their messages, and the buffer for their input."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fal_grpc.adapter.runner import check_runner_id
from fal_grpc.adapter.shell import command_words
from fal_grpc.adapter.values import count, flag, mapping, optional_text, seconds, text, to_datetime
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import exec_pb2, runner_pb2

CHUNK_BYTES = 128 * 1024
"""Bytes of input in a message."""
ACK_BYTES = 2 * 1024 * 1024
"""Acknowledge output to the runner after this many bytes; at 4 MiB it waits for an acknowledgement."""
_MAX_UNTAKEN = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecInfo:
    """A command in a runner, running or recently ended.

    Attributes:
        exec_id: its id, unique within its runner.
        runner_id: the runner.
        command: the command and its arguments; empty for a login shell.
        tty: whether it has a terminal.
        keep: whether it keeps running if nobody reads it.
        attached: whether somebody reads it now.
        started_at, ended_at: `ended_at` is None while it runs.
        exit_code: None while it runs; 128 plus the number of the signal that ended it; 124 after its timeout.
        output_bytes: how much it has written.
    """

    exec_id: str
    runner_id: str
    command: tuple[str, ...]
    tty: bool
    keep: bool
    attached: bool
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    output_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """A command to run in a runner.

    Attributes:
        runner_id: the runner.
        command: the command and its arguments; empty for a login shell.
        tty: whether it gets a terminal.
        size: rows and columns of the terminal.
        term: the type of the terminal, as in TERM; None leaves it to the runner.
        cwd: the directory to run it in; None means the app's.
        env: environment variables in addition to the app's.
        keep: whether it keeps running if nobody reads it.
        timeout_seconds: how long it may run; None sets no limit.
        linger_seconds: how long it waits for a reader whose link broke; None leaves it to the runner.
    """

    runner_id: str
    command: Sequence[str]
    tty: bool = False
    size: tuple[int, int] | None = None
    term: str | None = None
    cwd: str | None = None
    env: Mapping[str, str] | None = None
    keep: bool = False
    timeout_seconds: float | None = None
    linger_seconds: float | None = None


def new_id() -> str:
    import secrets  # it takes as long to import as the rest of this file

    return secrets.token_hex(8)


def start_request(spec: ExecSpec, exec_id: str) -> exec_pb2.StartExecRequest:
    """Return the request that starts a command.

    Raises:
        ArgumentError: the runner's id is empty, the command is not a list, or the timeout is not positive.
    """
    from fal_grpc.v1 import exec_pb2

    term = optional_text("term", spec.term)
    env = {"TERM": term} if term else dict[str, str]()
    for name, value in mapping("env", {} if spec.env is None else spec.env).items():
        if "=" in name:
            raise ArgumentError("env", f"{name!r} is not the name of a variable")
        env[name] = text("env", value, f"{name} must be text, not {type(value).__name__}", empty=True)
    size = None if spec.size is None else _size(spec.size)
    return exec_pb2.StartExecRequest(
        runner_id=check_runner_id(spec.runner_id),
        exec_id=exec_id,
        command=command_words(spec.command),
        tty=flag("tty", spec.tty),
        tty_size=size,
        cwd=optional_text("cwd", spec.cwd) or "",
        env=env,
        keep=flag("keep", spec.keep),
        timeout_seconds=seconds("timeout", spec.timeout_seconds),
        linger_seconds=spec.linger_seconds,
    )


def _size(size: object) -> runner_pb2.TerminalSize:
    from fal_grpc.v1 import runner_pb2

    if not isinstance(size, tuple | list) or len(size) != 2:
        raise ArgumentError("size", f"must be (rows, columns), not {size!r}")
    return runner_pb2.TerminalSize(height=count("size", size[0]) or 0, width=count("size", size[1]) or 0)


def wrapped(spec: ExecSpec) -> list[str]:
    """Return the command in a shell that sets directory and variables. Some controllers cannot set them."""
    if not spec.cwd and not spec.env:
        return list(spec.command)
    variables = [f"{name}={value}" for name, value in (spec.env or {}).items()]
    command = list(spec.command) or ["sh"]
    return ["sh", "-c", 'cd "$1" && shift && exec env "$@"', "sh", spec.cwd or ".", *variables, *command]


def get_request(exec_id: str, runner_id: str | None) -> exec_pb2.GetExecRequest:
    """Return the request for one command.

    Raises:
        ArgumentError: the id is empty.
    """
    from fal_grpc.v1 import exec_pb2

    named = text("exec_id", exec_id, "must be an id that is not empty; `fal runners execs` lists the ids")
    return exec_pb2.GetExecRequest(runner_id=optional_text("runner_id", runner_id) or "", exec_id=named)


def list_request(runner_id: str | None) -> exec_pb2.ListExecsRequest:
    from fal_grpc.v1 import exec_pb2

    return exec_pb2.ListExecsRequest(runner_id=optional_text("runner_id", runner_id) or "")


def exec_info(message: exec_pb2.ExecInfo) -> ExecInfo:
    ended = message.HasField("outcome")
    return ExecInfo(
        exec_id=message.exec_id,
        runner_id=message.runner_id,
        command=tuple(message.command),
        tty=message.tty,
        keep=message.keep,
        attached=message.attached,
        started_at=to_datetime(message.started_at),
        ended_at=to_datetime(message.ended_at) if ended else None,
        exit_code=message.outcome.exit_code if ended else None,
        output_bytes=message.output_end,
    )


class InputBuffer:
    """The input of a command that the runner has not taken yet. It has no locks.

    Attributes:
        received: the offset up to which output was received, for acknowledgements to the runner.
        ended: whether no more input follows.
    """

    def __init__(self) -> None:
        self.received = 0
        self.ended = False
        self._taken = 0
        self._end = 0
        self._chunks: deque[tuple[int, bytes]] = deque()

    @property
    def full(self) -> bool:
        """Whether the runner must take input before more is added."""
        return self._end - self._taken >= _MAX_UNTAKEN

    def add(self, data: bytes) -> None:
        """Append input."""
        view = memoryview(data)
        for start in range(0, len(view), CHUNK_BYTES):
            chunk = bytes(view[start : start + CHUNK_BYTES])
            self._chunks.append((self._end, chunk))
            self._end += len(chunk)

    def resume_at(self, offset: int) -> None:
        """Continue at the offset that an earlier session reached."""
        self._chunks = deque((offset + start, data) for start, data in self._chunks)
        self._taken += offset
        self._end += offset

    def taken(self, offset: int) -> bool:
        """Drop the input below an offset, which the runner has taken. Return whether there was any."""
        if offset <= self._taken:
            return False
        self._taken = offset
        while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) <= self._taken:
            self._chunks.popleft()
        return True

    def sending(self) -> Sending:
        """Return the sender for a new stream. It starts with the first byte not taken."""
        return Sending(self, self._taken)

    def chunk_at(self, offset: int) -> tuple[int, bytes] | None:
        """Return the first chunk that ends after an offset, with its start. None if there is none."""
        for start, data in self._chunks:
            if start + len(data) > offset:
                return start, data
        return None


class Sending:
    """The position of one stream in the input."""

    def __init__(self, buffer: InputBuffer, position: int) -> None:
        self._buffer = buffer
        self._position = position
        self._acknowledged = 0
        self._sent_end = False

    def next(self) -> exec_pb2.WriteExecRequest | None:
        """Return the next message; None if there is nothing to send yet."""
        from fal_grpc.v1 import exec_pb2

        buffer = self._buffer
        message = exec_pb2.WriteExecRequest(offset=self._position)
        chunk = buffer.chunk_at(self._position)
        if chunk is not None:
            start, data = chunk
            message.offset, message.data = start, data
            self._position = start + len(data)
        elif buffer.ended and not self._sent_end:
            self._sent_end = message.eof = True
        elif buffer.received == self._acknowledged:
            return None
        if buffer.received > self._acknowledged:
            self._acknowledged = message.received_offset = buffer.received
        return message
