"""Loops survive any exception of a round, and end when stopped."""

from __future__ import annotations

import asyncio
import logging

import pytest

from fal_grpc.backoff import Backoff
from fal_server.aio.rounds import Rounds, every
from fal_server.core.faults import Unavailable
from fal_server.live.events import ChangeNotifier

SHORT = Backoff(first_seconds=0.001, longest_seconds=0.002)
HANG_SECONDS = 20


async def test_a_change_brings_the_next_round_and_one_during_a_round_is_not_missed() -> None:
    changed, rounds = ChangeNotifier(), 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            changed.notify()
        else:
            enough.set()

    loop = asyncio.create_task(Rounds("test", work).run(changed))
    async with asyncio.timeout(HANG_SECONDS):
        await enough.wait()
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    assert rounds == 2


async def test_a_failed_round_is_logged_and_counted_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [RuntimeError("poison"), Unavailable("the disk is full")]
    stopping = asyncio.Event()

    async def work() -> float:
        if errors:
            raise errors.pop(0)
        stopping.set()
        return 3600

    loop = Rounds("the test", work, after_failures=SHORT)
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(HANG_SECONDS):
            await loop.run_until(stopping)
    assert loop.failures == 2
    failed, late = caplog.records
    assert failed.levelname == "ERROR"
    assert failed.exc_info is not None
    assert "the test failed (1 in a row)" in failed.getMessage()
    assert late.levelname == "WARNING"
    assert "the test: trying again" in late.getMessage()
    assert late.getMessage().endswith("the disk is full")


async def test_stopping_lets_the_round_under_way_end() -> None:
    stopping, started, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    ended = False

    async def work() -> None:
        nonlocal ended
        started.set()
        await go_on.wait()
        ended = True

    loop = asyncio.create_task(every("test", 3600, work).run_until(stopping))
    async with asyncio.timeout(HANG_SECONDS):
        await started.wait()
        stopping.set()
        go_on.set()
        await loop
    assert ended
