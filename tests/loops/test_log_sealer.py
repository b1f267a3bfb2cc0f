"""The loop that seals lines leaves most of the time to requests."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import NamedTuple, cast

from fal_server.loops.log_sealer import LogSealer
from fal_server.ports import LogStore


class Clock:
    def now(self):
        return datetime(2026, 1, 1, tzinfo=UTC)

    wall = now


class Round(NamedTuple):
    begin: float
    end: float


class Store:
    """Has lines for some rounds, and then wants the loop to stop."""

    def __init__(self, rounds):
        self.left = rounds
        self.rounds = []
        self.stopping = asyncio.Event()

    async def seal(self, before, most):
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.to_thread(sum, range(300_000))
        self.rounds.append(Round(begin, loop.time()))
        self.left -= 1
        if not self.left:
            self.stopping.set()
        return most


async def test_pauses_are_longer_than_the_work():
    store = Store(4)
    async with asyncio.timeout(60):
        await LogSealer(cast("LogStore", store), Clock()).run(store.stopping)
    assert len(store.rounds) == 4
    for one, following in zip(store.rounds, store.rounds[1:], strict=False):
        assert following.begin - one.end >= 2 * (one.end - one.begin) * 0.9, "clocks differ a little"
