"""Delivers webhooks when they are due."""

from __future__ import annotations

import asyncio
import logging
from typing import Generic, TypeVar

from fal_server.aio.rounds import Rounds
from fal_server.aio.tasks import TaskSet
from fal_server.core.faults import Fault
from fal_server.live.events import ChangeNotifier
from fal_server.services.webhooks import Completed, Deliveries

log = logging.getLogger(__name__)
_AT_ONCE = 20
_LOOK_SECONDS = 1.0

T = TypeVar("T", bound=Completed)


class WebhookSender(Generic[T]):
    """Delivers due webhooks, several at once. A slow receiver delays no others.

    Args:
        due: notified whenever there is one more webhook to deliver.
    """

    def __init__(self, webhooks: Deliveries[T], due: ChangeNotifier) -> None:
        self._webhooks = webhooks
        self._due = due
        self._delivering: set[str] = set()
        self._tasks = TaskSet(log)

    async def run(self, stopping: asyncio.Event) -> None:
        """Deliver until `stopping` is set. The next controller repeats the deliveries that this interrupts."""
        self._tasks.spawn(Rounds("webhooks", self._deliver_due).run(self._due))
        await stopping.wait()
        await self._tasks.close()

    async def _deliver_due(self) -> float | None:
        """Start the due deliveries. Return the seconds until more is due, or None."""
        # Deliveries that end during the search are not reflected in its result, so leave out their requests, too.
        delivering = frozenset(self._delivering)
        found = await self._webhooks.due(2 * _AT_ONCE)
        due = [item for item in found if self._webhooks.id_of(item) not in delivering]
        for item in due[: _AT_ONCE - len(self._delivering)]:
            self._delivering.add(self._webhooks.id_of(item))
            self._tasks.spawn(self._deliver(item), name=f"webhook of request {self._webhooks.id_of(item)}")
        if self._delivering:
            return _LOOK_SECONDS
        return await self._webhooks.seconds_to_next()

    async def _deliver(self, item: T) -> None:
        request_id = self._webhooks.id_of(item)
        try:
            delivery = await self._webhooks.deliver(item)
            if delivery.error is not None:
                log.info("webhook of request %s, try %d: %s", request_id, delivery.number, delivery.error)
        except Fault as fault:
            log.warning("the webhook of request %s cannot be handled yet: %s", request_id, fault.message)
        finally:
            self._delivering.discard(request_id)
