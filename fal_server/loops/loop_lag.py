"""Measures the event loop's lag: how long due callbacks wait."""

from __future__ import annotations

import asyncio

from fal_server.core.sketch import DurationSketch

EVERY_SECONDS = 0.5


class LoopLag:
    """Sleeps repeatedly, and records how late it wakes up.

    Attributes:
        lags: how late it was, each time.
    """

    def __init__(self) -> None:
        self.lags = DurationSketch()

    async def run(self, stopping: asyncio.Event) -> None:
        """Measure until `stopping` is set."""
        loop = asyncio.get_running_loop()
        while not stopping.is_set():
            due = loop.time() + EVERY_SECONDS
            try:
                async with asyncio.timeout_at(due):
                    await stopping.wait()
            except TimeoutError:
                self.lags.add(loop.time() - due)
