"""Grouped transactions: their members, acknowledgements, and the effect of failures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.aio.tasks import TaskSet
from fal_server.store.sql.writes import GroupedWrites, Work, run_each

HANG_SECONDS = 20


class Ledger:
    """A database of numbers, to which a transaction may add one.

    Attributes:
        groups: the number of parts of each transaction.
        started: set by the first transaction.
        held: transactions wait for this before they commit.
        broken: the errors of the next commits.
    """

    def __init__(self) -> None:
        self.stored: list[int] = []
        self.pending: list[int] = []
        self.groups: list[int] = []
        self.started = asyncio.Event()
        self.held = asyncio.Event()
        self.held.set()
        self.broken: list[Exception] = []

    async def transact(self, works: Sequence[Work[object]]) -> Sequence[object]:
        self.groups.append(len(works))
        self.started.set()
        self.pending = []
        results = await run_each(works, cast("Any", self))
        await self.held.wait()
        if self.broken:
            raise self.broken.pop()
        self.stored += self.pending
        return results


def adding(number: int, error: Exception | None = None) -> Work[int]:
    async def work(connection: Any) -> int:
        connection.pending.append(number)
        if error is not None:
            raise error
        return number

    return work


async def test_what_comes_meanwhile_shares_the_next_transaction_and_is_told_after_it() -> None:
    ledger = Ledger()
    writes = GroupedWrites(ledger.transact, TaskSet(None))
    ledger.held.clear()
    first = asyncio.ensure_future(writes.run(adding(0)))
    async with asyncio.timeout(HANG_SECONDS):
        await ledger.started.wait()
        others = [asyncio.ensure_future(writes.run(adding(number))) for number in range(1, 251)]
        for _ in range(3):
            await asyncio.sleep(0)
        assert not first.done()
        assert not ledger.stored
        ledger.held.set()
        assert await asyncio.gather(first, *others) == list(range(251))
    assert ledger.stored == list(range(251)), "in the order in which they came"
    assert ledger.groups == [1, 100, 100, 50]


@given(st.lists(st.booleans(), max_size=12))
def test_a_failure_refuses_only_its_own_part(fails: list[bool]) -> None:
    async def play() -> None:
        ledger = Ledger()
        writes = GroupedWrites(ledger.transact, TaskSet(None))
        parts = [adding(number, ValueError(number) if bad else None) for number, bad in enumerate(fails)]
        results = await asyncio.gather(*map(writes.run, parts), return_exceptions=True)
        assert ledger.stored == [number for number, bad in enumerate(fails) if not bad]
        for number, (result, bad) in enumerate(zip(results, fails, strict=True)):
            assert result == number if not bad else (isinstance(result, ValueError) and result.args == (number,))

    asyncio.run(play())


async def test_nothing_is_written_again_if_it_is_not_known_whether_it_was() -> None:
    ledger = Ledger()
    writes = GroupedWrites(ledger.transact, TaskSet(None))
    ledger.broken.append(OSError("the disk is gone"))
    results = await asyncio.gather(*(writes.run(adding(number)) for number in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3
    assert ledger.groups == [3]
    assert await writes.run(adding(7)) == 7


async def test_a_caller_who_leaves_does_not_stop_the_others() -> None:
    ledger = Ledger()
    writes = GroupedWrites(ledger.transact, TaskSet(None))
    leaving, staying = (asyncio.ensure_future(writes.run(adding(number))) for number in (1, 2))
    await asyncio.sleep(0)
    leaving.cancel()
    async with asyncio.timeout(HANG_SECONDS):
        assert await staying == 2
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert ledger.stored == [1, 2]
