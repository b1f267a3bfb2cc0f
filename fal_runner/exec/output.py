"""Keeps a command's output by offset until its reader has it. It is in memory, and then in a file."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

MEMORY_BYTES = 4 * 1024 * 1024
"""The most output in memory, and the most that waits for a reader before the command must wait."""
FILE_BYTES = 64 * 1024 * 1024
"""The most output on disk for a command that nobody reads."""
_ENTRY_BYTES = 256  # the overhead of a piece
_MERGE_BYTES = 4096
_RESTING_BYTES = 64 * 1024


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A piece: its bytes, or their position in the file."""

    start: int
    end: int
    stream: int
    data: bytes | None
    position: int = 0

    @property
    def cost(self) -> int:
        return self.end - self.start + _ENTRY_BYTES


class OutputBuffer:
    """The bytes from `start` to `end` of a command's output. Both streams share one count.

    Args:
        directory: where to create the file, if one is needed; it has no name there, and ends with the process.
        memory_bytes: how much to keep in memory.
        file_bytes: how much to keep in total when unread output is dropped.
    """

    def __init__(self, directory: Path, *, memory_bytes: int = MEMORY_BYTES, file_bytes: int = FILE_BYTES) -> None:
        self.start = 0
        self.end = 0
        self._directory = directory
        self._memory_bytes = memory_bytes
        self._file_bytes = file_bytes
        self._entries: deque[_Entry] = deque()
        self._by_start: dict[int, _Entry] = {}
        self._cost = 0
        self._in_memory = 0
        self._spilled = 0
        self._file: int | None = None

    @property
    def full(self) -> bool:
        """Whether the command must wait for its reader."""
        return self._cost >= self._memory_bytes

    def append(self, stream: int, data: bytes, *, drop: bool) -> None:
        """Store a piece.

        Args:
            stream: the stream that it was written to.
            data: the bytes; at least one.
            drop: make room by dropping the oldest; without it the caller must wait while the buffer is full.
        """
        last = self._entries[-1] if self._entries else None
        entry = _Entry(start=self.end, end=self.end + len(data), stream=stream, data=data)
        if last is not None and last.data is not None and last.stream == stream:
            joined = last.end - last.start + len(data)
            if joined <= _MERGE_BYTES:
                entry = _Entry(start=last.start, end=self.end + len(data), stream=stream, data=last.data + data)
                self._forget(self._entries.pop())
        if drop:
            while self._entries and self._cost + entry.cost > self._file_bytes:
                self._forget(self._entries.popleft())
        if self._in_memory + entry.cost > 2 * self._memory_bytes:
            self._spill(entry)
        self._entries.append(entry)
        self._by_start[entry.start] = entry
        self._cost += entry.cost
        self._in_memory += entry.cost if entry.data is not None else _ENTRY_BYTES
        self.end = entry.end
        self.start = max(self.start, self._entries[0].start)

    def read(self, offset: int, most: int) -> tuple[int, int, bytes] | None:
        """Return the piece at an offset, or the next kept one.

        Args:
            offset: of the first byte wanted.
            most: the most bytes to return.

        Returns:
            Its own offset, its stream and its bytes; None if there is nothing yet.
        """
        offset = max(offset, self.start)
        if offset >= self.end:
            return None
        entry = self._by_start.get(offset) or next(e for e in reversed(self._entries) if e.start <= offset)
        data = self._bytes(entry)
        if offset > entry.start or len(data) > most:
            return offset, entry.stream, data[offset - entry.start :][:most]
        pieces, length, following = [data], len(data), self._by_start.get(entry.end)
        while following is not None and following.stream == entry.stream and length < most:
            if length + following.end - following.start > most:
                break
            pieces.append(self._bytes(following))
            length += following.end - following.start
            following = self._by_start.get(following.end)
        return offset, entry.stream, data if len(pieces) == 1 else b"".join(pieces)

    def received(self, offset: int) -> None:
        """Drop output below this offset, which its reader has received."""
        while self._entries and self._entries[0].end <= offset:
            self._forget(self._entries.popleft())
        self.start = max(self.start, min(offset, self.end))

    def rest(self) -> None:
        """Move most of the memory to the file. No reader is expected soon."""
        if self._in_memory > _RESTING_BYTES:
            for entry in self._entries:
                if entry.data is not None:
                    self._in_memory -= entry.cost - _ENTRY_BYTES
                    self._spill(entry)

    def close(self) -> None:
        """Drop everything."""
        self.received(self.end)
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _forget(self, entry: _Entry) -> None:
        del self._by_start[entry.start]
        self._cost -= entry.cost
        self._in_memory -= entry.cost if entry.data is not None else _ENTRY_BYTES

    def _spill(self, entry: _Entry) -> None:
        """Move a piece's bytes to the file. It is a ring that has room for all kept output."""
        if self._file is None:
            with tempfile.TemporaryFile(dir=self._directory) as file:
                self._file = os.dup(file.fileno())
        view = memoryview(entry.data or b"")
        entry.position, entry.data = self._spilled % self._file_bytes, None
        at = entry.position
        while view:
            written = os.pwrite(self._file, view[: self._file_bytes - at], at)
            view = view[written:]
            at = (at + written) % self._file_bytes
        self._spilled += entry.end - entry.start

    def _bytes(self, entry: _Entry) -> bytes:
        if entry.data is not None or self._file is None:
            return entry.data or b""
        length = entry.end - entry.start
        head = os.pread(self._file, min(length, self._file_bytes - entry.position), entry.position)
        return head if len(head) == length else head + os.pread(self._file, length - len(head), 0)
