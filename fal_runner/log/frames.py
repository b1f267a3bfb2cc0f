"""Reads frames in a worker's output. Each carries an entry's request, level and extent.

A frame is a mark, four hex digits of length, a letter, sixteen hex digits of time (nanoseconds since the epoch), the
request's id, 0x1F, and as many bytes as the length says. The letter is "-" for lines. For a record it is the letter of
its level, in lower case if the next frame continues the record. The id is empty outside of requests. The mark is
random, and only the shim and its worker know it. A frame has at most PIPE_BUF bytes, which a pipe takes completely or
not at all, so output of child processes and raw writes falls between two frames, never into one. Because a frame has
its time, it may wait in the pipe: the shim need not wake for each.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

LONGEST_ID = 128
_DIGITS = 4
_TIME_DIGITS = 16
_FIXED = _DIGITS + 1 + _TIME_DIGITS
_LINES = "-"
_LETTERS = frozenset("-TDIWEtdiwe")
_END = b"\x1f"


class Chunk(NamedTuple):
    """A piece of output.

    Attributes:
        request_id: empty if unknown.
        ends: whether the request's output ends here.
        level: the first letter of a record's level; empty for lines.
        goes_on: whether the next chunk of the request continues the record.
        at_ns: when it was written, in nanoseconds since the epoch; 0 if that is unknown.
    """

    request_id: str
    data: bytes
    ends: bool = False
    level: str = ""
    goes_on: bool = False
    at_ns: int = 0


class _Head(NamedTuple):
    length: int
    letter: str
    at_ns: int
    request_id: str


def new_mark() -> str:
    """Return a mark that no program prints by chance."""
    return f"\x1e{secrets.token_hex(8)}:"


class FrameReader:
    """Extracts the frames from a stream. Other bytes, and parts of frames, pass unchanged.

    Args:
        mark: the start of every frame.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self._longest_head = len(self._mark) + _FIXED + LONGEST_ID + len(_END)
        self._held = b""

    def feed(self, data: bytes) -> list[Chunk]:
        """Add a piece of the stream; return the complete output."""
        data = self._held + data if self._held else data
        chunks: list[Chunk] = []
        done = start = 0  # bytes before `done` are returned; the search for the next frame starts at `start`
        while (at := data.find(self._mark, start)) >= 0:
            end = data.find(_END, at, at + self._longest_head)
            head = _head(data[at + len(self._mark) : end]) if end >= 0 else None
            if end < 0 and len(data) - at < self._longest_head:
                return self._hold(chunks, data, done, at)
            if head is None:
                start = at + len(self._mark)
                continue
            body, length = end + len(_END), head.length
            if len(data) < body + length:
                return self._hold(chunks, data, done, at)
            if at > done:
                chunks.append(Chunk("", data[done:at]))
            letter = head.letter
            chunks.append(
                Chunk(
                    head.request_id,
                    data[body : body + length],
                    ends=not length,
                    level="" if letter == _LINES else letter.upper(),
                    goes_on=letter.islower(),
                    at_ns=head.at_ns,
                )
            )
            done = start = body + length
        return self._hold(chunks, data, done, len(data) - self._partial_mark(data, start))

    def flush(self) -> list[Chunk]:
        """Return the remaining output once the stream has ended."""
        held, self._held = self._held, b""
        return [Chunk("", held)] if held else []

    def _hold(self, chunks: list[Chunk], data: bytes, done: int, at: int) -> list[Chunk]:
        """Keep the bytes from `at` on until more arrive."""
        if at > done:
            chunks.append(Chunk("", data if done == 0 and at == len(data) else data[done:at]))
        self._held = data[at:]
        return chunks

    def _partial_mark(self, data: bytes, start: int) -> int:
        """Return how many bytes at the end may start a mark."""
        at = data.rfind(self._mark[:1], max(start, len(data) - len(self._mark) + 1))
        return len(data) - at if at >= 0 and self._mark.startswith(data[at:]) else 0


def _head(text: bytes) -> _Head | None:
    """Return the text between mark and 0x1F, parsed. None if it is no frame's head."""
    words = text.decode("ascii", "replace")
    letter = words[_DIGITS : _DIGITS + 1]
    if len(words) < _FIXED or letter not in _LETTERS:
        return None
    try:
        return _Head(int(words[:_DIGITS], 16), letter, int(words[_DIGITS + 1 : _FIXED], 16), words[_FIXED:])
    except ValueError:
        return None
