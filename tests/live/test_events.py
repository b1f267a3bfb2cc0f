"""A waiter misses no change."""

from __future__ import annotations

import asyncio

from fal_server.live.events import ChangeNotifier


async def test_a_change_before_the_wait_is_not_missed() -> None:
    changed = ChangeNotifier()
    seen = changed.count
    changed.notify()
    assert await changed.wait(seen) == 1


async def test_everybody_is_woken_and_a_timeout_is_no_error() -> None:
    changed = ChangeNotifier()
    waiting = [asyncio.create_task(changed.wait(0)) for _ in range(3)]
    assert await changed.wait(0, 0.001) == 0
    changed.notify()
    async with asyncio.timeout(20):
        assert await asyncio.gather(*waiting) == [1, 1, 1]


async def test_a_cancelled_waiter_does_no_harm() -> None:
    changed = ChangeNotifier()
    leaving = asyncio.create_task(changed.wait(0))
    await asyncio.sleep(0)
    leaving.cancel()
    changed.notify()
    await asyncio.gather(leaving, return_exceptions=True)
    assert leaving.cancelled()
    assert changed.count == 1
