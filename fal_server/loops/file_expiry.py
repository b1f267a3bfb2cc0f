"""Deletes files whose time has run out."""

from __future__ import annotations

import asyncio
import logging

from fal_server.core.faults import Fault
from fal_server.services.objects import Objects

log = logging.getLogger(__name__)
EVERY_SECONDS = 600.0


class FileExpiry:
    """Deletes files that are fetched by their address once they have expired."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep every ten minutes until `stopping` is set."""
        while not stopping.is_set():
            try:
                deleted = await self._objects.forget()
                if deleted:
                    log.info("%d files had expired", deleted)
            except (Fault, OSError) as fault:
                log.warning("expired files could not be deleted, trying again later: %s", fault)
            try:
                async with asyncio.timeout(EVERY_SECONDS):
                    await stopping.wait()
            except TimeoutError:
                continue
