"""Seals log lines, so that searches in them are quick."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from fal_server.aio.rounds import Rounds
from fal_server.ports import Clock, LogStore

# Later lines are not sealed yet: lines of other runners that were written before them may still come.
_SETTLED = timedelta(seconds=10)
_EVERY_SECONDS = 10.0
# So many segments are 50 ms of work, or three times that beside requests.
_AT_ONCE = 5
# Of work in a thread, each request waits for the interpreter's lock. So pauses are this many times as long as the work.
_PAUSES = 2


class LogSealer:
    """Seals the lines of all apps, a while after they were written."""

    def __init__(self, log_store: LogStore, clock: Clock) -> None:
        self._log_store = log_store
        self._clock = clock

    async def run(self, stopping: asyncio.Event) -> None:
        """Seal until `stopping` is set. While there is more, pauses are short."""
        await Rounds("sealing log lines", self._seal).run_until(stopping)

    async def _seal(self) -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        sealed = await self._log_store.seal(self._clock.now() - _SETTLED, _AT_ONCE)
        return _EVERY_SECONDS if sealed < _AT_ONCE else _PAUSES * (loop.time() - started)
