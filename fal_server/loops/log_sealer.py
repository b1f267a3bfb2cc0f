"""Seals log lines, so that searches in them are quick."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from fal_server.aio.rounds import Rounds
from fal_server.ports import Clock, LogStore

# Later lines are not sealed yet: lines of other runners that were written before them may still come.
_SETTLED = timedelta(seconds=10)
_EVERY_SECONDS = 10.0
# After this many segments, a fifth of a second of work, a stopping controller is noticed.
_AT_ONCE = 20


class LogSealer:
    """Seals the lines of all apps, a while after they were written."""

    def __init__(self, log_store: LogStore, clock: Clock) -> None:
        self._log_store = log_store
        self._clock = clock

    async def run(self, stopping: asyncio.Event) -> None:
        """Seal every ten seconds until `stopping` is set. While there is more, do not pause."""
        await Rounds("sealing log lines", self._seal).run_until(stopping)

    async def _seal(self) -> float:
        sealed = await self._log_store.seal(self._clock.now() - _SETTLED, _AT_ONCE)
        return 0.0 if sealed >= _AT_ONCE else _EVERY_SECONDS
