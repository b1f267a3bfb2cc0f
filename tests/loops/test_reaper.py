"""What the reaper deletes, and what it says about that."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from fal_server.loops.reaper import Reaper
from tests.fakes.platform import Platform
from tests.store import strategies as some


async def test_logs_that_are_too_large_lose_their_oldest_lines(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    logs = platform.store.logs
    await logs.append([some.line(number, "x" * 640, at=number) for number in range(1, 11)])  # 1000 bytes each
    reaper = Reaper(platform.store, logs, platform.clock, timedelta(days=7), log_bytes=4000)
    assert await reaper.bound_logs() == 6
    assert await reaper.bound_logs() == 0
    assert [record.message for record in caplog.records] == [
        "dropped the oldest 6 log lines: --log-bytes allows 4000 bytes"
    ]
    assert await Reaper(platform.store, logs, platform.clock, timedelta(days=7)).bound_logs() == 0


async def test_old_lines_go_even_if_old_runners_cannot(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def forget_runners(self, ended_before: datetime) -> int:
            raise RuntimeError("poison")

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
