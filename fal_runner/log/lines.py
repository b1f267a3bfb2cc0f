"""From the bytes that a program prints to lines of text with a level."""

from __future__ import annotations

import re
from typing import NamedTuple

from fal_grpc.v1 import log_pb2

DEFAULT_MAX_LINE_BYTES = 1024 * 1024

# "ERROR: x", "[WARNING] x", "2025-01-01 10:00:00,123 - INFO - x", "INFO:     x"; only in capitals, only at the start.
# What precedes the word is never given back: a line of digits would be tried at each of them.
_BEFORE = r"[\s\d:.,Z+\-/\[|]{0,40}+"
_WORD = re.compile(
    rf"{_BEFORE}(?:T(?=\d){_BEFORE})?(TRACE|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)(?=[\]:|\s-]|$)"
)
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
_REDRAWS = 10.0  # states of a line that is drawn over, before only one a second is kept


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


class OutputLine(NamedTuple):
    """A line without its newline.

    `cut_bytes` of its end were thrown away because it was too long, and `left_out` of its states because it was drawn
    over too often.
    """

    data: bytes
    cut_bytes: int = 0
    left_out: int = 0


class LineSplitter:
    """Cuts a stream of bytes into lines; holds at most one line, and of that at most `max_bytes`.

    A line may be drawn over after a carriage return, as progress bars do. What it was before is a line too, so that
    progress is seen and the last state before a crash is there; but of a line that is drawn over and over, only the
    first 10 states, then one a second, and always the last, which says how many are missing.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._partial = bytearray()
        self._cut = 0
        self._returned = False  # a carriage return was the last that came: a newline, or something to draw over
        self._redraws = _REDRAWS
        self._redrawn_at = float("-inf")
        self._left_out = 0

    @property
    def holds(self) -> bool:
        """Whether there is the beginning of a line."""
        return bool(self._partial or self._cut)

    def feed_plain(self, data: bytes) -> bytes | None:
        """The lines that end in this piece, in one and without the last newline, where all of them are ordinary.

        None, and nothing is taken, where `feed` must look closer: where one may be too long or is drawn over, or none
        ends here.
        """
        if self._returned or self._cut or self._left_out or len(self._partial) + len(data) > self._max_bytes:
            return None
        at = data.rfind(b"\n")
        if at < 0 or b"\r" in data:
            return None
        whole = bytes(self._partial) + data[:at] if self._partial else data[:at]
        self._partial[:] = data[at + 1 :]
        return whole

    def feed(self, data: bytes, now_seconds: float = 0.0) -> list[OutputLine]:
        """The lines that end in this piece, which came at this moment of any steady clock."""
        *ended, rest = data.split(b"\n")
        lines: list[OutputLine] = []
        for piece in ended:
            if self.holds or self._returned or self._left_out or len(piece) > self._max_bytes or b"\r" in piece:
                self._extend(piece, lines, now_seconds)
                lines.append(self._take(ends=True))
            else:
                lines.append(OutputLine(piece))
        self._extend(rest, lines, now_seconds)
        return lines

    def flush(self) -> list[OutputLine]:
        """The last line, where the stream ended without a newline."""
        return [self._take(ends=True)] if self.holds or self._left_out else []

    def _extend(self, piece: bytes, lines: list[OutputLine], now_seconds: float) -> None:
        for number, part in enumerate(piece.split(b"\r")):
            self._returned = self._returned or number > 0
            if not part:
                continue
            if self._returned:
                self._redraw(lines, now_seconds)
            room = self._max_bytes - len(self._partial)
            self._partial += part[:room]
            self._cut += max(0, len(part) - room)

    def _redraw(self, lines: list[OutputLine], now_seconds: float) -> None:
        had = self.holds
        line = self._take()
        self._redraws = min(_REDRAWS, self._redraws + max(0.0, now_seconds - self._redrawn_at))
        self._redrawn_at = now_seconds
        if not had:
            return
        if self._redraws >= 1:
            self._redraws -= 1
            lines.append(line)
        else:
            self._left_out += 1

    def _take(self, *, ends: bool = False) -> OutputLine:
        """What there is of the line; where the line ends, with what is missing of it."""
        line = OutputLine(bytes(self._partial), self._cut, self._left_out if ends else 0)
        self._left_out = 0 if ends else self._left_out
        self._partial.clear()
        self._cut = 0
        self._returned = False
        return line
