"""A worker's output, from its pipes into the log."""

from __future__ import annotations

import os
import time

from fal_grpc.v1 import log_pb2
from fal_runner.descriptors import read_some
from fal_runner.journal import Journal, Source, entry_of
from fal_runner.lines import Line, LineSplitter, level_of
from fal_runner.redaction import Redactor

_READ_BYTES = 256 * 1024


async def capture(fd: int, source: Source, journal: Journal, redactor: Redactor, max_line_bytes: int) -> None:
    """Read a pipe to its end, line by line; owns and closes it.

    Args:
        fd: the pipe's reading end.
        source: which stream of the worker it is.
        journal: where the lines go.
        redactor: what is taken out of them before.
        max_line_bytes: beyond it a line is cut, and says so.
    """
    os.set_blocking(fd, False)
    splitter = LineSplitter(max_line_bytes)
    try:
        while data := await read_some(fd, _READ_BYTES):
            lines = splitter.feed(data)
            if lines:
                now = time.time_ns()
                journal.write([_entry(line, source, redactor, now) for line in lines])
    finally:
        os.close(fd)
        journal.write([_entry(line, source, redactor, time.time_ns()) for line in splitter.flush()])


def _entry(line: Line, source: Source, redactor: Redactor, at_ns: int) -> log_pb2.LogEntry:
    text = line.data.decode("utf-8", "replace")
    text = f"{redactor.redact_cut(text)} [... {line.cut_bytes} bytes cut]" if line.cut_bytes else redactor.redact(text)
    return entry_of(text, source, level_of(text), at_ns)
