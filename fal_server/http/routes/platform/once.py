"""Requests with an Idempotency-Key. They take effect once however often a client repeats them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from starlette.requests import Request

from fal_server.core.faults import UnusableIdempotencyKey
from fal_server.core.identity import Principal
from fal_server.ports import Clock

_MOST = 10_000
_LONGEST = 256


class Once:
    """Remembers for a while which requests were carried out.

    Args:
        life: how long.
    """

    def __init__(self, clock: Clock, life: timedelta) -> None:
        self._clock = clock
        self._life = life
        self._done: OrderedDict[tuple[str, str, str], datetime] = OrderedDict()
        self._running: dict[tuple[str, str, str], asyncio.Lock] = {}

    @asynccontextmanager
    async def first(self, request: Request, caller: Principal, what: str) -> AsyncGenerator[bool]:
        """Yield whether to carry out a request. If it fails, it may be repeated.

        Raises:
            UnusableIdempotencyKey: the key is empty or too long.
        """
        text = request.headers.get("idempotency-key")
        if text is None:
            yield True
            return
        if not 1 <= len(text) <= _LONGEST:
            raise UnusableIdempotencyKey(f"the Idempotency-Key has {len(text)} characters: give 1 to {_LONGEST}")
        key = (caller.scope.account, what, text)
        lock = self._running.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                done_at = self._done.get(key)
                first = done_at is None or done_at < self._clock.now() - self._life
                yield first
                if first:
                    self._done[key] = self._clock.now()
                    self._done.move_to_end(key)
                    if len(self._done) > _MOST:
                        self._done.popitem(last=False)
        finally:
            if not lock.locked():
                self._running.pop(key, None)
