"""Stores inputs and outputs of direct requests, and returns them. The controller must be asked to keep them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from fal_server.core.faults import Fault
from fal_server.core.identity import AccountId
from fal_server.core.payloads import EndedPayload, KeptPayload, redacted
from fal_server.core.requests import in_sample
from fal_server.live.ended_payloads import EndedPayloads
from fal_server.ports import Clock
from fal_server.ports.requests import RequestStore

log = logging.getLogger(__name__)
# Sealing is done on the event loop, where requests wait for it.
_MOST_AT_ONCE = 20


class RequestPayloads:
    """Stores what waits in `ended`, and finds what is stored.

    Args:
        ended: receives payloads at the ends of their requests; None if none are to be kept from now on.
        share: the share of successful requests that are listed, 0 to 1. No other's payload is stored.
        monotonic: the clock of `EndedPayload`.

    Attributes:
        lost: how many requests' payloads were not stored, because of an error.
    """

    def __init__(
        self,
        ended: EndedPayloads | None,
        store: RequestStore,
        clock: Clock,
        share: float = 1.0,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ended = ended
        self._store = store
        self._clock = clock
        self._share = share
        self._monotonic = monotonic
        self._storing = asyncio.Lock()
        self._told_dropped = 0
        self.lost = 0

    async def store(self) -> None:
        """Store the payloads of the requests that have ended so far."""
        if self._ended is None:
            return
        async with self._storing:
            taken = self._ended.take()
            for start in range(0, len(taken), _MOST_AT_ONCE):
                await self._store_some(taken[start : start + _MOST_AT_ONCE])
        if self._ended.dropped > self._told_dropped:
            log.warning(
                "the payloads of %d requests are not kept: they came faster than they could be stored",
                self._ended.dropped - self._told_dropped,
            )
            self._told_dropped = self._ended.dropped

    async def _store_some(self, taken: Sequence[EndedPayload]) -> None:
        try:
            # Parsing does not run on the event loop, where requests would wait for it.
            payloads = await asyncio.to_thread(self._kept, taken, self._clock.now(), self._monotonic())
            if payloads:
                await self._store.add_payloads(payloads)
        except Fault as error:
            self.lost += len(taken)
            log.warning("the payloads of %d requests are not kept: %s", len(taken), error.message)
        except Exception:
            self.lost += len(taken)
            log.exception("the payloads of %d requests are not kept", len(taken))  # their rows are, all the same

    def _kept(self, taken: Sequence[EndedPayload], at: datetime, now: float) -> list[KeptPayload]:
        found = (
            KeptPayload(
                account=each.account,
                request_id=each.request_id,
                ended_at=at - timedelta(seconds=now - each.ended),
                input=redacted(each.input),
                output=redacted(each.output),
            )
            for each in taken
            if not each.succeeded or in_sample(each.request_id, self._share)
        )
        return [payload for payload in found if payload.input is not None or payload.output is not None]

    async def get(self, account: AccountId, request_id: str) -> KeptPayload | None:
        """Return what a direct request sent and got. None if nothing of it is kept."""
        return await self._store.payload(account, request_id)
