"""fal.v1.Execs as the shim serves it: commands beside the worker that outlive the calls about them."""

# ruff: noqa: N802

from __future__ import annotations

import asyncio
import math
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio

from fal_grpc.v1 import exec_pb2 as pb
from fal_grpc.v1 import exec_pb2_grpc
from fal_runner.command import Command, What
from fal_runner.execution import Execution, Gap
from fal_runner.reaper import Reaper
from fal_runner.supervisor import State, Supervisor

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
MOST_COMMANDS = 64
KEPT_SECONDS = 600.0
"""How long a command that has ended is remembered, with what of its output was not received."""
_LINGER_SECONDS = 30.0
_MOST_LINGER_SECONDS = 24 * 3600.0
_MESSAGE_BYTES = 512 * 1024
_TELL_INPUT_BYTES = 128 * 1024
_MOST_COMMAND_BYTES = 128 * 1024  # Linux takes no longer argument
_MOST_CELLS = 10_000
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_STREAMS = {1: pb.EXEC_STREAM_STDOUT, 2: pb.EXEC_STREAM_STDERR}


class _Kept:
    """A command, and the request that started it."""

    def __init__(self, request: pb.StartExecRequest, execution: Execution) -> None:
        self.request = request
        self.execution = execution


class ExecServicer(exec_pb2_grpc.ExecsServicer):
    """The commands of one shim. A refusal of an argument is worded `field: what is wrong`.

    Args:
        directory: the runner's directory.
        reaper: who starts processes here.
    """

    def __init__(self, directory: Path, reaper: Reaper) -> None:
        self._directory = directory
        self._reaper = reaper
        self._kept: dict[str, _Kept] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.runner: Supervisor | None = None

    @property
    def open_count(self) -> int:
        """How many run."""
        return sum(not kept.execution.over for kept in self._kept.values())

    async def StartExec(self, request: pb.StartExecRequest, context: Context) -> pb.StartExecResponse:
        """Start one, once."""
        runner = await self._mine(request.runner_id, context)
        await _check(request, context)
        known = self._kept.get(request.exec_id)
        if known is not None:
            if known.request != request:
                await context.abort(
                    grpc.StatusCode.ALREADY_EXISTS, f"another command has the id {request.exec_id}: choose another id"
                )
            return pb.StartExecResponse(exec=_info(known))
        if runner.state == State.STATE_EXITED:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"runner {request.runner_id} has ended")
        self._tidy()
        if self.open_count >= MOST_COMMANDS:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{MOST_COMMANDS} commands run in runner {request.runner_id}: end one",
            )
        what = What(
            command=request.command,
            tty=request.tty,
            size=(request.tty_size.height, request.tty_size.width),
            directory=request.cwd or runner.spec.working_dir,
            env={**runner.command_env, **request.env},
            name=f"{request.runner_id}.{request.exec_id}",
        )
        try:
            command = Command(self._reaper, what)
        except OSError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the command could not be started: {error}")
        except ValueError as error:
            await _refuse(context, "env", f"the command could not be started: {error}")
        execution = Execution(
            command,
            self._directory,
            keep=request.keep,
            timeout_seconds=request.timeout_seconds if request.HasField("timeout_seconds") else None,
            linger_seconds=request.linger_seconds if request.HasField("linger_seconds") else _LINGER_SECONDS,
        )
        kept = self._kept[request.exec_id] = _Kept(request, execution)
        return pb.StartExecResponse(exec=_info(kept))

    async def ReadExec(self, request: pb.ReadExecRequest, context: Context) -> AsyncIterator[pb.ReadExecResponse]:
        """What it writes, from an offset on."""
        execution = (await self._find(request.runner_id, request.exec_id, context)).execution
        output = execution.output
        offset = request.offset if request.HasField("offset") else output.start
        if offset > output.end:
            await _refuse(context, "offset", f"offset is {offset}, but only {output.end} bytes were written")
        reader = execution.attach()
        context.add_done_callback(lambda _context: execution.detach(reader))  # type: ignore[arg-type]
        offset = max(offset, output.start)
        told = execution.input_offset
        yield pb.ReadExecResponse(offset=offset, input_offset=told)
        while execution.reader is reader:
            piece = output.read(offset, _MESSAGE_BYTES)
            taken = execution.input_offset
            if piece is not None:
                start, stream, data = piece
                offset, told = start + len(data), taken
                yield pb.ReadExecResponse(offset=start, data=data, stream=_STREAMS[stream], input_offset=taken)
            elif execution.over:
                outcome = _outcome(execution)
                yield pb.ReadExecResponse(offset=offset, input_offset=taken, outcome=outcome)
                return
            elif taken - told >= _TELL_INPUT_BYTES:
                told = taken
                yield pb.ReadExecResponse(offset=offset, input_offset=taken)
            else:
                await execution.changed()
        await context.abort(grpc.StatusCode.ABORTED, f"somebody else reads {request.exec_id} now")

    async def WriteExec(
        self, request_iterator: AsyncIterator[pb.WriteExecRequest], context: Context
    ) -> pb.WriteExecResponse:
        """Input, and what of the output was received."""
        first = await anext(request_iterator, None)
        if first is None:
            await _refuse(context, "exec_id", "the first message is missing")
        execution = (await self._find(first.runner_id, first.exec_id, context)).execution
        reader = execution.reader
        await self._take(execution, first, context)
        async for request in request_iterator:
            if execution.reader is not reader and execution.reader is not None:
                await context.abort(grpc.StatusCode.ABORTED, f"somebody else reads {first.exec_id} now")
            await self._take(execution, request, context)
        return pb.WriteExecResponse(input_offset=execution.input_offset)

    async def SignalExec(self, request: pb.SignalExecRequest, context: Context) -> pb.SignalExecResponse:
        """Signal it."""
        if request.signal not in signal.valid_signals():
            await _refuse(context, "signal", f"signal is {request.signal}, and there is none of that number")
        (await self._find(request.runner_id, request.exec_id, context)).execution.send_signal(request.signal)
        return pb.SignalExecResponse()

    async def ResizeExec(self, request: pb.ResizeExecRequest, context: Context) -> pb.ResizeExecResponse:
        """Tell it its terminal's size."""
        size = request.tty_size
        await _check_size(size.height, size.width, context)
        (await self._find(request.runner_id, request.exec_id, context)).execution.resize(size.height, size.width)
        return pb.ResizeExecResponse()

    async def GetExec(self, request: pb.GetExecRequest, context: Context) -> pb.GetExecResponse:
        """One of them."""
        return pb.GetExecResponse(exec=_info(await self._find(request.runner_id, request.exec_id, context)))

    async def ListExecs(self, request: pb.ListExecsRequest, context: Context) -> pb.ListExecsResponse:
        """All of them."""
        self._tidy()
        return pb.ListExecsResponse(execs=[_info(kept) for kept in self._kept.values()])

    async def CloseExec(self, request: pb.CloseExecRequest, context: Context) -> pb.CloseExecResponse:
        """Hang it up."""
        (await self._find(request.runner_id, request.exec_id, context)).execution.hang_up()
        return pb.CloseExecResponse()

    async def _take(self, execution: Execution, request: pb.WriteExecRequest, context: Context) -> None:
        if request.HasField("received_offset"):
            execution.received(request.received_offset)
        if request.data or request.eof:
            try:
                await execution.write(request.offset, request.data, eof=request.eof)
            except Gap as gap:
                await _refuse(context, "offset", str(gap))

    async def _mine(self, runner_id: str, context: Context) -> Supervisor:
        if self.runner is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "there is no worker yet: Start comes first")
        if runner_id and runner_id != self.runner.spec.runner_id:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"runner {runner_id} is not here")
        return self.runner

    async def _find(self, runner_id: str, exec_id: str, context: Context) -> _Kept:
        await self._mine(runner_id, context)
        self._tidy()
        kept = self._kept.get(exec_id)
        if kept is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"there is no command {exec_id!r} in runner {runner_id}, or it ended too long ago: "
                "`fal runners execs` lists those that there are",
            )
        return kept

    def _tidy(self) -> None:
        """Forget what ended long ago, and the oldest of what ended where that is much."""
        now = time.time_ns()
        ended = [exec_id for exec_id, kept in self._kept.items() if kept.execution.over]
        surplus = max(0, len(ended) - MOST_COMMANDS)
        for position, exec_id in enumerate(ended):
            execution = self._kept[exec_id].execution
            if position < surplus or (now - execution.ended_ns > KEPT_SECONDS * 1e9 and execution.reader is None):
                del self._kept[exec_id]
                task = asyncio.get_running_loop().create_task(execution.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)


async def _check(request: pb.StartExecRequest, context: Context) -> None:
    if not _ID.fullmatch(request.exec_id):
        await _refuse(context, "exec_id", "exec_id must be 8 to 64 letters, digits, - and _")
    command = list(request.command)
    if any("\0" in word for word in (*command, request.cwd)):
        await _refuse(context, "command", "command or cwd holds a NUL character, which none can")
    if sum(len(word.encode()) for word in command) > _MOST_COMMAND_BYTES:
        await _refuse(context, "command", f"command is longer than {_MOST_COMMAND_BYTES} bytes: pass the rest as input")
    if command and not command[0]:
        await _refuse(context, "command", "command begins with an empty word: name the program to run")
    if request.HasField("tty_size"):
        await _check_size(request.tty_size.height, request.tty_size.width, context)
    if request.HasField("timeout_seconds") and not 0 < request.timeout_seconds < math.inf:
        await _refuse(context, "timeout_seconds", f"timeout_seconds is {request.timeout_seconds:g}: give more than 0")
    if request.HasField("linger_seconds") and not 0 <= request.linger_seconds <= _MOST_LINGER_SECONDS:
        await _refuse(context, "linger_seconds", f"linger_seconds is {request.linger_seconds:g}: give 0 to 86400")


async def _check_size(height: int, width: int, context: Context) -> None:
    if not (1 <= height <= _MOST_CELLS and 1 <= width <= _MOST_CELLS):
        await _refuse(context, "tty_size", f"tty_size is {height} x {width}: both must lie between 1 and {_MOST_CELLS}")


async def _refuse(context: Context, field: str, words: str) -> NoReturn:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {words}")


def _outcome(execution: Execution) -> pb.ExecOutcome:
    return pb.ExecOutcome(exit_code=execution.exit_code or 0, signal=execution.signal, timed_out=execution.timed_out)


def _info(kept: _Kept) -> pb.ExecInfo:
    request, execution = kept.request, kept.execution
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
    if execution.over:
        info.ended_at.FromNanoseconds(execution.ended_ns)
        info.outcome.CopyFrom(_outcome(execution))
    return info
