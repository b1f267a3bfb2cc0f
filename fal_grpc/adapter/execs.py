"""Commands in runners that survive the link: their messages, and the books on what was sent and what was taken."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fal_grpc.adapter.runner import check_runner_id
from fal_grpc.adapter.values import moment
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import exec_pb2

CHUNK_BYTES = 128 * 1024
"""Bytes of input in a message."""
ACK_BYTES = 2 * 1024 * 1024
"""After so much output the runner is told that it was received; at 4 MiB it waits to be told."""
_MOST_UNTAKEN = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecInfo:
    """A command in a runner, running or ended lately.

    Attributes:
        exec_id: names it, within its runner.
        runner_id: the runner.
        command: the command and its arguments; empty for a login shell.
        tty: whether it has a terminal.
        keep: whether it goes on when nobody reads it.
        attached: whether somebody reads it now.
        started_at, ended_at: when; `ended_at` is None while it runs.
        exit_code: None while it runs; 128 and the number of a signal that ended it; 124 where its time was over.
        output_bytes: how much it wrote in all.
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
    """What to run in which runner, and how.

    Attributes:
        runner_id: the runner.
        command: the command and its arguments; empty for a login shell.
        tty: whether it gets a terminal.
        size: rows and columns of the terminal.
        term: what kind of terminal it is, as TERM says it; None leaves that to the runner.
        cwd: where to run it; None is the app's directory.
        env: environment variables on top of the app's.
        keep: let it go on when nobody reads it.
        timeout_seconds: after so long it is ended; None sets no limit.
        linger_seconds: how long it waits for a reader whose link broke; None leaves that to the runner.
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


def no_notice(_words: str) -> None:
    """For whoever does not want to be told."""


def new_id() -> str:
    """An id for a command."""
    return secrets.token_hex(8)


def start_request(spec: ExecSpec, exec_id: str) -> exec_pb2.StartExecRequest:
    """The request that starts a command.

    Raises:
        ArgumentError: the runner's id is empty, the command is one text instead of a list, or a time is none.
    """
    from fal_grpc.v1 import exec_pb2, runner_pb2

    if isinstance(spec.command, str):
        raise ArgumentError("command", f"must be a list, such as ['sh', '-c', {spec.command!r}]")
    if spec.timeout_seconds is not None and spec.timeout_seconds <= 0:
        raise ArgumentError("timeout", f"is {spec.timeout_seconds:g}: give more than 0 seconds")
    for name in spec.env or {}:
        if not name or "=" in name:
            raise ArgumentError("env", f"{name!r} is no name of a variable")
    size = None if spec.size is None else runner_pb2.TerminalSize(height=spec.size[0], width=spec.size[1])
    return exec_pb2.StartExecRequest(
        runner_id=check_runner_id(spec.runner_id),
        exec_id=exec_id,
        command=spec.command,
        tty=spec.tty,
        tty_size=size,
        cwd=spec.cwd or "",
        env={**({"TERM": spec.term} if spec.term else {}), **(spec.env or {})},
        keep=spec.keep,
        timeout_seconds=spec.timeout_seconds,
        linger_seconds=spec.linger_seconds,
    )


def wrapped(spec: ExecSpec) -> list[str]:
    """The command for a controller that knows neither directories nor variables: a shell that sets them and goes."""
    if not spec.cwd and not spec.env:
        return list(spec.command)
    variables = [f"{name}={value}" for name, value in (spec.env or {}).items()]
    command = list(spec.command) or ["sh"]
    return ["sh", "-c", 'cd "$1" && shift && exec env "$@"', "sh", spec.cwd or ".", *variables, *command]


def get_request(exec_id: str, runner_id: str | None) -> exec_pb2.GetExecRequest:
    """The request for one command.

    Raises:
        ArgumentError: the id is empty.
    """
    from fal_grpc.v1 import exec_pb2

    if not exec_id:
        raise ArgumentError("exec_id", "is empty; `fal runners execs` lists the ids")
    return exec_pb2.GetExecRequest(runner_id=runner_id or "", exec_id=exec_id)


def list_request(runner_id: str | None) -> exec_pb2.ListExecsRequest:
    """The request for the commands of one runner, or of all."""
    from fal_grpc.v1 import exec_pb2

    return exec_pb2.ListExecsRequest(runner_id=runner_id or "")


def exec_info(message: exec_pb2.ExecInfo) -> ExecInfo:
    """A command, as it was told."""
    ended = message.HasField("outcome")
    return ExecInfo(
        exec_id=message.exec_id,
        runner_id=message.runner_id,
        command=tuple(message.command),
        tty=message.tty,
        keep=message.keep,
        attached=message.attached,
        started_at=moment(message.started_at),
        ended_at=moment(message.ended_at) if ended else None,
        exit_code=message.outcome.exit_code if ended else None,
        output_bytes=message.output_end,
    )


class InputBook:
    """The input of a command: what was given, and what of it the runner has taken. Without locks.

    Attributes:
        received: offset up to which output was received, to be told to the runner.
    """

    def __init__(self) -> None:
        self.received = 0
        self.ended = False
        self._taken = 0
        self._end = 0
        self._pieces: deque[tuple[int, bytes]] = deque()

    @property
    def full(self) -> bool:
        """Whether so much is not taken yet that more should wait."""
        return self._end - self._taken >= _MOST_UNTAKEN

    def add(self, data: bytes) -> None:
        """Input, to be sent."""
        view = memoryview(data)
        for start in range(0, len(view), CHUNK_BYTES):
            piece = bytes(view[start : start + CHUNK_BYTES])
            self._pieces.append((self._end, piece))
            self._end += len(piece)

    def begin_at(self, offset: int) -> None:
        """So much input was given before, by somebody else."""
        self._pieces = deque((offset + start, data) for start, data in self._pieces)
        self._taken += offset
        self._end += offset

    def taken(self, offset: int) -> bool:
        """The runner has taken the input below this offset; returns whether that is more than was known."""
        if offset <= self._taken:
            return False
        self._taken = offset
        while self._pieces and self._pieces[0][0] + len(self._pieces[0][1]) <= self._taken:
            self._pieces.popleft()
        return True

    def sending(self) -> Sending:
        """What to send on a new stream: all that was not taken."""
        return Sending(self, self._taken)

    def piece_at(self, offset: int) -> tuple[int, bytes] | None:
        """The piece that holds this offset, or ends there first."""
        for start, data in self._pieces:
            if start + len(data) > offset:
                return start, data
        return None


class Sending:
    """One stream of input on its way."""

    def __init__(self, book: InputBook, position: int) -> None:
        self._book = book
        self._position = position
        self._told = 0
        self._told_end = False

    def next(self) -> exec_pb2.WriteExecRequest | None:
        """The next message; None where there is nothing to say for now."""
        from fal_grpc.v1 import exec_pb2

        book = self._book
        message = exec_pb2.WriteExecRequest(offset=self._position)
        piece = book.piece_at(self._position)
        if piece is not None:
            start, data = piece
            message.offset, message.data = start, data
            self._position = start + len(data)
        elif book.ended and not self._told_end:
            self._told_end = message.eof = True
        elif book.received == self._told:
            return None
        if book.received > self._told:
            self._told = message.received_offset = book.received
        return message
