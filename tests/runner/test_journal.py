"""A runner's log numbers entries and reports lost lines. It waits for more."""

from __future__ import annotations

import asyncio
import resource
import time
from pathlib import Path

from fal_grpc.v1 import log_pb2
from fal_runner.log.journal import Journal, OutputLines, entry_of, read_leftover


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
    read = journal.reader(0).read(1 << 20)
    assert [(entry.sequence, entry.message.partition(":")[0]) for entry in read] == [
        (2, "2 lines dropped here"),
        (3, "2"),
    ]
    assert read[0].timestamp == read[1].timestamp
    reader = journal.reader(2)
    assert [entry.message for entry in reader.read(1 << 20)] == ["2"]
    journal.ack(3)
    assert [entry.sequence for entry in journal.reader(2).read(1 << 20)] == [3]
    assert list(reader.read(1 << 20)) == []


async def test_waiting_ends_with_an_entry_and_with_the_log(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    waiting = asyncio.ensure_future(journal.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    journal.note("something")
    async with asyncio.timeout(30):
        await waiting
        waiting = asyncio.ensure_future(journal.wait())
        journal.close()
        await waiting
        await journal.wait()


def test_nothing_left_is_nothing(tmp_path: Path) -> None:
    assert read_leftover(tmp_path / "log", 0) is None


async def test_what_a_full_disk_did_not_take_is_read_all_the_same_or_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.take([OutputLines(log_pb2.LogEntry.SOURCE_STDOUT, "", ["first"], [log_pb2.INFO])])
    reader = journal.reader(0)
    assert [entry.message for entry in reader.read(1 << 20)] == ["first"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as a full disk
    try:
        journal.take([OutputLines(log_pb2.LogEntry.SOURCE_STDOUT, "", ["second", "third"], [log_pb2.INFO] * 2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(entry.sequence, entry.message) for entry in reader.read(1 << 20)] == [(2, "second"), (3, "third")]
    journal.note("fourth")
    journal.close()
    leftover = read_leftover(tmp_path, 1)
    assert leftover is not None
    dropped, last = leftover.read(1 << 20)
    assert (dropped.sequence, dropped.level, last.sequence, last.message) == (3, log_pb2.WARNING, 4, "fourth")
    assert "2 lines dropped here" in dropped.message
    assert "disk" in dropped.message
    assert dropped.timestamp == last.timestamp


async def test_a_later_line_never_has_an_earlier_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    stdout, later = log_pb2.LogEntry.SOURCE_STDOUT, time.time_ns() + 3600 * 10**9
    journal.write([entry_of("before the clock was set back", stdout, log_pb2.INFO, later)])
    journal.take([OutputLines(stdout, "request", ["after", "é\ud800"], [log_pb2.INFO, log_pb2.ERROR])])
    first, *rest = journal.reader(0).read(1 << 20)
    assert [(entry.timestamp, entry.message, entry.request_id) for entry in rest] == [
        (first.timestamp, "after", "request"),
        (first.timestamp, "é?", "request"),
    ]
