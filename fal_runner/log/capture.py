"""Reads a worker's output from its pipes into the log."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from fal_grpc.v1 import log_pb2
from fal_runner.log.frames import Chunk, FrameReader
from fal_runner.log.journal import Journal, Level, OutputLines, Source
from fal_runner.log.lines import EntryReader, LineSplitter, OutputLine, crash_of, without_level
from fal_runner.log.redaction import Redactor

_READ_BYTES = 64 * 1024  # what a pipe holds
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
    fd: int,
    source: Source,
    journal: Journal,
    redactor: Redactor,
    max_line_bytes: int,
    mark: str,
    on_crash: Callable[[str], object],
) -> None:
    """Read a pipe to its end, line by line, and close it.

    Args:
        fd: the reading end of the pipe.
        source: the stream of the worker.
        journal: receives the lines.
        redactor: masks secrets in them.
        max_line_bytes: a longer line is cut, and says so.
        mark: the start of every frame; see FrameReader.
        on_crash: gets a one-line summary of a report that Python itself crashed.
    """
    os.set_blocking(fd, False)
    frames = FrameReader(mark)
    recorder = OutputRecorder(source, redactor, max_line_bytes, on_crash)
    loop = asyncio.get_running_loop()
    quiet: asyncio.TimerHandle | None = None
    ended: asyncio.Future[None] = loop.create_future()

    def pause() -> None:
        journal.take(recorder.pause())

    def read() -> None:
        # Without a task, because each line of a serving app comes alone, and waking a task costs more than the line.
        nonlocal quiet
        try:
            data = os.read(fd, _READ_BYTES)
            if data:
                journal.take(recorder.take(frames.feed(data)))
                if quiet is not None:
                    quiet.cancel()
                quiet = loop.call_later(_QUIET_SECONDS, pause) if recorder.holds_tracebacks else None
                return
        except BlockingIOError:
            return
        except Exception as error:  # noqa: BLE001 - raised where the end is awaited
            if not ended.done():
                ended.set_exception(error)
        loop.remove_reader(fd)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(fd, read)
    try:
        await ended
    finally:
        if quiet is not None:
            quiet.cancel()
        loop.remove_reader(fd)
        os.close(fd)
        journal.take(recorder.take(frames.flush()) + recorder.finish())


class _Stream:
    """The output of one request, or of none: its current line, traceback, and record."""

    def __init__(self, max_line_bytes: int) -> None:
        self.splitter = LineSplitter(max_line_bytes)
        self.entries = EntryReader(max_line_bytes)
        self.record = bytearray()
        self.cut = 0

    @property
    def is_open(self) -> bool:
        return self.splitter.holds or self.entries.holds or bool(self.record)


class OutputRecorder:
    """Turns output into lines, separately for each request, so that concurrent requests do not mix theirs.

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
        self._open: dict[str, _Stream] = {}  # requests in the middle of a line or traceback, oldest first

    def take(self, chunks: list[Chunk]) -> list[OutputLines]:
        """Add output; return the lines that it completes."""
        now = time.monotonic()
        found: list[OutputLines] = []
        for chunk in chunks:
            request_id = chunk.request_id
            if not request_id:
                found += self._feed(self._common, chunk, now)
                continue
            stream = self._open.pop(request_id, None) or _Stream(self._max_line_bytes)
            found += self._feed(stream, chunk, now)
            if chunk.ends:
                found += self._flush(stream, request_id)
            elif stream.is_open:
                self._open[request_id] = stream
            if len(self._open) > _MOST_OPEN:
                oldest = next(iter(self._open))
                found += self._flush(self._open.pop(oldest), oldest)
        return found

    @property
    def holds_tracebacks(self) -> bool:
        """Whether a traceback waits for the line after it."""
        return self._common.entries.holds or any(stream.entries.holds for stream in self._open.values())

    def pause(self) -> list[OutputLines]:
        """Return the waiting tracebacks, because the output pauses."""
        streams = [("", self._common), *self._open.items()]
        return [lines for request_id, stream in streams for lines in self._end_traceback(stream, request_id)]

    def finish(self) -> list[OutputLines]:
        """Return the lines without a newline, once the output has ended."""
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
        text = self._text(line)
        record = OutputLines(self._source, chunk.request_id, [without_level(text)], [LEVELS[chunk.level]])
        before = self._of_lines(stream, stream.splitter.flush(), chunk.request_id)
        if not stream.entries.holds_part:  # otherwise a child is in the middle of its traceback
            before += self._end_traceback(stream, chunk.request_id)
        return [*before, record]

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
        return [OutputLines(self._source, request_id, texts, levels)]

    def _text(self, line: OutputLine) -> str:
        """Return a line as text without secrets, and with a note on dropped parts."""
        text = line.data.decode("utf-8", "replace")
        if line.cut_bytes:
            text = f"{self._redactor.redact_cut(text)} [... {line.cut_bytes} bytes cut]"
        elif self._redactor.finds(text):
            text = self._redactor.redact(text)
        if line.left_out:
            states = "1 state" if line.left_out == 1 else f"{line.left_out} states"
            text = f"{text} [... {states} of this line left out]"
        return text
