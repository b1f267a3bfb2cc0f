"""A webhook is not delivered again at once after its delivery. The delivery may end during a search for due ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from fal_server.core.webhooks import Delivery
from fal_server.live.events import ChangeNotifier
from fal_server.loops.webhooks import WebhookSender


class Receiver:
    """One webhook that is due until its delivery is stored. The test controls how long its searches last."""

    def __init__(self) -> None:
        self.tries = 0
        self.answered = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.searches = 0

    async def due(self, limit: int) -> Sequence[str]:
        found = [] if self.tries and self.answered.is_set() else ["a"]
        self.searches += 1
        await self.goes_on.wait()
        return found

    async def seconds_to_next(self) -> float | None:
        return None

    async def deliver(self, item: str) -> Delivery:
        self.tries += 1
        await self.answered.wait()
        return Delivery(request_id=item, number=self.tries, at=datetime.now(UTC), status=500, error="it failed")

    def id_of(self, item: str) -> str:
        return item


@asynccontextmanager
async def sending(receiver: Any, due: ChangeNotifier) -> AsyncGenerator[WebhookSender[Any]]:
    """Run a sender."""
    stopping = asyncio.Event()
    sender = WebhookSender[Any](receiver, due)
    running = asyncio.create_task(sender.run(stopping))
    try:
        yield sender
    finally:
        stopping.set()
        await running


async def until(true: Any) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - the fakes notify nobody
            await asyncio.sleep(0)


async def test_a_delivery_that_ends_during_a_search_is_not_repeated() -> None:
    receiver, due = Receiver(), ChangeNotifier()
    async with sending(receiver, due) as sender:
        await until(lambda: receiver.tries == 1)
        receiver.goes_on.clear()
        searches = receiver.searches
        due.notify()
        await until(lambda: receiver.searches == searches + 1)  # it found the webhook as due
        receiver.answered.set()
        await until(lambda: not sender._delivering)  # and its failed attempt is stored before the search ends
        receiver.goes_on.set()
        due.notify()
        await until(lambda: receiver.searches > searches + 1)
        assert receiver.tries == 1
        assert not sender._delivering
