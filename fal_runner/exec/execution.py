"""A command that outlives the calls about it. It keeps output for a reader, and takes no input twice."""

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
_REPORT_BYTES = 128 * 1024
_IDLE_SECONDS = 0.2  # how long a pipe that a background child keeps open may be silent after the exit
_TIMED_OUT = 124  # the exit code of timeout(1)


class Gap(Exception):
    """Input does not continue where the previous input ended."""

    def __init__(self, offset: int, taken: int) -> None:
        super().__init__(f"offset is {offset}, but only {taken} bytes of input were taken: send those between")


class OutputReader:
    """A reader of a command's output; a newer one replaces it."""


class Execution:
    """One command, its output and its input.

    Args:
        command: the started command.
        directory: where to keep output that nobody fetches.
        keep: whether it continues if nobody reads it.
        timeout_seconds: after how long to end it; None sets no limit.
        linger_seconds: how long it waits for a reader.

    Attributes:
        reader: the current reader, or None.
        exit_code: None while it runs; 128 plus the number of a signal that ended it.
        signal: the signal that ended it, if one did.
        started_ns, ended_ns: nanoseconds since the epoch, for display; `ended_ns` is 0 while it runs.
        ended_at: when it ended, by the monotonic clock.
    """

    def __init__(
        self, command: Command, directory: Path, *, keep: bool, timeout_seconds: float | None, linger_seconds: float
    ) -> None:
        self.keep = keep
        self.output = OutputBuffer(directory)
        self.reader: OutputReader | None = None
        self.input_offset = 0
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.timed_out = False
        self.started_ns = time.time_ns()
        self.ended_ns = 0
        self.ended_at = 0.0
        self._command = command
        self._linger_seconds = linger_seconds
        self._dropping = keep  # nobody reads it yet
        self._changed = asyncio.Event()
        self._input = asyncio.Lock()
        self._input_ended = False
        self._input_reported = 0
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
    def finished(self) -> bool:
        """Whether it has ended and all of its output is here."""
        return self.exit_code is not None

    def attach(self) -> OutputReader:
        """Become its reader; the previous one learns that it was replaced."""
        self.reader = OutputReader()
        self._dropping = False
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._notify()
        return self.reader

    def detach(self, reader: OutputReader) -> None:
        """Stop reading it."""
        if self.reader is reader:
            self.reader = None
            self._wait_for_reader()

    def received(self, offset: int) -> None:
        """Drop output below this offset, which the reader has received."""
        self.output.received(offset)
        self._resume()

    async def changed(self) -> None:
        """Wait for output, the end, another reader, or room after much input."""
        await self._changed.wait()

    async def write(self, offset: int, data: bytes, *, eof: bool) -> None:
        """Send input, and wait while the command does not read. It skips input that it has already taken.

        Raises:
            Gap: earlier input is missing.
        """
        async with self._input:
            if offset > self.input_offset:
                raise Gap(offset, self.input_offset)
            view = memoryview(data)[self.input_offset - offset :]
            while view:
                view = view[await self._write_some(view) :]
                if self.input_offset - self._input_reported >= _REPORT_BYTES:
                    self._input_reported = self.input_offset
                    self._notify()
            if eof and not self._input_ended:
                self._input_ended = True
                await self._command.end_input()

    def resize(self, height: int, width: int) -> None:
        """Set the size of its terminal, in character cells."""
        self._command.resize(height, width)

    def send_signal(self, number: int) -> None:
        """Send a signal to its terminal's foreground job. Without one, send it to its process group."""
        self._command.send_signal(number)

    def hang_up(self, first: int = signal.SIGHUP) -> None:
        """End it with this signal, and with SIGKILL after 2 s. Further output is dropped."""
        if self._ending is None and not self.finished:
            self._ending = self._loop.create_task(self._command.end(first))
            self._dropping = True
            self._resume()

    async def close(self) -> None:
        """Free all resources, once it has finished or the shim ends."""
        for timer in (self._linger, self._timeout):
            if timer is not None:
                timer.cancel()
        self._finishing.cancel()
        await asyncio.gather(self._finishing, return_exceptions=True)
        self._close_ends()
        self.output.close()

    def _wait_for_reader(self) -> None:
        if self.finished:
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
        except OSError:  # a terminal that nobody has open any more
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
        """Write as much as possible now, or wait. Input that the command can no longer read counts as taken."""
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
                    if self._command.stdin == fd:  # otherwise it is closed, and the number may be reused
                        self._loop.remove_writer(fd)
                return 0
            except OSError:
                self._command.close_input()
        self.input_offset += written
        return written

    async def _finish(self) -> None:
        """Wait for the exit, and for the end of the output. A pipe that is kept open need only be silent."""
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
        self.ended_ns, self.ended_at = time.time_ns(), time.monotonic()
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
        """Notify after a short delay. A terminal delivers a flood in 4 KiB pieces, and a message for each is slow."""
        if self._flood is None:
            self._flood = self._loop.call_later(_FLOOD_SECONDS, self._notify)

    def _notify(self) -> None:
        if self._flood is not None:
            self._flood.cancel()
            self._flood = None
        self._changed.set()
        self._changed = asyncio.Event()
