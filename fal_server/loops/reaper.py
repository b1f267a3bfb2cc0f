"""The loop that forgets what is older than the retention: ended runners and log lines."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from fal_server.core.faults import Fault
from fal_server.ports import Clock, LogStore, Store

log = logging.getLogger(__name__)
EVERY_SECONDS = 600.0


class Reaper:
    """Deletes ended runners and log lines when they are older than `retention`."""

    def __init__(self, store: Store, log_store: LogStore, clock: Clock, retention: timedelta) -> None:
        self._store = store
        self._log_store = log_store
        self._clock = clock
        self._retention = retention

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep now and then, until `stopping` is set."""
        while not stopping.is_set():
            try:
                await self.sweep()
            except Fault as fault:
                log.warning("old rows could not be deleted, trying again later: %s", fault.message)
            try:
                async with asyncio.timeout(EVERY_SECONDS):
                    await stopping.wait()
            except TimeoutError:
                continue

    async def sweep(self) -> tuple[int, int]:
        """Delete once; how many runners and how many lines."""
        before = self._clock.now() - self._retention
        return await self._store.forget_runners(before), await self._log_store.forget(before)
