"""Deletes ended runners, log lines, expired data, and unused content."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial

from fal_server.aio.rounds import Rounds, every
from fal_server.live.events import ChangeNotifier
from fal_server.ports import Clock, LogStore, Store
from fal_server.services.retention import Deleted, Retention

log = logging.getLogger(__name__)
EVERY_SECONDS = 600.0
# An app that always prints exceeds the limit many times a second: log it once in this time.
_TELL_EVERY = timedelta(minutes=1)
# The divisor of the limit that is freed each time, so that the oldest lines are not searched for every new one.
_ROOM = 16


class Reaper:
    """Deletes ended runners and log lines that are older than `retention`.

    Args:
        expired: deletes data with its own expiry, by its name, and returns how many items.
        unused: deletes code, files and environments that nothing needs any more.
        log_bytes: the approximate limit for stored logs; None sets no limit.
    """

    def __init__(
        self,
        store: Store,
        log_store: LogStore,
        clock: Clock,
        retention: timedelta,
        expired: Mapping[str, Callable[[], Awaitable[int]]] | None = None,
        unused: Retention | None = None,
        log_bytes: int | None = None,
    ) -> None:
        self._store = store
        self._log_store = log_store
        self._clock = clock
        self._retention = retention
        self._expired = expired or {}
        self._unused = unused
        self._log_bytes = log_bytes
        self._log_bytes_passed = ChangeNotifier()
        self._dropped = 0  # deleted log lines not reported yet
        self._told_at: datetime | None = None
        if log_bytes is not None:
            log_store.bound(log_bytes, self._log_bytes_passed.notify)

    async def run(self, stopping: asyncio.Event) -> None:
        """Delete every ten minutes until `stopping` is set. Shrink the logs whenever they exceed their limit."""
        works: dict[str, Callable[[], Awaitable[object]]] = {
            "old runners": partial(self._forget, self._store.forget_runners),
            "old events of apps": partial(self._forget, self._store.forget_events),
            "old log lines": partial(self._forget, self._log_store.forget),
            "what nothing needs": self._clear,
            **{what: partial(self._forget_expired, what, forget) for what, forget in self._expired.items()},
        }
        async with asyncio.TaskGroup() as tasks:
            for what, work in works.items():
                tasks.create_task(every(f"deleting {what}", EVERY_SECONDS, work).run_until(stopping))
            bounding = tasks.create_task(Rounds("bounding the logs", self._bound_logs).run(self._log_bytes_passed))
            await stopping.wait()
            bounding.cancel()  # its transaction ends nevertheless

    async def _forget(self, forget: Callable[[datetime], Awaitable[int]]) -> None:
        await forget(self._clock.now() - self._retention)

    async def _forget_expired(self, what: str, forget: Callable[[], Awaitable[int]]) -> None:
        if deleted := await forget():
            log.info("deleted %s: %d", what, deleted)

    async def _bound_logs(self) -> float | None:
        if self._log_bytes is None:
            return None
        self._dropped += await self._log_store.shrink(self._log_bytes, self._log_bytes // _ROOM)
        now = self._clock.now()
        if self._dropped and (self._told_at is None or now - self._told_at >= _TELL_EVERY):
            log.warning("dropped the oldest %d log lines: --log-bytes allows %d bytes", self._dropped, self._log_bytes)
            self._dropped, self._told_at = 0, now
        return _TELL_EVERY.total_seconds()

    async def _clear(self) -> None:
        deleted = Deleted() if self._unused is None else await self._unused.sweep()
        if deleted != Deleted():
            log.info(
                "deleted what nothing needs any more: %d environments, %d files, %d pickled callables",
                deleted.environments,
                deleted.files,
                deleted.blobs,
            )
