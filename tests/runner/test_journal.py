"""A runner's log: numbers, lost lines that are said, and waiting for more."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fal_grpc.v1 import log_pb2
from fal_runner.journal import Journal, entry_of, read_leftover


async def test_lost_lines_are_said(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=4000)
    for number in range(1000):
        journal.write([entry_of(f"line {number}", log_pb2.LogEntry.SOURCE_STDOUT, log_pb2.INFO)])
    first, *others = journal.reader(0).read(1 << 20)
    assert first.source == log_pb2.LogEntry.SOURCE_SYSTEM
    assert first.level == log_pb2.WARNING
    assert first.message.startswith(f"{first.sequence} lines dropped here")
    assert [entry.sequence for entry in others] == list(range(first.sequence + 1, 1001))
    assert others[-1].message == "line 999"
    journal.close()
    leftover = read_leftover(tmp_path, 999)
    assert leftover is not None
    assert [entry.message for entry in leftover.read(1 << 20)] == ["line 999"]


async def test_entries_are_read_as_they_were_written_whatever_their_length(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    lengths = [0, 1, 50, 126, 127, 128, 200, 16_383, 16_384, 100_000]
    journal.write([entry_of("x" * length, log_pb2.LogEntry.SOURCE_STDERR, log_pb2.ERROR) for length in lengths])
    reader = journal.reader(0)
    found = [entry for _ in lengths for entry in reader.read(1)]
    assert [len(entry.message) for entry in found] == lengths
    assert [entry.sequence for entry in found] == list(range(1, len(lengths) + 1))
    assert not reader.read(1)


async def test_what_was_acknowledged_is_not_read_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write([entry_of(str(number), log_pb2.LogEntry.SOURCE_STDOUT, log_pb2.INFO) for number in range(3)])
    journal.ack(2)
    assert [entry.message for entry in journal.reader(0).read(1 << 20)] == ["2"]


async def test_waiting_ends_with_an_entry_and_with_the_log(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    waiting = asyncio.ensure_future(journal.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    journal.say("something")
    async with asyncio.timeout(30):
        await waiting
        waiting = asyncio.ensure_future(journal.wait())
        journal.close()
        await waiting
        await journal.wait()


def test_nothing_left_is_nothing(tmp_path: Path) -> None:
    assert read_leftover(tmp_path / "log", 0) is None
