"""Lines of many runners share transactions, and are acknowledged only when stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from fal_server.core.faults import Unavailable
from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.services import intake
from fal_server.services.intake import Intake

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def line(runner_id: str, sequence: int) -> LogEntry:
    return LogEntry(
        account=LOCAL,
        runner_id=runner_id,
        sequence=sequence,
        timestamp=NOON,
        level=LogLevel.INFO,
        source=LogSource.STDOUT,
        message="",
    )


class Disk:
    """Stores lines when the test allows it. It fails for lines that the test names."""

    def __init__(self) -> None:
        self.transactions: list[list[tuple[str, int]]] = []
        self.started, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()
        self.full = False
        self.poison: set[str] = set()

    async def store(self, entries: Sequence[LogEntry]) -> None:
        self.started.set()
        await self.open.wait()
        if self.full:
            raise Unavailable("the disk is full")
        if self.poison & {entry.runner_id for entry in entries}:
            raise OverflowError("a number that no database has")
        self.transactions.append([(entry.runner_id, entry.sequence) for entry in entries])


async def test_lines_that_arrive_during_a_transaction_share_the_next() -> None:
    disk = Disk()
    disk.open.clear()
    lines = Intake(disk.store)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        first = group.create_task(lines.put([line("first", 1)]))
        await disk.started.wait()
        others = [group.create_task(lines.put([line(f"r{number}", 1)])) for number in range(50)]
        await asyncio.sleep(0)
        assert not first.done()
        disk.open.set()
    assert all(task.done() for task in others)
    assert disk.transactions == [[("first", 1)], [(f"r{number}", 1) for number in range(50)]]


async def test_many_lines_do_not_wait_and_are_split_into_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_ENOUGH_LINES", 10)
    monkeypatch.setattr(intake, "_MOST_LINES", 25)
    disk = Disk()
    lines = Intake(disk.store, pause_seconds=3600)
    async with asyncio.timeout(30):
        await lines.put([line("a", 1)])
        batches = [[line(f"r{number}", n) for n in range(10)] for number in range(5)]
        await asyncio.gather(*map(lines.put, batches))
    assert [len(transaction) for transaction in disk.transactions] == [1, 20, 20, 10]


async def test_a_failed_write_fails_all_waiting_batches() -> None:
    disk = Disk()
    disk.open.clear()
    lines = Intake(disk.store)
    async with asyncio.timeout(30):
        first = asyncio.create_task(lines.put([line("a", 1)]))
        await disk.started.wait()
        second = asyncio.create_task(lines.put([line("a", 2)]))
        await asyncio.sleep(0)
        disk.full = True
        disk.open.set()
        for task in (first, second):
            with pytest.raises(Unavailable, match="full"):
                await task
        disk.full = False
        await lines.put([line("a", 1), line("a", 2)])
    assert disk.transactions == [[("a", 1), ("a", 2)]]


async def test_lines_that_break_the_store_fail_alone() -> None:
    disk = Disk()
    disk.poison = {"bad"}
    lines = Intake(disk.store)
    async with asyncio.timeout(30):
        tasks = [asyncio.create_task(lines.put([line(name, 1)])) for name in ("a", "bad", "b")]
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), OverflowError, type(None)]
    assert disk.transactions == [[("a", 1)], [("b", 1)]]


async def test_no_line_is_stored_after_a_line_of_its_runner_that_was_not() -> None:
    disk = Disk()
    disk.poison = {"bad"}
    lines = Intake(disk.store)
    async with asyncio.timeout(30):
        tasks = [asyncio.create_task(lines.put([line(*what)])) for what in (("a", 1), ("bad", 1), ("a", 2), ("bad", 2))]
        await asyncio.wait(tasks[1:2])
        disk.poison.clear()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results][1::2] == [OverflowError, OverflowError]
    assert disk.transactions == [[("a", 1)], [("a", 2)]]


async def test_a_cancelled_caller_changes_nothing() -> None:
    disk = Disk()
    disk.open.clear()
    lines = Intake(disk.store)
    async with asyncio.timeout(30):
        gone = asyncio.create_task(lines.put([line("a", 1)]))
        await disk.started.wait()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        disk.open.set()
        await lines.put([line("a", 2)])
    assert disk.transactions == [[("a", 1)], [("a", 2)]]
