"""Stops accepting work while the state directory is missing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fal_server.aio.rounds import every

log = logging.getLogger(__name__)
EVERY_SECONDS = 0.5


class StateWatch:
    """Suspends HTTP while accepted data would be lost. The store refuses writes by itself.

    Args:
        trouble: returns why the state directory cannot be used, or "".
        suspend: takes the reason, or "" when the directory is back.
    """

    def __init__(self, trouble: Callable[[], str], suspend: Callable[[str], None]) -> None:
        self._trouble = trouble
        self._suspend = suspend
        self._reason = ""

    async def run(self, stopping: asyncio.Event) -> None:
        """Check twice a second until `stopping` is set."""
        await every("watching the state directory", EVERY_SECONDS, self._look).run_until(stopping)

    async def _look(self) -> None:
        reason = self._trouble()
        if reason == self._reason:
            return
        self._reason = reason
        if not reason:
            self._suspend("")
            log.warning("the state directory is back: requests are accepted again")
            return
        message = f"{reason}: nothing is accepted until it is back"
        self._suspend(message)
        log.error("%s", message)
