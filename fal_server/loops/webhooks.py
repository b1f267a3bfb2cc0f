"""Delivers webhooks when they are due."""

from __future__ import annotations

import asyncio
import logging

from fal_server.aio.rounds import Rounds
from fal_server.aio.tasks import TaskSet
from fal_server.core.faults import Fault
from fal_server.core.queue import QueuedRequest
from fal_server.live.events import ChangeNotifier
from fal_server.services.webhooks import Webhooks

log = logging.getLogger(__name__)
_AT_ONCE = 20
_LOOK_SECONDS = 1.0


class WebhookSender:
    """Deliver due webhooks, several at once, so that a slow receiver holds up nobody else.

    Args:
        due: notified whenever there is one more webhook to deliver.
    """

    def __init__(self, webhooks: Webhooks, due: ChangeNotifier) -> None:
        self._webhooks = webhooks
        self._due = due
        self._delivering: set[str] = set()
        self._tasks = TaskSet(log)

    async def run(self, stopping: asyncio.Event) -> None:
        """Deliver until `stopping` is set; the next controller repeats the deliveries that this cuts off."""
        self._tasks.spawn(Rounds("webhooks", self._deliver_due).run(self._due))
        await stopping.wait()
        await self._tasks.close()

    async def _deliver_due(self) -> float | None:
        """Start the deliveries that are due; return the seconds until there is more to do, or None."""
        due = [r for r in await self._webhooks.due(2 * _AT_ONCE) if r.request_id not in self._delivering]
        for request in due[: _AT_ONCE - len(self._delivering)]:
            self._delivering.add(request.request_id)
            self._tasks.spawn(self._deliver(request), name=f"webhook of request {request.request_id}")
        if self._delivering:
            return _LOOK_SECONDS
        return await self._webhooks.seconds_to_next()

    async def _deliver(self, request: QueuedRequest) -> None:
        try:
            delivery = await self._webhooks.deliver(request)
            if delivery.error is not None:
                log.info("webhook of request %s, try %d: %s", request.request_id, delivery.number, delivery.error)
        except Fault as fault:
            log.warning("the webhook of request %s cannot be handled yet: %s", request.request_id, fault.message)
        finally:
            self._delivering.discard(request.request_id)
