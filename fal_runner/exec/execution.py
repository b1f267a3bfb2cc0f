"""A command that outlives the calls about it: its output waits for its reader, and no input is taken twice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from fal_runner.exec.command import Command
from fal_runner.exec.output import OutputBuffer
from fal_runner.process.descriptors import FLOOD_BYTES, read_on

_CHUNK_BYTES = 512 * 1024
_FLOOD_SECONDS = 0.001
_TELL_BYTES = 128 * 1024
_IDLE_SECONDS = 0.2  # after the exit: how long a pipe that a background child holds open may be silent
_TIMED_OUT = 124  # as timeout(1)


class Gap(Exception):
    """Input came that does not follow what was taken."""

    def __init__(self, offset: int, taken: int) -> None:
        super().__init__(f"offset is {offset}, but only {taken} bytes of input were taken: send those between")


class Reader:
    """Somebody who reads a command; a newer one takes its place."""


class Execution:
    """One command, its output and its input.

    Args:
        command: what was started.
        directory: where output that nobody fetches may lie.
        keep: whether it goes on when nobody reads it.
        timeout_seconds: after how long it is ended; None sets no limit.
        linger_seconds: how long it waits for a reader.

    Attributes:
        reader: who reads it now; None for nobody.
        exit_code: unset while it runs; 128 and the number of a signal that ended it.
        signal: the signal that ended it, if one did.
        started_ns, ended_ns: when, in nanoseconds since the epoch; 0 while it runs.
    """

    def __init__(
        self, command: Command, directory: Path, *, keep: bool, timeout_seconds: float | None, linger_seconds: float
    ) -> None:
        self.keep = keep
        self.output = OutputBuffer(directory)
        self.reader: Reader | None = None
        self.input_offset = 0
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.timed_out = False
        self.started_ns = time.time_ns()
        self.ended_ns = 0
        self._command = command
        self._linger_seconds = linger_seconds
        self._dropping = keep  # nobody has come for it yet
        self._changed = asyncio.Event()
        self._input = asyncio.Lock()
        self._input_ended = False
        self._input_told = 0
        self._open = dict(command.outputs)
        self._paused = False
        self._flood: asyncio.TimerHandle | None = None
        self._got = 0
        self._writable: asyncio.Event | None = None
        self._ending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._linger: asyncio.TimerHandle | None = None
        self._timeout = None if timeout_seconds is None else self._loop.call_later(timeout_seconds, self._time_out)
        for fd, stream in command.outputs:
            self._loop.add_reader(fd, self._readable, fd, stream)
        self._finishing = self._loop.create_task(self._finish())
        self._wait_for_reader()

    @property
    def over(self) -> bool:
        """Whether it has ended and all that it wrote is here."""
        return self.exit_code is not None

    def attach(self) -> Reader:
        """Read it from now on; who read it before learns that somebody else does."""
        self.reader = Reader()
        self._dropping = False
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._notify()
        return self.reader

    def detach(self, reader: Reader) -> None:
        """Read it no more."""
        if self.reader is reader:
            self.reader = None
            self._wait_for_reader()

    def received(self, offset: int) -> None:
        """Output below this offset need not be kept."""
        self.output.received(offset)
        self._resume()

    async def changed(self) -> None:
        """Wait for output, the end, another reader, or much input to have been taken."""
        await self._changed.wait()

    async def write(self, offset: int, data: bytes, *, eof: bool) -> None:
        """Give it input; waits while it does not read. What was taken already is skipped.

        Raises:
            Gap: the input before this is missing.
        """
        async with self._input:
            if offset > self.input_offset:
                raise Gap(offset, self.input_offset)
            view = memoryview(data)[self.input_offset - offset :]
            while view:
                view = view[await self._write_some(view) :]
                if self.input_offset - self._input_told >= _TELL_BYTES:
                    self._input_told = self.input_offset
                    self._notify()
            if eof and not self._input_ended:
                self._input_ended = True
                await self._command.end_input()

    def resize(self, height: int, width: int) -> None:
        """Tell its terminal the size, in character cells."""
        self._command.resize(height, width)

    def send_signal(self, number: int) -> None:
        """To the foreground job of a terminal, else to the command's group."""
        self._command.send_signal(number)

    def hang_up(self, first: int = signal.SIGHUP) -> None:
        """End it: this signal to all of it, SIGKILL after 2 s. What it still writes is read by nobody."""
        if self._ending is None and not self.over:
            self._ending = self._loop.create_task(self._command.end(first))
            self._dropping = True
            self._resume()

    async def close(self) -> None:
        """Let go of everything; to be called when it is over, or the shim ends."""
        for timer in (self._linger, self._timeout):
            if timer is not None:
                timer.cancel()
        self._finishing.cancel()
        await asyncio.gather(self._finishing, return_exceptions=True)
        self._close_ends()
        self.output.close()

    def _wait_for_reader(self) -> None:
        if self.over:
            self.output.rest()
            return
        self._linger = self._loop.call_later(self._linger_seconds, self._nobody_came)

    def _nobody_came(self) -> None:
        if self.keep:
            self._dropping = True
            self._resume()
        else:
            self.hang_up()

    def _time_out(self) -> None:
        if not self._command.exited:
            self.timed_out = True
            self.hang_up(signal.SIGTERM)
            self._dropping = self.reader is None

    def _readable(self, fd: int, stream: int) -> None:
        try:
            data = os.read(fd, _CHUNK_BYTES)
            if self._command.tty:
                data = read_on(fd, _CHUNK_BYTES, data, flood_seconds=2 * _FLOOD_SECONDS)
        except BlockingIOError:
            return
        except OSError:  # how a terminal says that nobody has it open any more
            data = b""
        if data:
            self._got += len(data)
            self.output.append(stream, data, drop=self._dropping)
            if self.output.full and not self._dropping:
                self._pause()
        else:
            self._loop.remove_reader(fd)
            self._open.pop(fd, None)
        if FLOOD_BYTES <= len(data) < _CHUNK_BYTES // 4 and not self._paused:
            self._notify_soon()
        else:
            self._notify()

    def _pause(self) -> None:
        self._paused = True
        for fd in self._open:
            self._loop.remove_reader(fd)

    def _resume(self) -> None:
        if self._paused and (self._dropping or not self.output.full):
            self._paused = False
            for fd, stream in self._open.items():
                self._loop.add_reader(fd, self._readable, fd, stream)
            self._notify()

    async def _write_some(self, view: memoryview) -> int:
        """Write what can be written now, and wait if nothing can; what cannot be read any more counts as taken."""
        fd = self._command.stdin
        written = len(view)
        if fd is not None:
            try:
                written = os.write(fd, view)
            except BlockingIOError:
                self._writable = asyncio.Event()
                self._loop.add_writer(fd, self._writable.set)
                try:
                    await self._writable.wait()
                finally:
                    self._writable = None
                    if self._command.stdin == fd:  # else it is closed, and the number may be another's by now
                        self._loop.remove_writer(fd)
                return 0
            except OSError:
                self._command.close_input()
        self.input_offset += written
        return written

    async def _finish(self) -> None:
        """Wait for the exit and the rest of the output: its end, or where a pipe that is held open falls silent."""
        code = await self._command.child.wait()
        if self._timeout is not None:
            self._timeout.cancel()
        while self._open:
            before = self._got
            try:
                async with asyncio.timeout(None if self._paused else _IDLE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                if self._got == before and not self._paused:
                    break
        self._close_ends()
        self.signal = -code if code < 0 else None
        self.exit_code = _TIMED_OUT if self.timed_out else code if code >= 0 else 128 - code
        self.ended_ns = time.time_ns()
        if self.reader is None:
            self.output.rest()
        self._notify()

    def _close_ends(self) -> None:
        for fd in self._open:
            self._loop.remove_reader(fd)
        self._open.clear()
        if self._writable is not None and self._command.stdin is not None:
            self._loop.remove_writer(self._command.stdin)
            self._writable.set()
        self._command.close()

    def _notify_soon(self) -> None:
        """More of a flood is on its way: a terminal gives 4 KiB at a time, and a message for each would be slow."""
        if self._flood is None:
            self._flood = self._loop.call_later(_FLOOD_SECONDS, self._notify)

    def _notify(self) -> None:
        if self._flood is not None:
            self._flood.cancel()
            self._flood = None
        self._changed.set()
        self._changed = asyncio.Event()
