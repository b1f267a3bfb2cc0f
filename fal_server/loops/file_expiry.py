"""Deletes public files that have expired."""

from __future__ import annotations

import asyncio
import logging

from fal_server.aio.rounds import every
from fal_server.services.objects import Objects

log = logging.getLogger(__name__)
EVERY_SECONDS = 600.0


class FileExpiry:
    """Delete public files whose time is over."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def run(self, stopping: asyncio.Event) -> None:
        """Delete every ten minutes until `stopping` is set."""
        await every("deleting expired files", EVERY_SECONDS, self._delete_expired).run_until(stopping)

    async def _delete_expired(self) -> None:
        deleted = await self._objects.forget()
        if deleted:
            log.info("%d files had expired", deleted)
