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
