"""A worker's output, from its pipes into the log."""

from __future__ import annotations

import os
import time

from fal_runner.log.frames import Chunk, FrameReader
from fal_runner.log.journal import Journal, OutputLines, Source
from fal_runner.log.lines import LineSplitter, OutputLine, level_of
from fal_runner.log.redaction import Redactor
from fal_runner.process.descriptors import read_some

_READ_BYTES = 256 * 1024
_MOST_OPEN = 64  # requests with the beginning of a line at once; each may hold a line of the greatest length


async def capture(
    fd: int, source: Source, journal: Journal, redactor: Redactor, max_line_bytes: int, mark: str
) -> None:
    """Read a pipe to its end, line by line; owns and closes it.

    Args:
        fd: the pipe's reading end.
        source: which stream of the worker it is.
        journal: where the lines go.
        redactor: what is taken out of them before.
        max_line_bytes: beyond it a line is cut, and says so.
        mark: what the frames begin with that say whose output it is.
    """
    os.set_blocking(fd, False)
    frames = FrameReader(mark)
    scribe = OutputRecorder(source, redactor, max_line_bytes)
    try:
        while data := await read_some(fd, _READ_BYTES):
            journal.take(scribe.take(frames.feed(data)))
    finally:
        os.close(fd)
        journal.take(scribe.take(frames.flush()) + scribe.finish())


class OutputRecorder:
    """Makes lines of output: the lines of each request apart, so that those who print at once do not mix theirs.

    Args:
        source: which stream of the worker it is.
        redactor: what is taken out of the lines.
        max_line_bytes: beyond it a line is cut, and says so.
    """

    def __init__(self, source: Source, redactor: Redactor, max_line_bytes: int) -> None:
        self._source = source
        self._redactor = redactor
        self._max_line_bytes = max_line_bytes
        self._common = LineSplitter(max_line_bytes)
        self._open: dict[str, LineSplitter] = {}  # of requests that are in the middle of a line, the oldest first

    def take(self, pieces: list[Chunk]) -> list[OutputLines]:
        """The lines that these pieces complete."""
        now = time.monotonic()
        found: list[OutputLines] = []
        for request_id, data, ends in pieces:
            if not request_id:
                found += self._fed(self._common, data, now, "")
                continue
            splitter = self._open.pop(request_id, None) or LineSplitter(self._max_line_bytes)
            found += self._fed(splitter, data, now, request_id)
            if ends:
                found += self._printed(splitter.flush(), request_id)
            elif splitter.holds:
                self._open[request_id] = splitter
            if len(self._open) > _MOST_OPEN:
                oldest = next(iter(self._open))
                found += self._printed(self._open.pop(oldest).flush(), oldest)
        return found

    def finish(self) -> list[OutputLines]:
        """What was begun and has no newline, when the output has ended."""
        found = self._printed(self._common.flush(), "")
        for request_id, splitter in self._open.items():
            found += self._printed(splitter.flush(), request_id)
        self._open.clear()
        return found

    def _fed(self, splitter: LineSplitter, data: bytes, now: float, request_id: str) -> list[OutputLines]:
        whole = splitter.feed_plain(data)
        if whole is None:
            return self._printed(splitter.feed(data, now), request_id)
        text = whole.decode("utf-8", "replace")
        if self._redactor.finds(text):
            return self._of_texts([self._redactor.redact(line) for line in text.split("\n")], request_id)
        return self._of_texts(text.split("\n"), request_id)

    def _printed(self, lines: list[OutputLine], request_id: str) -> list[OutputLines]:
        return self._of_texts([self._text(line) for line in lines], request_id) if lines else []

    def _of_texts(self, texts: list[str], request_id: str) -> list[OutputLines]:
        return [OutputLines(self._source, request_id, texts, [level_of(text) for text in texts])]

    def _text(self, line: OutputLine) -> str:
        """A line as text, without secrets, and with what is missing of it said."""
        text = line.data.decode("utf-8", "replace")
        if line.cut_bytes:
            text = f"{self._redactor.redact_cut(text)} [... {line.cut_bytes} bytes cut]"
        elif self._redactor.finds(text):
            text = self._redactor.redact(text)
        if line.left_out:
            states = "1 state" if line.left_out == 1 else f"{line.left_out} states"
            text = f"{text} [... {states} of this line left out]"
        return text
