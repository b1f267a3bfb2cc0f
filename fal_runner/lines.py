"""From the bytes that a program prints to lines of text with a level."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fal_grpc.v1 import log_pb2

DEFAULT_MAX_LINE_BYTES = 1024 * 1024

# "ERROR: x", "[WARNING] x", "2025-01-01 10:00:00,123 - INFO - x", "INFO:     x"; only in capitals, only at the start.
_WORD = re.compile(r"[\s\d:.,TZ+\-/\[|]{0,40}(TRACE|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)(?=[\]:|\s-]|$)")
_JSON = re.compile(r'"(?:level|severity|levelname)"\s*:\s*"(\w{1,10})"')
_LEVELS = {
    "TRACE": log_pb2.TRACE,
    "DEBUG": log_pb2.DEBUG,
    "INFO": log_pb2.INFO,
    "WARN": log_pb2.WARNING,
    "WARNING": log_pb2.WARNING,
    "ERROR": log_pb2.ERROR,
    "CRITICAL": log_pb2.ERROR,
    "FATAL": log_pb2.ERROR,
}
_LOOKED_AT = 4096


def level_of(line: str) -> log_pb2.LogLevel.ValueType:
    """The level that a line states about itself; INFO where it states none, on either stream.

    What is recognised: a level's name in capitals at the start (also after a time or in brackets), the field `level`,
    `levelname` or `severity` of a line of JSON, and the first line of a Python traceback.
    """
    start = line[:_LOOKED_AT]
    if start.startswith("{"):
        found = _JSON.search(start)
        return _LEVELS.get(found[1].upper(), log_pb2.INFO) if found else log_pb2.INFO
    if start.startswith("Traceback (most recent call last):"):
        return log_pb2.ERROR
    found = _WORD.match(start)
    return _LEVELS[found[1]] if found else log_pb2.INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line without its newline; `cut_bytes` of its end were thrown away because it was too long."""

    data: bytes
    cut_bytes: int = 0


class LineSplitter:
    """Cuts a stream of bytes into lines; holds at most one line, and of that at most `max_bytes`."""

    def __init__(self, max_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._partial = bytearray()
        self._cut = 0

    def feed(self, data: bytes) -> list[Line]:
        """The lines that end in this piece."""
        *ended, rest = data.split(b"\n")
        lines: list[Line] = []
        for piece in ended:
            self._extend(piece)
            lines.append(self._take())
        self._extend(rest)
        return lines

    def flush(self) -> list[Line]:
        """The last line, where the stream ended without a newline."""
        return [self._take()] if self._partial or self._cut else []

    def _extend(self, piece: bytes) -> None:
        room = self._max_bytes - len(self._partial)
        self._partial += piece[:room]
        self._cut += max(0, len(piece) - room)

    def _take(self) -> Line:
        line = Line(data=bytes(self._partial).removesuffix(b"\r"), cut_bytes=self._cut)
        self._partial.clear()
        self._cut = 0
        return line
