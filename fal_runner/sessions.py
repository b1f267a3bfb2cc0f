"""Commands that run beside a worker: with a terminal or with pipes, and hung up when who asked for them is gone."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import shutil
import signal
import struct
import termios
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeAlias

from fal_grpc.v1 import runner_pb2, shim_pb2
from fal_runner.descriptors import read_some, write_all
from fal_runner.processes import Seen, carries, send_signal
from fal_runner.reaper import Child, Reaper

SESSION_VARIABLE = "FAL_RUNNER_SESSION"
_CHUNK_BYTES = 128 * 1024
_QUEUE_CHUNKS = 4
_IDLE_SECONDS = 0.2  # after the exit: how long a pipe that a background child holds open may be silent
_HANGUP_SECONDS = 2.0
_END_OF_FILE = b"\x04"
Stream: TypeAlias = "shim_pb2.ExecData.Stream.ValueType"
STDOUT = shim_pb2.ExecData.STREAM_STDOUT
STDERR = shim_pb2.ExecData.STREAM_STDERR


class Session:
    """One command.

    Args:
        reaper: who starts it.
        start: what was asked for.
        env: the worker's environment.
        directory: the worker's directory.
        name: names the session among those of the runner, and the runner in a shell's prompt.
    """

    def __init__(
        self, reaper: Reaper, start: shim_pb2.ExecStart, env: Mapping[str, str], directory: str, name: str
    ) -> None:
        self._reaper = reaper
        self._name = name
        self._tty = start.tty
        variables = {**env, **start.env, SESSION_VARIABLE: name}
        if start.tty:
            variables.setdefault("TERM", "xterm-256color")
        command = list(start.command) or _shell(variables, name)
        self._stdin, self._outputs, theirs = _terminal(start.size) if start.tty else _pipes()
        try:
            self._child: Child = reaper.spawn(
                command,
                env=variables,
                directory=start.cwd or directory,
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                tty=start.tty,
            )
        except (OSError, ValueError):
            self._close()
            raise
        finally:
            for fd in set(theirs):
                os.close(fd)
        self._queue: asyncio.Queue[tuple[Stream, bytes]] = asyncio.Queue(_QUEUE_CHUNKS)
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, requests: AsyncIterator[shim_pb2.ExecRequest]) -> AsyncIterator[shim_pb2.ExecResponse]:
        """Pass input in, output out, and the exit last; whoever stops iterating hangs the command up."""
        loop = asyncio.get_running_loop()
        pumps = [loop.create_task(self._pump(fd, stream)) for fd, stream in self._outputs]
        self._tasks = [*pumps, loop.create_task(self._feed(requests))]
        async for data, stream in self._merged(pumps):
            yield shim_pb2.ExecResponse(data=shim_pb2.ExecData(data=data, stream=stream))
        code = await self._child.wait()
        exited = shim_pb2.ExecExit(code=code) if code >= 0 else shim_pb2.ExecExit(code=128 - code, signal=-code)
        yield shim_pb2.ExecResponse(exit=exited)

    async def end(self) -> None:
        """Let go of the command; one that still runs is hung up: SIGHUP to everything of the session, and SIGKILL to
        what is left after 2 s."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._close()
        if self._child.exited.done():
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _HANGUP_SECONDS
        for seen in self._members():
            send_signal(seen, signal.SIGHUP)
            send_signal(seen, signal.SIGCONT)  # one that is stopped would not see it
        while members := self._members():
            if loop.time() >= deadline:
                for seen in members:
                    send_signal(seen)
            await asyncio.sleep(0.02)

    def _members(self) -> list[Seen]:
        """What lives of the session: by its number, and by the word in the environment of what left it."""
        return [
            seen
            for seen in self._reaper.belongings()
            if seen.session == self._child.pid or carries(seen.pid, SESSION_VARIABLE, self._name)
        ]

    async def _merged(self, pumps: list[asyncio.Task[None]]) -> AsyncIterator[tuple[bytes, Stream]]:
        """The output of all pumps, to the end; a pipe that stays open after the exit ends when it falls silent."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Task[tuple[Stream, bytes]] | None = None
        try:
            while True:
                if waiting is None:
                    waiting = loop.create_task(self._queue.get())
                open_pumps = [pump for pump in pumps if not pump.done()]
                if not open_pumps and self._queue.empty() and not waiting.done():
                    await asyncio.sleep(0)
                    if not waiting.done():
                        return
                exited = self._child.exited.done()
                watched: set[asyncio.Future[Any]] = {waiting, *open_pumps}
                if not exited:
                    watched.add(self._child.exited)
                done, _ = await asyncio.wait(
                    watched,
                    timeout=_IDLE_SECONDS if exited else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if waiting in done:
                    stream, data = waiting.result()
                    waiting = None
                    yield data, stream
                elif not done:
                    return
        finally:
            if waiting is not None:
                waiting.cancel()

    async def _pump(self, fd: int, stream: Stream) -> None:
        while data := await read_some(fd, _CHUNK_BYTES):
            await self._queue.put((stream, data))

    async def _feed(self, requests: AsyncIterator[shim_pb2.ExecRequest]) -> None:
        """Carry out what the caller sends. The end of its messages is the end of the input, except on a terminal."""
        async for request in requests:
            match request.WhichOneof("input"):
                case "data":
                    await self._write(request.data)
                case "resize" if self._tty:
                    _set_size(self._outputs[0][0], request.resize)
                case "eof":
                    await self._end_input()
                case "signal":
                    self._signal(request.signal)
                case _:
                    continue
        if not self._tty:
            await self._end_input()

    async def _write(self, data: bytes) -> None:
        if self._stdin is None:
            return
        try:
            await write_all(self._stdin, data)
        except OSError:  # the command closed its input; what is sent to it goes nowhere, as in a shell's pipe
            await self._end_input()

    async def _end_input(self) -> None:
        if self._tty:
            await self._write(_END_OF_FILE)
        elif self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    def _signal(self, number: int) -> None:
        """To the foreground job of a terminal, else to the command's group."""
        if self._child.exited.done() or not 0 < number < signal.NSIG:
            return
        with contextlib.suppress(OSError):  # a terminal may have no foreground job, a group may just have ended
            group = os.tcgetpgrp(self._outputs[0][0]) if self._tty else self._child.pid
            os.killpg(group or self._child.pid, number)

    def _close(self) -> None:
        fds = {fd for fd, _ in self._outputs} | ({self._stdin} if self._stdin is not None else set())
        for fd in fds:
            os.close(fd)
        self._outputs, self._stdin = [], None


_Ends: TypeAlias = "tuple[int | None, list[tuple[int, Stream]], tuple[int, int, int]]"


def _terminal(size: runner_pb2.TerminalSize) -> _Ends:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    _set_size(ours, size)
    return ours, [(ours, STDOUT)], (theirs, theirs, theirs)


def _pipes() -> _Ends:
    stdin_read, stdin_write = os.pipe()
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    for fd in (stdin_write, out_read, err_read):
        os.set_blocking(fd, False)
    return stdin_write, [(out_read, STDOUT), (err_read, STDERR)], (stdin_read, out_write, err_write)


def _set_size(fd: int, size: runner_pb2.TerminalSize) -> None:
    height, width = max(1, min(size.height or 24, 0xFFFF)), max(1, min(size.width or 80, 0xFFFF))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def _shell(variables: dict[str, str], name: str) -> list[str]:
    """A shell without the user's profiles, which would set another PATH; its prompt says where it is."""
    runner = variables.get("FAL_RUNNER_ID", name)
    bash = shutil.which("bash", path=variables.get("PATH"))
    if bash is not None:
        variables["PS1"] = rf"[{runner[:8]}] \w \$ "
        return [bash, "--noprofile", "--norc"]
    variables["PS1"] = f"[{runner[:8]}] $ "
    return ["sh"]
