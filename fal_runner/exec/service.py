"""Serves fal.v1.Execs in the shim. Its commands beside the worker outlive the calls about them."""

from __future__ import annotations

import asyncio
import math
import re
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

from fal_grpc.v1 import exec_pb2 as pb
from fal_runner.exec.command import Command, CommandSpec
from fal_runner.exec.execution import Execution, Gap
from fal_runner.exec.input import InputFeed
from fal_runner.process.subreaper import Subreaper
from fal_runner.shim.supervisor import State, Supervisor

_M = TypeVar("_M", bound=Message)
_Answering: TypeAlias = Callable[[Any], Message]  # each takes the request in the same row
MOST_COMMANDS = 64
KEPT_SECONDS = 600.0
"""How long an ended command is kept, with output that was not received."""
_LINGER_SECONDS = 30.0
_MOST_LINGER_SECONDS = 24 * 3600.0
_MESSAGE_BYTES = 512 * 1024
_REPORT_INPUT_BYTES = 128 * 1024
_MOST_COMMAND_BYTES = 128 * 1024  # Linux accepts no longer argument
_MOST_CELLS = 10_000
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_DATA_TAG = pb.ReadExecResponse.DATA_FIELD_NUMBER << 3 | 2  # the tag of a length-delimited field
_STREAMS = {1: pb.EXEC_STREAM_STDOUT, 2: pb.EXEC_STREAM_STDERR}


class ExecError(Exception):
    """A refused call.

    Args:
        code: the name of a gRPC status code.
        message: the reason; for an invalid argument in the form `field: what is wrong`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _KnownExec:
    """A command, and the request that started it."""

    def __init__(self, request: pb.StartExecRequest, execution: Execution) -> None:
        self.request = request
        self.execution = execution


class ExecService:
    """The commands of one shim. Requests and responses are serialized messages of fal.v1.Execs.

    Args:
        directory: the runner's directory.
        reaper: starts processes.
    """

    def __init__(self, directory: Path, reaper: Subreaper) -> None:
        self._directory = directory
        self._reaper = reaper
        self._records: dict[str, _KnownExec] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._methods: dict[str, tuple[type[Message], _Answering]] = {
            "StartExec": (pb.StartExecRequest, self._start),
            "SignalExec": (pb.SignalExecRequest, self._signal),
            "ResizeExec": (pb.ResizeExecRequest, self._resize),
            "GetExec": (pb.GetExecRequest, self._get),
            "ListExecs": (pb.ListExecsRequest, self._list),
            "CloseExec": (pb.CloseExecRequest, self._close),
        }
        self.runner: Supervisor | None = None

    @property
    def open_count(self) -> int:
        """How many commands run."""
        return sum(not record.execution.finished for record in self._records.values())

    def call(self, method: str, data: bytes) -> bytes:
        """Answer a unary method.

        Raises:
            ExecError: it is refused, or there is no such method.
        """
        if method not in self._methods:
            raise ExecError("UNIMPLEMENTED", f"this shim does not have {method}: it was started by another version")
        request_type, answer = self._methods[method]
        return answer(_parsed(request_type, data)).SerializeToString()

    async def read(self, data: bytes) -> AsyncGenerator[tuple[bytes, ...]]:
        """ReadExec: yield a command's output from an offset on. Each message is a tuple of parts.

        Raises:
            ExecError: the call is refused, or another reader has taken over.
        """
        request = _parsed(pb.ReadExecRequest, data)
        execution = self._find(request.runner_id, request.exec_id).execution
        output = execution.output
        offset = request.offset if request.HasField("offset") else output.start
        if offset > output.end:
            raise _invalid("offset", f"offset is {offset}, but only {output.end} bytes were written")
        reader = execution.attach()
        try:
            offset = max(offset, output.start)
            reported = execution.input_offset
            yield (pb.ReadExecResponse(offset=offset, input_offset=reported).SerializeToString(),)
            while execution.reader is reader:
                piece = output.read(offset, _MESSAGE_BYTES)
                taken = execution.input_offset
                if piece is not None:
                    start, stream, found = piece
                    offset, reported = start + len(found), taken
                    message = pb.ReadExecResponse(offset=start, stream=_STREAMS[stream], input_offset=taken)
                    yield message.SerializeToString(), _data_field(len(found)), found
                elif execution.finished:
                    outcome = _outcome(execution)
                    last = pb.ReadExecResponse(offset=offset, input_offset=taken, outcome=outcome)
                    yield (last.SerializeToString(),)
                    return
                elif taken - reported >= _REPORT_INPUT_BYTES:
                    reported = taken
                    yield (pb.ReadExecResponse(offset=offset, input_offset=taken).SerializeToString(),)
                else:
                    await execution.changed()
            raise ExecError("ABORTED", f"another reader has taken over {request.exec_id} now")
        finally:
            execution.detach(reader)

    async def write(self, messages: AsyncIterator[bytes]) -> bytes:
        """WriteExec: take input, and acknowledgements of output.

        Raises:
            ExecError: the call is refused, or another reader has taken over.
        """
        data = await anext(messages, None)
        if data is None:
            raise _invalid("exec_id", "the first message is missing")
        first = _parsed(pb.WriteExecRequest, data)
        execution = self._find(first.runner_id, first.exec_id).execution
        reader = execution.reader
        try:
            async with InputFeed(execution) as feed:
                await _take(execution, feed, first)
                async for data in messages:
                    if execution.reader is not reader and execution.reader is not None:
                        raise ExecError("ABORTED", f"another reader has taken over {first.exec_id} now")
                    await _take(execution, feed, _parsed(pb.WriteExecRequest, data))
                await feed.drain()
        except Gap as gap:
            raise _invalid("offset", str(gap)) from gap
        return pb.WriteExecResponse(input_offset=execution.input_offset).SerializeToString()

    def _start(self, request: pb.StartExecRequest) -> pb.StartExecResponse:
        runner = self._mine(request.runner_id)
        _check(request)
        known = self._records.get(request.exec_id)
        if known is not None:
            if known.request != request:
                raise ExecError("ALREADY_EXISTS", f"another command has the id {request.exec_id}: choose another id")
            return pb.StartExecResponse(exec=_info(known))
        if runner.state == State.STATE_EXITED:
            raise ExecError("FAILED_PRECONDITION", f"runner {request.runner_id} has ended")
        self._tidy()
        if self.open_count >= MOST_COMMANDS:
            raise ExecError(
                "RESOURCE_EXHAUSTED", f"{MOST_COMMANDS} commands run in runner {request.runner_id}: end one"
            )
        spec = CommandSpec(
            command=request.command,
            tty=request.tty,
            size=(request.tty_size.height, request.tty_size.width),
            directory=runner.spec.working_dir,
            env=runner.command_env,
            place=runner.command_place,
            terminals=runner.terminals,
            cwd=request.cwd,
            more=dict(request.env),
            name=f"{request.runner_id}.{request.exec_id}",
        )
        try:
            command = Command(self._reaper, spec)
        except OSError as error:
            raise ExecError("RESOURCE_EXHAUSTED", f"the command could not be started: {error}") from error
        except ValueError as error:
            raise _invalid("env", f"the command could not be started: {error}") from error
        execution = Execution(
            command,
            self._directory,
            keep=request.keep,
            timeout_seconds=request.timeout_seconds if request.HasField("timeout_seconds") else None,
            linger_seconds=request.linger_seconds if request.HasField("linger_seconds") else _LINGER_SECONDS,
        )
        record = self._records[request.exec_id] = _KnownExec(request, execution)
        return pb.StartExecResponse(exec=_info(record))

    def _signal(self, request: pb.SignalExecRequest) -> pb.SignalExecResponse:
        if request.signal not in signal.valid_signals():
            raise _invalid("signal", f"signal is {request.signal}, and there is none of that number")
        self._find(request.runner_id, request.exec_id).execution.send_signal(request.signal)
        return pb.SignalExecResponse()

    def _resize(self, request: pb.ResizeExecRequest) -> pb.ResizeExecResponse:
        size = request.tty_size
        _check_size(size.height, size.width)
        self._find(request.runner_id, request.exec_id).execution.resize(size.height, size.width)
        return pb.ResizeExecResponse()

    def _get(self, request: pb.GetExecRequest) -> pb.GetExecResponse:
        return pb.GetExecResponse(exec=_info(self._find(request.runner_id, request.exec_id)))

    def _list(self, _request: pb.ListExecsRequest) -> pb.ListExecsResponse:
        self._tidy()
        return pb.ListExecsResponse(execs=[_info(record) for record in self._records.values()])

    def _close(self, request: pb.CloseExecRequest) -> pb.CloseExecResponse:
        self._find(request.runner_id, request.exec_id).execution.hang_up()
        return pb.CloseExecResponse()

    def _mine(self, runner_id: str) -> Supervisor:
        if self.runner is None:
            raise ExecError("FAILED_PRECONDITION", "there is no worker yet: Start comes first")
        if runner_id and runner_id != self.runner.spec.runner_id:
            raise ExecError("NOT_FOUND", f"runner {runner_id} not found: another one is here")
        return self.runner

    def _find(self, runner_id: str, exec_id: str) -> _KnownExec:
        self._mine(runner_id)
        self._tidy()
        record = self._records.get(exec_id)
        if record is None:
            raise ExecError(
                "NOT_FOUND",
                f"command {exec_id!r} of runner {runner_id} not found: "
                "it never existed or ended too long ago; `fal runners execs` shows which exist",
            )
        return record

    def _tidy(self) -> None:
        """Drop commands that ended long ago, and the oldest ones of many."""
        now = time.monotonic()
        ended = [exec_id for exec_id, record in self._records.items() if record.execution.finished]
        surplus = max(0, len(ended) - MOST_COMMANDS)
        for position, exec_id in enumerate(ended):
            execution = self._records[exec_id].execution
            if position < surplus or (now - execution.ended_at > KEPT_SECONDS and execution.reader is None):
                del self._records[exec_id]
                task = asyncio.get_running_loop().create_task(execution.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)


def _check(request: pb.StartExecRequest) -> None:
    if not _ID.fullmatch(request.exec_id):
        raise _invalid("exec_id", "exec_id must be 8 to 64 letters, digits, - and _")
    command = list(request.command)
    if any("\0" in argument for argument in (*command, request.cwd)):
        raise _invalid("command", "command or cwd holds a NUL character, which none can")
    if sum(len(argument.encode()) for argument in command) > _MOST_COMMAND_BYTES:
        raise _invalid("command", f"command is longer than {_MOST_COMMAND_BYTES} bytes: pass the rest as input")
    if command and not command[0]:
        raise _invalid("command", "command begins with an empty word: name the program to run")
    if request.HasField("tty_size"):
        _check_size(request.tty_size.height, request.tty_size.width)
    if request.HasField("timeout_seconds") and not 0 < request.timeout_seconds < math.inf:
        raise _invalid("timeout_seconds", f"timeout_seconds is {request.timeout_seconds:g}: give more than 0")
    if request.HasField("linger_seconds") and not 0 <= request.linger_seconds <= _MOST_LINGER_SECONDS:
        raise _invalid("linger_seconds", f"linger_seconds is {request.linger_seconds:g}: give 0 to 86400")


def _check_size(height: int, width: int) -> None:
    if not (1 <= height <= _MOST_CELLS and 1 <= width <= _MOST_CELLS):
        raise _invalid("tty_size", f"tty_size is {height} x {width}: both must lie between 1 and {_MOST_CELLS}")


def _invalid(field: str, message: str) -> ExecError:
    return ExecError("INVALID_ARGUMENT", f"{field}: {message}")


def _parsed(request_type: type[_M], data: bytes) -> _M:
    try:
        return request_type.FromString(data)
    except DecodeError:
        raise _invalid("request", f"the request's bytes are no {request_type.DESCRIPTOR.full_name}") from None


async def _take(execution: Execution, feed: InputFeed, request: pb.WriteExecRequest) -> None:
    if request.HasField("received_offset"):
        execution.received(request.received_offset)
    if request.data or request.eof:
        await feed.put(request.offset, request.data, eof=request.eof)


def _data_field(length: int) -> bytes:
    """Return the bytes that precede those of ReadExecResponse.data.

    The fields of a message may come in any order, so the large data need not be copied into it.
    """
    head = bytearray((_DATA_TAG,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)


def _outcome(execution: Execution) -> pb.ExecOutcome:
    return pb.ExecOutcome(exit_code=execution.exit_code or 0, signal=execution.signal, timed_out=execution.timed_out)


def _info(record: _KnownExec) -> pb.ExecInfo:
    request, execution = record.request, record.execution
    info = pb.ExecInfo(
        exec_id=request.exec_id,
        runner_id=request.runner_id,
        command=request.command,
        tty=request.tty,
        keep=request.keep,
        attached=execution.reader is not None,
        output_start=execution.output.start,
        output_end=execution.output.end,
        input_offset=execution.input_offset,
    )
    info.started_at.FromNanoseconds(execution.started_ns)
    if execution.finished:
        info.ended_at.FromNanoseconds(execution.ended_ns)
        info.outcome.CopyFrom(_outcome(execution))
    return info
