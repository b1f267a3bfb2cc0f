"""Keeps a runner's output on disk until it is stored. It has numbered records in segments of limited size.

A record survives the death of every process, but not a power loss: nothing is synced.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
_HEADER = struct.Struct("<QII")  # sequence, length, CRC-32 of the payload
_SEGMENTS = 16  # deleting the oldest one loses a sixteenth


class Record(NamedTuple):
    """A record. Without a payload it stands for `dropped` lost records, the last of which is `sequence`."""

    sequence: int
    payload: bytes | None
    dropped: int = 0


@dataclass(slots=True, kw_only=True)
class _Segment:
    """One file. `first` is its name; `last` is below `first` while it is empty."""

    path: Path
    first: int
    last: int
    size: int


class Spool:
    """The records of one runner. One process appends; any number may read.

    Args:
        directory: the segments' directory; created if it is missing.
        max_bytes: the total size of the segments; beyond it the oldest is deleted.
    """

    def __init__(self, directory: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._max_bytes = max_bytes
        found = [_scan(path) for path in sorted(directory.glob("*.seg"))]
        self.last = found[-1].last if found else 0
        self.acked = found[0].first - 1 if found else 0
        self._segments = [segment for segment in found if segment.size]
        self._file: int | None = None

    def append(self, payloads: Sequence[bytes]) -> int:
        """Number and store these records; return the last sequence.

        If the disk takes nothing even after the oldest segment was deleted, the records are lost, but still numbered,
        so that readers see the gap. No disk error leaves this method: it would end the reading of the app's output, and
        break the app's prints.
        """
        for start, stop in self._batches(payloads):
            block = bytearray()
            for sequence, payload in enumerate(payloads[start:stop], self.last + 1):
                block += _HEADER.pack(sequence, len(payload), zlib.crc32(payload))
                block += payload
            self._make_room(len(block))
            if not self._write(block, stop - start):
                self._drop_oldest()
                if not self._write(block, stop - start):
                    self.last += stop - start
                    self._close_file()  # the next record starts a segment, so that the gap is between two segments
        return self.last

    def ack(self, sequence: int) -> None:
        """Delete the segments whose records are all at or below this sequence."""
        self.acked = max(self.acked, min(sequence, self.last))
        while len(self._segments) > 1 and self._segments[0].last <= self.acked:
            self._drop_oldest()

    def reader(self, after: int) -> SpoolReader:
        """Return a reader of the records after this sequence."""
        return SpoolReader(self, after)

    def segment_after(self, sequence: int) -> tuple[Path, int] | None:
        """Return the segment with the first record above this sequence. Also return its complete records' size."""
        for segment in self._segments:
            if segment.last > sequence:
                return segment.path, segment.size
        return None

    def close(self) -> None:
        """Close the open segment."""
        self._close_file()

    def _batches(self, payloads: Sequence[bytes]) -> Iterator[tuple[int, int]]:
        """Yield ranges of payloads that fit into one segment."""
        start, size = 0, 0
        for index, payload in enumerate(payloads):
            length = _HEADER.size + len(payload)
            if size and size + length > self._segment_bytes:
                yield start, index
                start, size = index, 0
            size += length
        if start < len(payloads):
            yield start, len(payloads)

    @property
    def _segment_bytes(self) -> int:
        return max(1, self._max_bytes // _SEGMENTS)

    def _make_room(self, size: int) -> None:
        """Start a new segment if this one would grow too large. Delete the oldest ones beyond the limit."""
        if self._file is not None and self._segments[-1].size + size > self._segment_bytes:
            self._close_file()
        while len(self._segments) > 1 and sum(segment.size for segment in self._segments) + size > self._max_bytes:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        if len(self._segments) > 1:
            with suppress(OSError):  # a read-only disk
                self._segments.pop(0).path.unlink(missing_ok=True)

    def _write(self, block: bytearray, count: int) -> bool:
        """Append the complete block or nothing; return whether it was appended."""
        try:
            if self._file is None:
                path = self._directory / f"{self.last + 1:020d}.seg"
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
                self._segments.append(_Segment(path=path, first=self.last + 1, last=self.last, size=0))
            view = memoryview(block)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            self._undo_write()
            return False
        self._segments[-1].size += len(block)
        self._segments[-1].last += count
        self.last += count
        return True

    def _undo_write(self) -> None:
        """Remove an incomplete block. If the disk refuses that too, never append to this file again."""
        if self._file is None:
            return
        segment = self._segments[-1]
        if not segment.size:  # a reader expects a record in each segment
            self._close_file()
            self._segments.pop()
            with suppress(OSError):  # a read-only disk
                segment.path.unlink(missing_ok=True)
            return
        try:
            os.ftruncate(self._file, segment.size)
        except OSError:
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # a failing disk reports an earlier write
                os.close(self._file)
            self._file = None


class SpoolReader:
    """A position in a spool.

    Attributes:
        after: the last record that was read; a caller that has the next ones from elsewhere may advance it.
    """

    def __init__(self, spool: Spool, after: int) -> None:
        self._spool = spool
        self.after = after
        self._path: Path | None = None
        self._offset = 0

    def read(self, max_bytes: int) -> list[Record]:
        """Return the next records, about `max_bytes` of them but at least one. The list is empty if there are none."""
        records: list[Record] = []
        size = 0
        while size < max_bytes:
            found = self._spool.segment_after(self.after)
            if found is None:
                return records + self._lost(self._spool.last + 1)
            path, end = found
            if path != self._path:
                self._path, self._offset = path, 0
            block = self._block(path, min(end - self._offset, max_bytes - size))
            self._offset += len(block)
            offset = 0
            while offset < len(block):
                sequence, length, _ = _HEADER.unpack_from(block, offset)
                start = offset + _HEADER.size
                offset = start + length
                if sequence > self.after:
                    if sequence > self.after + 1:
                        records += self._lost(sequence)
                    records.append(Record(sequence, block[start:offset]))
                    self.after = sequence
                    size += _HEADER.size + length
        return records

    def _block(self, path: Path, most: int) -> bytes:
        """Return the next complete records, about `most` bytes but at least one."""
        with path.open("rb") as file:
            file.seek(self._offset)
            block = file.read(max(most, _HEADER.size))
            whole = 0
            while whole + _HEADER.size <= len(block):
                stop = whole + _HEADER.size + _HEADER.unpack_from(block, whole)[1]
                if stop > len(block):
                    break
                whole = stop
            if not whole:
                length = _HEADER.size + _HEADER.unpack_from(block)[1]
                return block + file.read(length - len(block))
            return block[:whole]

    def _lost(self, until: int) -> list[Record]:
        """Return a record for the gap before this sequence, if any."""
        dropped = until - 1 - self.after
        if dropped <= 0:
            return []
        self.after = until - 1
        return [Record(until - 1, None, dropped)]


def _scan(path: Path) -> _Segment:
    """Read a segment to its last complete record. An interrupted write may have left a part after it."""
    first = int(path.stem)
    segment = _Segment(path=path, first=first, last=first - 1, size=0)
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            sequence, length, checksum = _HEADER.unpack(header)
            payload = file.read(length)
            if len(payload) < length or zlib.crc32(payload) != checksum:
                break
            segment.last = sequence
            segment.size += _HEADER.size + length
    return segment
