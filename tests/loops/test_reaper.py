"""What the reaper deletes, and its log lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogEntry, LogQuery
from fal_server.loops.reaper import Reaper
from tests.fakes.platform import Platform
from tests.store import strategies as some

MOST = 64_000
"""Bytes: 64 of the lines that these tests write."""


def lines(first: int, count: int) -> list[LogEntry]:
    """Return lines of 1,000 bytes each."""
    return [some.line(number, "x" * 600, at=number) for number in range(first, first + count)]


async def stored(platform: Platform) -> list[int]:
    return [entry.sequence for entry in (await platform.store.logs.page(LOCAL, LogQuery(limit=10_000))).entries]


@asynccontextmanager
async def reaping(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[asyncio.Queue[int]]:
    """Run a reaper; yield the number of dropped lines after each look."""
    stopping, looks, shrink = asyncio.Event(), asyncio.Queue[int](), platform.store.logs.shrink

    async def watched(most_bytes: int, room_bytes: int = 0) -> int:
        dropped = await shrink(most_bytes, room_bytes)
        looks.put_nowait(dropped)
        return dropped

    monkeypatch.setattr(platform.store.logs, "shrink", watched)
    reaper = Reaper(platform.store, platform.store.logs, platform.clock, timedelta(days=7), log_bytes=MOST)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(reaper.run(stopping))
        yield looks
        stopping.set()


async def test_logs_that_pass_their_bound_lose_their_oldest_lines_at_once(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await platform.store.logs.append(lines(1, 70))  # as before a restart
    async with reaping(platform, monkeypatch) as looks:
        assert await looks.get() == 10, "a sixteenth less than the bound is left"
        for first in range(71, 131, 10):
            await platform.store.logs.append(lines(first, 10))
            assert await looks.get() == 10
            assert await stored(platform) == list(range(first - 50, first + 10)), "the oldest went"
    assert [record.message for record in caplog.records] == [
        "dropped the oldest 10 log lines: --log-bytes allows 64000 bytes"
    ], "once a minute"


async def test_logs_within_their_bound_are_looked_at_once(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    async with reaping(platform, monkeypatch) as looks:
        assert await looks.get() == 0
        for first in range(1, 61, 10):
            await platform.store.logs.append(lines(first, 10))
        assert looks.empty()
        await platform.store.logs.append(lines(61, 4))
        assert await stored(platform) == list(range(1, 65))
        await platform.store.logs.append(lines(65, 1))
        assert await looks.get() == 5


async def test_old_lines_go_even_if_old_runners_cannot(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def forget_runners(self, ended_before: datetime) -> int:
            raise RuntimeError("poison")

        async def forget_events(self, recorded_before: datetime) -> int:
            return 0

    class Lines:
        forgotten = asyncio.Event()

        async def forget(self, before: datetime) -> int:
            self.forgotten.set()
            return 0

    lines, stopping = Lines(), asyncio.Event()

    async def expire() -> int:
        await lines.forgotten.wait()
        stopping.set()
        return 3

    reaper = Reaper(
        cast("Any", Broken()), cast("Any", lines), platform.clock, timedelta(days=7), {"expired files": expire}
    )
    caplog.set_level("INFO")
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(reaper.run(stopping))
    assert "deleted expired files: 3" in caplog.text
    assert "deleting old runners failed" in caplog.text
