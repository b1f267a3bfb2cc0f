"""Deletes what is older than the retention: ended runners, log lines, and files that nothing needs any more."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from fal_server.aio.rounds import every
from fal_server.ports import Clock, LogStore, Store
from fal_server.services.retention import Deleted, Retention

log = logging.getLogger(__name__)
EVERY_SECONDS = 600.0


class Reaper:
    """Delete ended runners and log lines that are older than `retention`.

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
        """Delete every ten minutes until `stopping` is set."""
        await every("deleting old rows", EVERY_SECONDS, self._round).run_until(stopping)

    async def sweep(self) -> tuple[int, int]:
        """Delete old rows once; return how many runners and how many lines."""
        before = self._clock.now() - self._retention
        return await self._store.forget_runners(before), await self._log_store.forget(before)

    async def _round(self) -> None:
        await self.sweep()
        deleted = Deleted() if self._unused is None else await self._unused.sweep()
        if deleted != Deleted():
            log.info(
                "deleted what nothing needs any more: %d environments, %d files, %d pickled callables",
                deleted.environments,
                deleted.files,
                deleted.blobs,
            )
