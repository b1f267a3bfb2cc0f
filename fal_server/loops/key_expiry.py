"""Ends calls in progress whose keys expire."""

from __future__ import annotations

import asyncio

from fal_server.access.authentication import Authenticator
from fal_server.aio.rounds import every

EVERY_SECONDS = 0.5


class KeyExpiry:
    """Refuses expired keys, and ends their calls in progress."""

    def __init__(self, access: Authenticator) -> None:
        self._access = access

    async def run(self, stopping: asyncio.Event) -> None:
        """Check twice a second until `stopping` is set."""
        await every("ending expired keys", EVERY_SECONDS, self._look).run_until(stopping)

    async def _look(self) -> None:
        self._access.forget_expired()
