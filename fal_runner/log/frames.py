"""Reads frames in a worker's output, which carry the request, the level and the extent of one entry.

A frame is a mark, four hex digits of length, a letter, the request's id, 0x1F, and as many bytes as the length says.
The letter is "-" for lines. For a record it is the letter of its level, in lower case if the next frame continues the
record. The id is empty for a record without a request. The mark is random, and only the shim and its worker know it. A
frame has at most PIPE_BUF bytes, which a pipe takes completely or not at all, so output of child processes and raw
writes falls between two frames, never into one.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

LONGEST_ID = 128
_DIGITS = 4
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
    """

    request_id: str
    data: bytes
    ends: bool = False
    level: str = ""
    goes_on: bool = False


def new_mark() -> str:
    """Return a mark that no program prints by chance."""
    return f"\x1e{secrets.token_hex(8)}:"


class FrameReader:
    """Extracts the frames from a stream; other bytes, and parts of frames, pass unchanged.

    Args:
        mark: the start of every frame.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self._longest_head = len(self._mark) + _DIGITS + 1 + LONGEST_ID + len(_END)
        self._held = b""

    def feed(self, data: bytes) -> list[Chunk]:
        """Add a piece of the stream; return the complete output."""
        data = self._held + data if self._held else data
        chunks: list[Chunk] = []
        done = start = 0  # bytes before `done` are returned; the search for the next frame starts at `start`
        while (at := data.find(self._mark, start)) >= 0:
            head = data.find(_END, at, at + self._longest_head)
            length = _length(data[at + len(self._mark) : head]) if head >= 0 else None
            if head < 0 and len(data) - at < self._longest_head:
                return self._hold(chunks, data, done, at)
            if length is None:
                start = at + len(self._mark)
                continue
            body = head + len(_END)
            if len(data) < body + length:
                return self._hold(chunks, data, done, at)
            if at > done:
                chunks.append(Chunk("", data[done:at]))
            letter, request_id = _words(data[at + len(self._mark) + _DIGITS : head])
            chunks.append(
                Chunk(
                    request_id,
                    data[body : body + length],
                    ends=not length,
                    level="" if letter == _LINES else letter.upper(),
                    goes_on=letter.islower(),
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
        """Return how many bytes at the end may be the start of a mark."""
        at = data.rfind(self._mark[:1], max(start, len(data) - len(self._mark) + 1))
        return len(data) - at if at >= 0 and self._mark.startswith(data[at:]) else 0


def _words(text: bytes) -> tuple[str, str]:
    words = text.decode("ascii", "replace")
    return words[:1], words[1:]


def _length(text: bytes) -> int | None:
    if chr(text[_DIGITS]) not in _LETTERS if len(text) > _DIGITS else True:
        return None
    try:
        return int(text[:_DIGITS], 16)
    except ValueError:
        return None
