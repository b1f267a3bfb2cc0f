"""A runner's log: numbered entries in the spool, and notices of them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from fal_grpc.v1 import log_pb2, shim_pb2
from fal_grpc.varint import varint
from fal_runner.log.spool import DEFAULT_MAX_BYTES, Record, Spool, SpoolReader

Source: TypeAlias = "log_pb2.LogEntry.Source.ValueType"
Level: TypeAlias = "log_pb2.LogLevel.ValueType"
# Precedes an entry in a StreamLogsResponse: the field's number and wire type.
_ENTRIES = bytes((shim_pb2.StreamLogsResponse.ENTRIES_FIELD_NUMBER << 3 | 2,))
_MESSAGE = bytes((log_pb2.LogEntry.MESSAGE_FIELD_NUMBER << 3 | 2,))
# A level, and what precedes the message after it.
_LEVELS = {level: log_pb2.LogEntry(level=level).SerializeToString() + _MESSAGE for level in log_pb2.LogLevel.values()}
_TIMESTAMP = bytes((log_pb2.LogEntry.TIMESTAMP_FIELD_NUMBER << 3 | 2,))
_SEQUENCE = bytes((log_pb2.LogEntry.SEQUENCE_FIELD_NUMBER << 3,))
_REMEMBERED_BYTES = 1024 * 1024


class OutputLines(NamedTuple):
    """Lines of one stream and request, their levels, and their time. They were read together.

    `at_ns` is in nanoseconds since the epoch; 0 means now.
    """

    source: Source
    request_id: str
    texts: Sequence[str]
    levels: Sequence[Level]
    at_ns: int = 0


class _Block(NamedTuple):
    """Entries that were written together, in their wire form."""

    first: int
    last: int
    data: bytes


def entry_of(text: str, source: Source, level: Level, at_ns: int | None = None) -> log_pb2.LogEntry:
    """Return an entry without a number. `at_ns` is in nanoseconds since the epoch, by default now."""
    entry = log_pb2.LogEntry(level=level, source=source, message=text)
    entry.timestamp.FromNanoseconds(time.time_ns() if at_ns is None else at_ns)
    return entry


class Journal:
    """The log of one runner.

    Args:
        directory: the spool's directory.
        max_bytes: how much of the log to keep while nobody fetches it.
    """

    def __init__(self, directory: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._spool = Spool(directory, max_bytes=max_bytes)
        self._most_remembered = min(_REMEMBERED_BYTES, max_bytes // 4)
        self._changed = asyncio.Event()
        self._newest = (0, 0)
        self._blocks: deque[_Block] = deque()  # the newest entries, for readers that keep up
        self._blocks_size = 0
        self.closed = False

    @property
    def last(self) -> int:
        """The sequence of the last entry."""
        return self._spool.last

    @property
    def acked(self) -> int:
        """The sequence up to which entries are stored elsewhere."""
        return self._spool.acked

    def write(self, entries: Iterable[log_pb2.LogEntry]) -> None:
        """Store these entries under the next numbers."""
        numbered = list(enumerate(entries, self._spool.last + 1))
        for number, entry in numbered:
            entry.sequence = number
            self._in_order(entry.timestamp)
        self._keep([entry.SerializeToString() for _, entry in numbered])

    def take(self, output: Iterable[OutputLines]) -> None:
        """Store these lines, whose times are in order, under the next numbers."""
        payloads: list[bytes] = []
        number = self._spool.last
        stamp = Timestamp()
        known, same = None, b""
        for source, request_id, texts, levels, at_ns in output:
            stamp.FromNanoseconds(at_ns or time.time_ns())
            self._in_order(stamp)
            # Each entry is assembled from bytes: what its lines share, its level, its message, its number.
            if known != (source, request_id):
                known = (source, request_id)
                same = log_pb2.LogEntry(source=source, request_id=request_id).SerializeToString()
            at = stamp.SerializeToString()
            shared = b"".join((same, _TIMESTAMP, varint(len(at)), at))
            for text, level in zip(texts, levels, strict=True):
                number += 1
                message = text.encode("utf-8", "replace")
                payloads.append(
                    b"".join((shared, _LEVELS[level], varint(len(message)), message, _SEQUENCE, varint(number)))
                )
        self._keep(payloads)

    def note(self, text: str, level: Level = log_pb2.INFO) -> None:
        """Store a line of the platform."""
        self.write([entry_of(text, log_pb2.LogEntry.SOURCE_SYSTEM, level)])

    def ack(self, sequence: int) -> None:
        """Drop the entries up to this one, because they are stored."""
        self._spool.ack(sequence)
        while self._blocks and self._blocks[0].last <= self.acked:
            self._forget_block()

    def reader(self, after: int) -> JournalReader:
        """Return a reader of the entries after this sequence. One entry reports acknowledged ones, which are gone.

        A store that has deleted a silent runner's old lines, or was replaced by an older one, asks for them again.
        """
        return JournalReader(self._spool.reader(max(after, self.acked)), self._blocks, gone=max(0, self.acked - after))

    async def wait(self) -> None:
        """Wait until there are more entries, or the log is closed."""
        if not self.closed:
            await self._changed.wait()

    def close(self) -> None:
        """Close the log; no more entries follow."""
        self.closed = True
        self._spool.close()
        self._notify()

    def _in_order(self, stamp: Timestamp) -> None:
        """Move a time up to the previous entry's if it is earlier. The clock may have been set back."""
        if (stamp.seconds, stamp.nanos) < self._newest:
            stamp.seconds, stamp.nanos = self._newest
        self._newest = (stamp.seconds, stamp.nanos)

    def _keep(self, payloads: list[bytes]) -> None:
        if not payloads:
            return
        first = self._spool.last + 1
        # A full disk may have lost these: readers that keep up still get them.
        block = _Block(first, self._spool.append(payloads), _joined(payloads))
        self._blocks.append(block)
        self._blocks_size += len(block.data)
        while self._blocks_size > self._most_remembered:
            self._forget_block()
        self._notify()

    def _forget_block(self) -> None:
        self._blocks_size -= len(self._blocks.popleft().data)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class JournalReader:
    """A position in a log.

    Args:
        reader: the same position in the spool.
        blocks: the newest entries in memory, for a reader that has read everything before them.
        gone: how many requested entries before the position can no longer be read.
    """

    def __init__(self, reader: SpoolReader, blocks: Iterable[_Block] = (), *, gone: int = 0) -> None:
        self._reader = reader
        self._blocks = blocks
        self._gone = gone

    def read(self, max_bytes: int) -> Sequence[log_pb2.LogEntry]:
        """Return the next entries, about `max_bytes` of them."""
        return self.read_batch(max_bytes).entries

    def read_batch(self, max_bytes: int) -> shim_pb2.StreamLogsResponse:
        """Return the next entries as a message."""
        gone, self._gone, last = self._gone, 0, self._reader.after
        # Parsing them together is several times as fast as building them one by one.
        batch = shim_pb2.StreamLogsResponse.FromString(self._remembered(max_bytes) or self._stored(max_bytes))
        if not gone:
            return batch
        loss = _lost(gone, last, "they were stored once, and have been deleted since or are in another database")
        if batch.entries:
            loss.timestamp.CopyFrom(batch.entries[0].timestamp)
        return shim_pb2.StreamLogsResponse(entries=[loss, *batch.entries])

    def _remembered(self, max_bytes: int) -> bytes:
        found: list[bytes] = []
        size = 0
        for block in self._blocks:
            if block.first == self._reader.after + 1 and (not found or size + len(block.data) <= max_bytes):
                found.append(block.data)
                size += len(block.data)
                self._reader.after = block.last
        return b"".join(found)

    def _stored(self, max_bytes: int) -> bytes:
        records = self._reader.read(max_bytes)
        return _joined([_payload(record, records) for record in records])


def _joined(payloads: Iterable[bytes]) -> bytes:
    return b"".join([part for payload in payloads for part in (_ENTRIES, varint(len(payload)), payload)])


def read_leftover(directory: Path, after: int) -> JournalReader | None:
    """Open a dead shim's log on disk. Return None if there is none."""
    return JournalReader(Spool(directory).reader(after)) if directory.is_dir() else None


def _payload(record: Record, read: Sequence[Record]) -> bytes:
    """Return the entry of a record. For lost lines the entry says so, and has the time of the next line."""
    if record.payload is not None:
        return record.payload
    why = "the runner's spool was full before they were fetched, or the disk that it is on was"
    entry = _lost(record.dropped, record.sequence, why)
    later = [other.payload for other in read if other.payload is not None and other.sequence > record.sequence]
    if later:
        entry.timestamp.CopyFrom(log_pb2.LogEntry.FromString(later[0]).timestamp)
    return entry.SerializeToString()


def _lost(count: int, last: int, why: str) -> log_pb2.LogEntry:
    """Return the entry that replaces lost ones. The last of them had this number."""
    lines = "1 line" if count == 1 else f"{count} lines"
    entry = entry_of(f"{lines} dropped here: {why}", log_pb2.LogEntry.SOURCE_SYSTEM, log_pb2.WARNING)
    entry.sequence = last
    return entry
