"""A runner's log: its entries in the spool, numbered, with what waits for new ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from fal_grpc.v1 import log_pb2, shim_pb2
from fal_runner.spool import DEFAULT_MAX_BYTES, Reader, Record, Spool

Source: TypeAlias = "log_pb2.LogEntry.Source.ValueType"
Level: TypeAlias = "log_pb2.LogLevel.ValueType"
# What precedes an entry in a StreamLogsResponse: the field's number, and that a length follows.
_ENTRIES = bytes((shim_pb2.StreamLogsResponse.ENTRIES_FIELD_NUMBER << 3 | 2,))


def entry_of(text: str, source: Source, level: Level, at_ns: int | None = None) -> log_pb2.LogEntry:
    """An entry that is not numbered yet; `at_ns` is nanoseconds since the epoch, by default now."""
    entry = log_pb2.LogEntry(level=level, source=source, message=text)
    entry.timestamp.FromNanoseconds(time.time_ns() if at_ns is None else at_ns)
    return entry


class Journal:
    """The log of one runner.

    Args:
        directory: where the spool lies.
        max_bytes: how much of it is kept while nobody fetches it.
    """

    def __init__(self, directory: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._spool = Spool(directory, max_bytes=max_bytes)
        self._changed = asyncio.Event()
        self.closed = False

    @property
    def last(self) -> int:
        """Sequence of the last entry."""
        return self._spool.last

    @property
    def acked(self) -> int:
        """Sequence up to which entries were stored elsewhere."""
        return self._spool.acked

    def write(self, entries: Iterable[log_pb2.LogEntry]) -> None:
        """Keep these entries; they get the next numbers."""
        numbered = list(enumerate(entries, self._spool.last + 1))
        for number, entry in numbered:
            entry.sequence = number
        if self._spool.append([entry.SerializeToString() for _, entry in numbered]):
            self._notify()

    def say(self, text: str, level: Level = log_pb2.INFO) -> None:
        """Keep a line of the platform's own."""
        self.write([entry_of(text, log_pb2.LogEntry.SOURCE_SYSTEM, level)])

    def ack(self, sequence: int) -> None:
        """Entries up to this one may be forgotten."""
        self._spool.ack(sequence)

    def reader(self, after: int) -> JournalReader:
        """Read from the entry after this sequence on, and only what was not acknowledged.

        A store that has forgotten a silent runner's lines, because they were too old, asks from 0 again.
        """
        return JournalReader(self._spool.reader(max(after, self.acked)))

    async def wait(self) -> None:
        """Wait until there is more, or never will be."""
        if not self.closed:
            await self._changed.wait()

    def close(self) -> None:
        """There will be no more entries."""
        self.closed = True
        self._spool.close()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class JournalReader:
    """A position in a log."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def read(self, max_bytes: int) -> Sequence[log_pb2.LogEntry]:
        """The next entries, about `max_bytes` of them; none where there are none."""
        records = self._reader.read(max_bytes)
        # Parsed together, which is several times as fast as one by one.
        batch = b"".join([_ENTRIES + _varint(len(payload)) + payload for payload in map(_payload, records)])
        return shim_pb2.StreamLogsResponse.FromString(batch).entries


def read_leftover(directory: Path, after: int) -> JournalReader | None:
    """What a dead shim left on disk; None where there is nothing."""
    return JournalReader(Spool(directory).reader(after)) if directory.is_dir() else None


def _payload(record: Record) -> bytes:
    if record.payload is not None:
        return record.payload
    lines = "1 line" if record.dropped == 1 else f"{record.dropped} lines"
    entry = entry_of(
        f"{lines} dropped here: they were not fetched before the runner's spool was full",
        log_pb2.LogEntry.SOURCE_SYSTEM,
        log_pb2.WARNING,
    )
    entry.sequence = record.sequence
    return entry.SerializeToString()


def _varint(number: int) -> bytes:
    """A number as the wire has it: seven bits a byte, the lowest first."""
    if number < 0x80:
        return bytes((number,))
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
