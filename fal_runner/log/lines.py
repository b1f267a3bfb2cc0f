"""Splits a program's output into lines, and detects each line's level."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from fal_grpc.v1 import log_pb2

DEFAULT_MAX_LINE_BYTES = 1024 * 1024

# "ERROR: x", "[WARNING] x", "2025-01-01 10:00:00,123 - INFO - x", "INFO:     x"; only in capitals, only at the start.
# The part before the word never backtracks: otherwise a line of digits would be tried at each digit.
_BEFORE = r"[\s\d:.,Z+\-/\[|]{0,40}+"
_WORD = re.compile(
    rf"{_BEFORE}(?:T(?=\d){_BEFORE})?(TRACE|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)(?=[\]:|\s-]|$)"
)
# uvicorn's format, whose padding is unusually wide, and that of `logging.basicConfig()`, before the logger's name.
_REPEATED = re.compile(
    r"(?:INFO:     |WARNING:  |ERROR:    |DEBUG:    |TRACE:    )(?=\S)"
    r"|(?:DEBUG|INFO|WARNING|ERROR):(?=[A-Za-z_][\w.]*+:)"
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
_TRACEBACK = "Traceback (most recent call last):"
# Lines between the tracebacks of a chain.
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
# The first line of faulthandler when Python itself crashes, and the starts of the lines after it.
_FATAL = "Fatal Python error: "
_OF_FATAL = (" ", "Current thread", "Thread ", "Python runtime state", "Extension modules", "<", "Stack (")
_FRAME = re.compile(r'File "([^"]+)", line (\d+) in (.+)')
_LOOKED_AT = 4096
_REDRAWS = 10.0  # states of a redrawn line to keep before only one per second is kept


def level_of(line: str) -> log_pb2.LogLevel.ValueType:
    """Return the level that a line states; INFO if it states none. The stream does not matter.

    It may be a name in capitals at the start (also after a time or in brackets), or the field `level`, `levelname` or
    `severity` of a line of JSON. The first line of a Python traceback is an ERROR.
    """
    start = line[:_LOOKED_AT]
    if start.startswith("{"):
        found = _JSON.search(start)
        return _LEVELS.get(found[1].upper(), log_pb2.INFO) if found else log_pb2.INFO
    if start.startswith((_TRACEBACK, _FATAL)):
        return log_pb2.ERROR
    found = _WORD.match(start)
    return _LEVELS[found[1]] if found else log_pb2.INFO


def without_level(text: str) -> str:
    """Return a line without the level at its start. Its entry has the level, and only unambiguous forms are removed."""
    found = _REPEATED.match(text)
    return text[found.end() :] if found else text


class EntryReader:
    """Groups consecutive lines into entries, usually one each. A traceback or crash report is one ERROR.

    Output through the program's own Python already comes as one entry; this is for child processes, and for crashes
    beneath Python. Only the next line shows that a traceback has ended, so the last one is held until `flush`.

    Args:
        max_bytes: a longer traceback becomes several entries.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held: list[str] = []
        self._held_bytes = 0
        self._is_fatal = False
        self._is_whole = False  # the exception was read, and only another traceback of the same chain may follow

    @property
    def holds(self) -> bool:
        """Whether it holds a traceback that may continue."""
        return bool(self._held)

    @property
    def holds_part(self) -> bool:
        """Whether it holds a traceback without its exception."""
        return bool(self._held) and not self._is_whole

    def read(self, texts: Sequence[str]) -> tuple[list[str], list[log_pb2.LogLevel.ValueType]]:
        """Return the entries that the next lines complete, and their levels."""
        levels = [level_of(text) for text in texts]
        if not self._held and log_pb2.ERROR not in levels:  # almost always
            return [*map(without_level, texts)], levels
        entries: list[tuple[str, log_pb2.LogLevel.ValueType]] = []
        for text, level in zip(texts, levels, strict=True):
            if self._held and not self._belongs(text):
                entries += self._take()
            if self._held or text.startswith((_TRACEBACK, _FATAL)):
                self._hold(text)
                if self._held_bytes > self._max_bytes:
                    entries += self._take()
            else:
                entries.append((without_level(text), level))
        return [text for text, _ in entries], [level for _, level in entries]

    def flush(self) -> tuple[list[str], list[log_pb2.LogLevel.ValueType]]:
        """Return the held traceback, because the output has ended or pauses."""
        entries = self._take()
        return [text for text, _ in entries], [level for _, level in entries]

    def _hold(self, text: str) -> None:
        if not self._held:
            self._is_fatal = text.startswith(_FATAL)
        self._held.append(text)
        self._held_bytes += len(text)

    def _belongs(self, text: str) -> bool:
        if self._is_fatal:
            return not text or text.startswith(_OF_FATAL)
        if text.startswith(_TRACEBACK):
            follows = self._is_whole and not self._held[-1]  # after "During handling of ..." and an empty line
            self._is_whole = False
            return follows
        if self._is_whole:
            return not text or text.startswith(_CHAINED)
        self._is_whole = not text.startswith(" ")
        return True

    def _take(self) -> list[tuple[str, log_pb2.LogLevel.ValueType]]:
        held, self._held, self._held_bytes, self._is_whole = self._held, [], 0, False
        after = 0
        while held and not held[-1]:
            held.pop()
            after += 1
        report = [("\n".join(held), log_pb2.ERROR)] if held else []
        return [*report, *[("", log_pb2.INFO)] * after]


def crash_of(report: str) -> str | None:
    """Return a crash report's summary in one line. An example is "Segmentation fault, in app.py line 3 in load"."""
    if not report.startswith(_FATAL):
        return None
    first, *rest = report.splitlines()
    what = first.removeprefix(_FATAL)
    current = next((number for number, line in enumerate(rest, 1) if line.startswith("Current thread")), len(rest))
    stack = itertools.takewhile(lambda line: line.startswith(" "), rest[current:])
    frames = [found for line in stack if (found := _FRAME.fullmatch(line.strip()))]
    # The app's own line tells more than that of the library it called.
    own = next((found for found in frames if "/lib/python" not in found[1]), next(iter(frames), None))
    return what if own is None else f"{what}, in {own[3]} ({own[1].rpartition('/')[2]}:{own[2]})"


class OutputLine(NamedTuple):
    """A line without its newline.

    The last `cut_bytes` were dropped because it was too long, and `left_out` states because it was redrawn too often.
    """

    data: bytes
    cut_bytes: int = 0
    left_out: int = 0


class LineSplitter:
    """Splits a stream of bytes into lines. It holds at most one line, and at most `max_bytes` of it.

    A line may be redrawn after a carriage return, like a progress bar. Its previous state is a line too, so that
    progress and the last state before a crash are visible. If a line is redrawn repeatedly, only the first 10 states
    are kept, then one per second, and always the last, which says how many are missing.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._partial = bytearray()
        self._cut = 0
        self._returned = False  # the last byte was a carriage return: either a newline follows, or a redraw
        self._redraws = _REDRAWS
        self._redrawn_at = float("-inf")
        self._left_out = 0

    @property
    def holds(self) -> bool:
        """Whether it holds the start of a line."""
        return bool(self._partial or self._cut)

    def feed_plain(self, data: bytes) -> bytes | None:
        """Add a piece of ordinary lines. Return them joined, without the last newline.

        Returns None, and takes nothing, if `feed` must look closer: a line may be too long or redrawn, or none ends
        here.
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
        """Add a piece; return the lines that end in it.

        Args:
            now_seconds: when it arrived, by any monotonic clock.
        """
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
        """Return the last line if the stream ended without a newline."""
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
        """Return the current line. At its end it has a note on dropped parts."""
        line = OutputLine(bytes(self._partial), self._cut, self._left_out if ends else 0)
        self._left_out = 0 if ends else self._left_out
        self._partial.clear()
        self._cut = 0
        self._returned = False
        return line
