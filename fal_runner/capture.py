"""A worker's output, from its pipes into the log."""

from __future__ import annotations

import os
import time

from google.protobuf.timestamp_pb2 import Timestamp

from fal_grpc.v1 import log_pb2
from fal_runner.descriptors import read_some
from fal_runner.frames import FrameReader, Piece
from fal_runner.journal import Journal, Source
from fal_runner.lines import Line, LineSplitter, level_of
from fal_runner.redaction import Redactor

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
    scribe = Scribe(source, redactor, max_line_bytes)
    try:
        while data := await read_some(fd, _READ_BYTES):
            entries = scribe.take(frames.feed(data))
            if entries:
                journal.write(entries)
    finally:
        os.close(fd)
        journal.write(scribe.take(frames.flush()) + scribe.finish())


class Scribe:
    """Makes entries of output: the lines of each request apart, so that those who print at once do not mix theirs.

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

    def take(self, pieces: list[Piece]) -> list[log_pb2.LogEntry]:
        """The entries that these pieces complete."""
        now = time.monotonic()
        entries: list[log_pb2.LogEntry] = []
        for request_id, data, ends in pieces:
            if not request_id:
                entries += self._entries(self._common.feed(data, now), "")
                continue
            splitter = self._open.pop(request_id, None) or LineSplitter(self._max_line_bytes)
            lines = splitter.feed(data, now)
            if ends:
                lines += splitter.flush()
            elif splitter.holds:
                self._open[request_id] = splitter
            entries += self._entries(lines, request_id)
            if len(self._open) > _MOST_OPEN:
                oldest = next(iter(self._open))
                entries += self._entries(self._open.pop(oldest).flush(), oldest)
        return entries

    def finish(self) -> list[log_pb2.LogEntry]:
        """What was begun and has no newline, when the output has ended."""
        entries = self._entries(self._common.flush(), "")
        for request_id, splitter in self._open.items():
            entries += self._entries(splitter.flush(), request_id)
        self._open.clear()
        return entries

    def _entries(self, lines: list[Line], request_id: str) -> list[log_pb2.LogEntry]:
        if not lines:
            return []
        seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
        moment = Timestamp(seconds=seconds, nanos=nanos)
        return [
            log_pb2.LogEntry(
                timestamp=moment, level=level_of(text), source=self._source, message=text, request_id=request_id
            )
            for text in self._texts(lines)
        ]

    def _texts(self, lines: list[Line]) -> list[str]:
        """The lines as text, without secrets. Mostly there are none, which is seen fastest in all lines together."""
        texts = [line.data.decode("utf-8", "replace") for line in lines]
        clean = not self._redactor.finds("\n".join(texts))
        for number, line in enumerate(lines):
            if line.cut_bytes:
                texts[number] = f"{self._redactor.redact_cut(texts[number])} [... {line.cut_bytes} bytes cut]"
            elif not clean:
                texts[number] = self._redactor.redact(texts[number])
        return texts
