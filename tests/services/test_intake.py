"""Lines of many runners on their way into the store: few transactions, and no acknowledgement before one is done."""

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
    """Takes lines when it is let, and chokes on what it is told to."""

    def __init__(self) -> None:
        self.transactions: list[list[tuple[str, int]]] = []
        self.begun, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()
        self.full = False
        self.poison: set[str] = set()

    async def store(self, entries: Sequence[LogEntry]) -> None:
        self.begun.set()
        await self.open.wait()
        if self.full:
            raise Unavailable("the disk is full")
        if self.poison & {entry.runner_id for entry in entries}:
            raise OverflowError("a number that no database has")
        self.transactions.append([(entry.runner_id, entry.sequence) for entry in entries])


async def test_what_comes_while_others_are_stored_is_stored_together() -> None:
    disk = Disk()
    disk.open.clear()
    lines = Intake(disk.store)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        first = group.create_task(lines.put([line("first", 1)]))
        await disk.begun.wait()
        others = [group.create_task(lines.put([line(f"r{number}", 1)])) for number in range(50)]
        await asyncio.sleep(0)
        assert not first.done()
        disk.open.set()
    assert all(task.done() for task in others)
    assert disk.transactions == [[("first", 1)], [(f"r{number}", 1) for number in range(50)]]


async def test_a_lot_does_not_wait_and_is_cut_into_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_ENOUGH_LINES", 10)
    monkeypatch.setattr(intake, "_MOST_LINES", 25)
    disk = Disk()
    lines = Intake(disk.store, pause_seconds=3600)
    async with asyncio.timeout(30):
        await lines.put([line("a", 1)])
        batches = [[line(f"r{number}", n) for n in range(10)] for number in range(5)]
        await asyncio.gather(*map(lines.put, batches))
    assert [len(transaction) for transaction in disk.transactions] == [1, 20, 20, 10]


async def test_where_one_cannot_be_stored_none_that_waits_is() -> None:
    disk = Disk()
    disk.open.clear()
    lines = Intake(disk.store)
    async with asyncio.timeout(30):
        first = asyncio.create_task(lines.put([line("a", 1)]))
        await disk.begun.wait()
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


async def test_lines_that_the_store_chokes_on_keep_nobody_else_from_storing() -> None:
    disk = Disk()
    disk.poison = {"bad"}
    lines = Intake(disk.store)
    async with asyncio.timeout(30):
        tasks = [asyncio.create_task(lines.put([line(name, 1)])) for name in ("a", "bad", "b")]
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), OverflowError, type(None)]
    assert disk.transactions == [[("a", 1)], [("b", 1)]]


async def test_nothing_is_kept_of_a_runner_after_what_was_not() -> None:
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


async def test_who_does_not_wait_any_more_changes_nothing() -> None:
    disk = Disk()
    disk.open.clear()
    lines = Intake(disk.store)
    async with asyncio.timeout(30):
        gone = asyncio.create_task(lines.put([line("a", 1)]))
        await disk.begun.wait()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        disk.open.set()
        await lines.put([line("a", 2)])
    assert disk.transactions == [[("a", 1)], [("a", 2)]]
