"""The loop that forgets what is older than the retention: ended runners, log lines, and what nothing needs any more."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from fal_server.core.faults import Fault
from fal_server.ports import Clock, LogStore, Store
from fal_server.services.retention import Deleted, Retention

log = logging.getLogger(__name__)
EVERY_SECONDS = 600.0


class Reaper:
    """Deletes ended runners and log lines when they are older than `retention`.

    Args:
        unused: deletes the code, files and environments that nothing needs any more.
    """

    def __init__(
        self, store: Store, log_store: LogStore, clock: Clock, retention: timedelta, unused: Retention | None = None
    ) -> None:
        self._store = store
        self._log_store = log_store
        self._clock = clock
        self._retention = retention
        self._unused = unused

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep now and then, until `stopping` is set."""
        while not stopping.is_set():
            try:
                await self.sweep()
                await self._clear_up()
            except Fault as fault:
                log.warning("old rows could not be deleted, trying again later: %s", fault.message)
            try:
                async with asyncio.timeout(EVERY_SECONDS):
                    await stopping.wait()
            except TimeoutError:
                continue

    async def _clear_up(self) -> None:
        deleted = Deleted() if self._unused is None else await self._unused.sweep()
        if deleted != Deleted():
            log.info(
                "deleted what nothing needed any more: %d environments, %d files, %d pickled callables",
                deleted.environments,
                deleted.files,
                deleted.blobs,
            )

    async def sweep(self) -> tuple[int, int]:
        """Delete once; how many runners and how many lines."""
        before = self._clock.now() - self._retention
        return await self._store.forget_runners(before), await self._log_store.forget(before)
