"""Reads a worker's output from its pipes into the log."""

from __future__ import annotations

import os
import time

from fal_runner.log.frames import Chunk, FrameReader
from fal_runner.log.journal import Journal, OutputLines, Source
from fal_runner.log.lines import LevelReader, LineSplitter, OutputLine
from fal_runner.log.redaction import Redactor
from fal_runner.process.descriptors import read_some

_READ_BYTES = 256 * 1024
_MOST_OPEN = 64  # requests in the middle of a line at one time; each may hold a line of the greatest length


async def capture(
    fd: int, source: Source, journal: Journal, redactor: Redactor, max_line_bytes: int, mark: str
) -> None:
    """Read a pipe to its end, line by line, and close it.

    Args:
        fd: the reading end of the pipe.
        source: which stream of the worker it is.
        journal: takes the lines.
        redactor: masks secrets in them.
        max_line_bytes: a longer line is cut, and says so.
        mark: the start of every frame; see FrameReader.
    """
    os.set_blocking(fd, False)
    frames = FrameReader(mark)
    recorder = OutputRecorder(source, redactor, max_line_bytes)
    try:
        while data := await read_some(fd, _READ_BYTES):
            journal.take(recorder.take(frames.feed(data)))
    finally:
        os.close(fd)
        journal.take(recorder.take(frames.flush()) + recorder.finish())


class _Stream:
    """The output of one request, or that of none: the line it is in, and the traceback."""

    def __init__(self, max_line_bytes: int) -> None:
        self.splitter = LineSplitter(max_line_bytes)
        self.levels = LevelReader()


class OutputRecorder:
    """Makes lines of output, those of each request apart, so that requests that print at once do not mix theirs.

    Args:
        source: which stream of the worker it is.
        redactor: masks secrets in the lines.
        max_line_bytes: a longer line is cut, and says so.
    """

    def __init__(self, source: Source, redactor: Redactor, max_line_bytes: int) -> None:
        self._source = source
        self._redactor = redactor
        self._max_line_bytes = max_line_bytes
        self._common = _Stream(max_line_bytes)
        self._open: dict[str, _Stream] = {}  # requests in the middle of a line or traceback, the oldest first

    def take(self, chunks: list[Chunk]) -> list[OutputLines]:
        """Take in output; return the lines that it completes."""
        now = time.monotonic()
        found: list[OutputLines] = []
        for request_id, data, ends in chunks:
            if not request_id:
                found += self._feed(self._common, data, now, "")
                continue
            stream = self._open.pop(request_id, None) or _Stream(self._max_line_bytes)
            found += self._feed(stream, data, now, request_id)
            if ends:
                found += self._flush(stream, request_id)
            elif stream.splitter.holds or stream.levels.in_traceback:
                self._open[request_id] = stream
            if len(self._open) > _MOST_OPEN:
                oldest = next(iter(self._open))
                found += self._flush(self._open.pop(oldest), oldest)
        return found

    def finish(self) -> list[OutputLines]:
        """Return the lines that have no newline, once the output has ended."""
        found = self._flush(self._common, "")
        for request_id, stream in self._open.items():
            found += self._flush(stream, request_id)
        self._open.clear()
        return found

    def _feed(self, stream: _Stream, data: bytes, now: float, request_id: str) -> list[OutputLines]:
        whole = stream.splitter.feed_plain(data)
        if whole is None:
            return self._of_lines(stream, stream.splitter.feed(data, now), request_id)
        text = whole.decode("utf-8", "replace")
        if self._redactor.finds(text):
            return self._of_texts(stream, [self._redactor.redact(line) for line in text.split("\n")], request_id)
        return self._of_texts(stream, text.split("\n"), request_id)

    def _flush(self, stream: _Stream, request_id: str) -> list[OutputLines]:
        return self._of_lines(stream, stream.splitter.flush(), request_id)

    def _of_lines(self, stream: _Stream, lines: list[OutputLine], request_id: str) -> list[OutputLines]:
        return self._of_texts(stream, [self._text(line) for line in lines], request_id) if lines else []

    def _of_texts(self, stream: _Stream, texts: list[str], request_id: str) -> list[OutputLines]:
        return [OutputLines(self._source, request_id, texts, stream.levels.read(texts))]

    def _text(self, line: OutputLine) -> str:
        """A line as text, without secrets, which says what is missing of it."""
        text = line.data.decode("utf-8", "replace")
        if line.cut_bytes:
            text = f"{self._redactor.redact_cut(text)} [... {line.cut_bytes} bytes cut]"
        elif self._redactor.finds(text):
            text = self._redactor.redact(text)
        if line.left_out:
            states = "1 state" if line.left_out == 1 else f"{line.left_out} states"
            text = f"{text} [... {states} of this line left out]"
        return text
