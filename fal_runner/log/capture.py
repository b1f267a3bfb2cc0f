"""Reads a worker's output from its pipes into the log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from fal_grpc.v1 import log_pb2
from fal_runner.log.frames import Chunk, FrameReader
from fal_runner.log.journal import Journal, Level, OutputLines, Source
from fal_runner.log.lines import EntryReader, LineSplitter, OutputLine, crash_of, without_level
from fal_runner.log.redaction import Redactor

_READ_BYTES = 64 * 1024  # what a pipe holds
_ENOUGH_BYTES = 16 * 1024  # more is read on at once, before the pipe is full and the app waits
_BUSY_SECONDS = 0.003  # output that comes faster is read with pauses
# A pause is as long as it takes to find this much, within bounds; output that comes slower is read as it comes.
_WORTH_BYTES = 8 * 1024
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 0.05
_LITTLE_BYTES = 512
_TIME_OF = attrgetter("at_ns")
# A record's level by the letter in its frame.
LEVELS = {
    "T": log_pb2.TRACE,
    "D": log_pb2.DEBUG,
    "I": log_pb2.INFO,
    "W": log_pb2.WARNING,
    "E": log_pb2.ERROR,
}
# A dead child writes no line after its traceback that would mark its end.
_QUIET_SECONDS = 0.2
_MOST_OPEN = 64  # requests in the middle of a line at a time; each may hold a line of maximum length


async def capture(
    pipes: Mapping[int, Source],
    journal: Journal,
    redactor: Redactor,
    max_line_bytes: int,
    mark: str,
    on_crash: Callable[[str], object],
) -> None:
    """Read the worker's pipes to their ends, line by line. Then close them.

    Args:
        pipes: the stream of the worker at the reading end of each pipe.
        journal: receives the lines.
        redactor: masks secrets in them.
        max_line_bytes: a longer line is cut, and says so.
        mark: the start of every frame; see FrameReader.
        on_crash: gets a one-line summary of a report that Python itself crashed.
    """
    outputs = [
        _Pipe(fd, FrameReader(mark), OutputRecorder(source, redactor, max_line_bytes, on_crash))
        for fd, source in pipes.items()
    ]
    reading = _Reading(outputs, journal)
    reading.start()
    try:
        await reading.ended
    finally:
        reading.close()


@dataclass(slots=True)
class _Pipe:
    fd: int
    frames: FrameReader
    recorder: OutputRecorder
    is_open: bool = True


class _Reading:
    """Reads pipes at once after a silence. Otherwise it reads what came within some milliseconds together.

    A pipe that nobody waits for costs its writer less, and each waking costs more than a line. Only frames wait, which
    carry their times: those of both streams are put in order.

    Attributes:
        ended: done once all pipes have ended.
    """

    def __init__(self, pipes: Sequence[_Pipe], journal: Journal) -> None:
        self._pipes = pipes
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._quiet: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._read_at = float("-inf")
        self._held: list[OutputLines] = []
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def start(self) -> None:
        for pipe in self._pipes:
            os.set_blocking(pipe.fd, False)
        self._watch()

    def close(self) -> None:
        """Read what is there, and close the pipes."""
        for timer in (self._quiet, self._pause):
            if timer is not None:
                timer.cancel()
        found, self._held = self._held, []
        for pipe in self._pipes:
            if pipe.is_open:
                with contextlib.suppress(OSError):  # what cannot be read is lost with the pipe
                    self._feed(pipe, found, time.time_ns())
            if pipe.is_open:
                found += self._end(pipe)
        found.sort(key=_TIME_OF)
        self._journal.take(found)

    def _watch(self) -> None:
        for pipe in self._pipes:
            if pipe.is_open:
                # Without a task, because each line of a serving app comes alone, and waking a task costs more.
                self._loop.add_reader(pipe.fd, self._read)

    def _unwatch(self) -> None:
        for pipe in self._pipes:
            if pipe.is_open:
                self._loop.remove_reader(pipe.fd)

    def _read(self) -> None:
        """Read because there is output, or after a pause. Pause if there was some just before."""
        before, self._read_at = self._read_at, self._loop.time()
        elapsed = self._read_at - before
        size, may_wait = self._read_all()
        if self.ended.done():
            return
        was_pausing = self._pause is not None
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        busy = size >= _LITTLE_BYTES if was_pausing else bool(size) and elapsed < _BUSY_SECONDS
        if (busy or self._held) and may_wait and size < _ENOUGH_BYTES:
            seconds = _SHORTEST_PAUSE_SECONDS
            if was_pausing and busy:
                seconds = min(_LONGEST_PAUSE_SECONDS, max(seconds, elapsed * _WORTH_BYTES / size))
            if not was_pausing:
                self._unwatch()
            self._pause = self._loop.call_later(seconds, self._read)
            return
        if was_pausing:
            self._watch()
        if self._held:
            self._loop.call_soon(self._read)

    def _read_all(self) -> tuple[int, bool]:
        """Read each pipe once. Return the bytes, and whether all that was read had a time."""
        begin_ns = time.time_ns()
        found, self._held = self._held, []
        size, may_wait = 0, True
        try:
            for pipe in self._pipes:
                if pipe.is_open:
                    read, has_times = self._feed(pipe, found, begin_ns)
                    size += read
                    may_wait = may_wait and has_times
            found.sort(key=_TIME_OF)
            if any(pipe.is_open for pipe in self._pipes):
                # What was written meanwhile waits, because an earlier line may have come to a pipe after it was read.
                whole = bisect_right(found, begin_ns, key=_TIME_OF)
                found, self._held = found[:whole], found[whole:]
            elif not self.ended.done():
                self.ended.set_result(None)
            self._journal.take(found)
        except Exception as error:  # noqa: BLE001 - raised where the end is awaited
            self._unwatch()
            if not self.ended.done():
                self.ended.set_exception(error)
            return 0, False
        if size:
            if self._quiet is not None:
                self._quiet.cancel()
            holds = any(pipe.is_open and pipe.recorder.holds_tracebacks for pipe in self._pipes)
            self._quiet = self._loop.call_later(_QUIET_SECONDS, self._end_tracebacks) if holds else None
        return size, may_wait

    def _feed(self, pipe: _Pipe, found: list[OutputLines], begin_ns: int) -> tuple[int, bool]:
        try:
            data = os.read(pipe.fd, _READ_BYTES)
        except BlockingIOError:
            return 0, True
        if not data:
            found += self._end(pipe)
            return 0, True
        chunks = pipe.frames.feed(data)
        found += pipe.recorder.take(chunks, begin_ns)
        return len(data), all(chunk.at_ns for chunk in chunks)

    def _end(self, pipe: _Pipe) -> list[OutputLines]:
        """Close a pipe; return the lines without a newline."""
        self._loop.remove_reader(pipe.fd)
        pipe.is_open = False
        os.close(pipe.fd)
        return pipe.recorder.take(pipe.frames.flush()) + pipe.recorder.finish()

    def _end_tracebacks(self) -> None:
        for pipe in self._pipes:
            if pipe.is_open:
                self._journal.take(pipe.recorder.pause())


class _Stream:
    """The output of one request, or none: current line, traceback, and record."""

    def __init__(self, max_line_bytes: int) -> None:
        self.splitter = LineSplitter(max_line_bytes)
        self.entries = EntryReader(max_line_bytes)
        self.record = bytearray()
        self.cut = 0

    @property
    def is_open(self) -> bool:
        return self.splitter.holds or self.entries.holds or bool(self.record)


class OutputRecorder:
    """Turns output into lines, separately for each request. Concurrent requests do not mix theirs.

    Args:
        source: the stream of the worker.
        redactor: masks secrets in the lines.
        max_line_bytes: a longer line is cut, and says so.
        on_crash: gets a one-line summary of a report that Python itself crashed.
    """

    def __init__(
        self,
        source: Source,
        redactor: Redactor,
        max_line_bytes: int,
        on_crash: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._on_crash = on_crash
        self._source = source
        self._redactor = redactor
        self._max_line_bytes = max_line_bytes
        self._common = _Stream(max_line_bytes)
        self._at_ns = 0  # of the chunk that completes the current lines
        self._open: dict[str, _Stream] = {}  # requests in the middle of a line or traceback, oldest first

    def take(self, chunks: list[Chunk], begin_ns: int | None = None) -> list[OutputLines]:
        """Add output; return the lines that it completes.

        Args:
            begin_ns: the time of output without one; None means now.
        """
        now = time.monotonic()
        found: list[OutputLines] = []
        for chunk, at_ns in zip(chunks, self._times(chunks, begin_ns), strict=True):
            self._at_ns = at_ns
            request_id = chunk.request_id
            if not request_id:
                found += self._feed(self._common, chunk, now)
                continue
            opened = self._open.pop(request_id, None)
            if opened is None and chunk.level and not chunk.goes_on and len(chunk.data) <= self._max_line_bytes:
                found.append(self._record(chunk, OutputLine(chunk.data.removesuffix(b"\n"))))  # almost always
                continue
            stream = opened or _Stream(self._max_line_bytes)
            found += self._feed(stream, chunk, now)
            if chunk.ends:
                found += self._flush(stream, request_id)
            elif stream.is_open:
                self._open[request_id] = stream
            if len(self._open) > _MOST_OPEN:
                oldest = next(iter(self._open))
                found += self._flush(self._open.pop(oldest), oldest)
        return found

    def _times(self, chunks: list[Chunk], begin_ns: int | None) -> list[int]:
        """Return the chunks' times, in order and not later than now. Unknown ones take that of the next."""
        now_ns = time.time_ns()
        last = max((chunk.at_ns for chunk in chunks), default=0)
        following = min(now_ns, max(now_ns if begin_ns is None else begin_ns, last))
        times: list[int] = []
        for chunk in reversed(chunks):
            following = min(chunk.at_ns or following, following)
            times.append(following)
        times.reverse()
        return times

    @property
    def holds_tracebacks(self) -> bool:
        """Whether a traceback waits for the line after it."""
        return self._common.entries.holds or any(stream.entries.holds for stream in self._open.values())

    def pause(self) -> list[OutputLines]:
        """Return the waiting tracebacks, because the output pauses."""
        self._at_ns = time.time_ns()
        streams = [("", self._common), *self._open.items()]
        return [lines for request_id, stream in streams for lines in self._end_traceback(stream, request_id)]

    def finish(self) -> list[OutputLines]:
        """Return the lines without a newline, once the output has ended."""
        self._at_ns = time.time_ns()
        found = self._flush(self._common, "")
        for request_id, stream in self._open.items():
            found += self._flush(stream, request_id)
        self._open.clear()
        return found

    def _feed(self, stream: _Stream, chunk: Chunk, now: float) -> list[OutputLines]:
        request_id, data = chunk.request_id, chunk.data
        if chunk.level:
            return self._feed_record(stream, chunk)
        whole = stream.splitter.feed_plain(data)
        if whole is None:
            return self._of_lines(stream, stream.splitter.feed(data, now), request_id)
        text = whole.decode("utf-8", "replace")
        if self._redactor.finds(text):
            return self._of_texts(stream, [self._redactor.redact(line) for line in text.split("\n")], request_id)
        return self._of_texts(stream, text.split("\n"), request_id)

    def _feed_record(self, stream: _Stream, chunk: Chunk) -> list[OutputLines]:
        room = self._max_line_bytes - len(stream.record)
        stream.record += chunk.data[:room]
        stream.cut += max(0, len(chunk.data) - room)
        if chunk.goes_on:
            return []
        line = OutputLine(bytes(stream.record if stream.cut else stream.record.removesuffix(b"\n")), stream.cut)
        stream.record.clear()
        stream.cut = 0
        record = self._record(chunk, line)
        before = self._of_lines(stream, stream.splitter.flush(), chunk.request_id)
        if not stream.entries.holds_part:  # otherwise a child is in the middle of its traceback
            before += self._end_traceback(stream, chunk.request_id)
        return [*before, record]

    def _record(self, chunk: Chunk, line: OutputLine) -> OutputLines:
        text = without_level(self._text(line))
        return OutputLines(self._source, chunk.request_id, [text], [LEVELS[chunk.level]], self._at_ns)

    def _flush(self, stream: _Stream, request_id: str) -> list[OutputLines]:
        last = self._of_lines(stream, stream.splitter.flush(), request_id)
        return [*last, *self._end_traceback(stream, request_id)]

    def _end_traceback(self, stream: _Stream, request_id: str) -> list[OutputLines]:
        return self._of_entries(*stream.entries.flush(), request_id) if stream.entries.holds else []

    def _of_lines(self, stream: _Stream, lines: list[OutputLine], request_id: str) -> list[OutputLines]:
        return self._of_texts(stream, [self._text(line) for line in lines], request_id) if lines else []

    def _of_texts(self, stream: _Stream, texts: list[str], request_id: str) -> list[OutputLines]:
        return self._of_entries(*stream.entries.read(texts), request_id)

    def _of_entries(self, texts: list[str], levels: list[Level], request_id: str) -> list[OutputLines]:
        if log_pb2.ERROR in levels:
            for crash in filter(None, map(crash_of, texts)):
                self._on_crash(crash)
        return [OutputLines(self._source, request_id, texts, levels, self._at_ns)]

    def _text(self, line: OutputLine) -> str:
        """Return a line without secrets, with a note on dropped parts."""
        text = line.data.decode("utf-8", "replace")
        if line.cut_bytes:
            text = f"{self._redactor.redact_cut(text)} [... {line.cut_bytes} bytes cut]"
        elif self._redactor.finds(text):
            text = self._redactor.redact(text)
        if line.left_out:
            states = "1 state" if line.left_out == 1 else f"{line.left_out} states"
            text = f"{text} [... {states} of this line left out]"
        return text
