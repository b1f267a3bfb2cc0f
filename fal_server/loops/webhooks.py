"""The loop that delivers webhooks when they are due."""

from __future__ import annotations

import asyncio
import logging

from fal_server.core.faults import Fault
from fal_server.core.queue import QueuedRequest
from fal_server.live.events import ChangeNotifier
from fal_server.services.webhooks import Webhooks

log = logging.getLogger(__name__)
_AT_ONCE = 20
_RETRY_SECONDS = 1.0


class WebhookSender:
    """Delivers what is due, some at once, so that a slow receiver holds up nobody else.

    Args:
        news: notified whenever there is one more to deliver.
    """

    def __init__(self, webhooks: Webhooks, news: ChangeNotifier) -> None:
        self._webhooks = webhooks
        self._news = news
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Deliver until `stopping` is set; what is under way then is delivered again by the next controller."""
        loop = asyncio.get_running_loop().create_task(self._run())
        await stopping.wait()
        tasks = [loop, *self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            seen = self._news.count
            try:
                wait_seconds = await self._deliver_due()
            except Fault as fault:
                log.warning("webhooks cannot be looked up yet: %s", fault.message)
                wait_seconds = _RETRY_SECONDS
            await self._news.wait(seen, wait_seconds)

    async def _deliver_due(self) -> float | None:
        """Begin what is due; seconds until there is more to do, None where only news brings it."""
        due = [r for r in await self._webhooks.due(2 * _AT_ONCE) if r.request_id not in self._under_way]
        for request in due[: _AT_ONCE - len(self._under_way)]:
            task = asyncio.get_running_loop().create_task(self._deliver(request))
            self._under_way[request.request_id] = task
        if self._under_way:
            return _RETRY_SECONDS
        return await self._webhooks.seconds_to_next()

    async def _deliver(self, request: QueuedRequest) -> None:
        try:
            delivery = await self._webhooks.deliver(request)
            if delivery.error is not None:
                log.info("webhook of request %s, try %d: %s", request.request_id, delivery.number, delivery.error)
        except Fault as fault:
            log.warning("the webhook of request %s cannot be handled yet: %s", request.request_id, fault.message)
        finally:
            del self._under_way[request.request_id]
