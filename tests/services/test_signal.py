"""The wake-up call: nobody misses a change, however it falls."""

from __future__ import annotations

import asyncio

from fal_server.live.events import ChangeNotifier


async def test_a_change_before_the_wait_is_not_missed() -> None:
    signal = ChangeNotifier()
    seen = signal.count
    signal.notify()
    assert await signal.wait(seen) == 1


async def test_everybody_is_woken_and_a_timeout_is_no_error() -> None:
    signal = ChangeNotifier()
    waiting = [asyncio.create_task(signal.wait(0)) for _ in range(3)]
    assert await signal.wait(0, 0.001) == 0
    signal.notify()
    async with asyncio.timeout(20):
        assert await asyncio.gather(*waiting) == [1, 1, 1]


async def test_a_cancelled_waiter_does_no_harm() -> None:
    signal = ChangeNotifier()
    leaving = asyncio.create_task(signal.wait(0))
    await asyncio.sleep(0)
    leaving.cancel()
    signal.notify()
    await asyncio.gather(leaving, return_exceptions=True)
    assert leaving.cancelled()
    assert signal.count == 1
