"""Log drains: cursors, unread lines, and lost lines."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fal_server.core.drains import DrainFormat, LogDrain, Unsent
from fal_server.core.identity import EVERY_ACCOUNT, LOCAL, AccountId
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.store import AesVault, open_store
from tests.fakes.history import NOON

OTHER = AccountId("other")
SECOND = timedelta(seconds=1)


def drain(name="d", **changes) -> LogDrain:
    usual = LogDrain(
        account=LOCAL,
        drain_id=f"id of {name}",
        name=name,
        shown_url="https://example.test/",
        format=DrainFormat.NDJSON,
        created_at=NOON,
        since=NOON,
        sealed=b"sealed",
    )
    return replace(usual, **changes)


def line(sequence, runner="r1", after=0, level=LogLevel.INFO, app="a", account=LOCAL, message="text") -> LogEntry:
    return LogEntry(
        runner_id=runner,
        sequence=sequence,
        timestamp=NOON + after * SECOND,
        level=level,
        source=LogSource.STDOUT,
        message=message,
        account=account,
        app_name=app,
        revision_id="v",
    )


async def read_all(store, chosen, most_lines=1000, most_bytes=10**6):
    """Return the batches of a drain up to the last one. Each moves the cursor."""
    behind = await store.drains.behind(chosen)
    batches = []
    while behind:
        batch = await store.drains.next_batch(chosen, behind, {}, most_lines, most_bytes)
        assert batch.reached or behind - batch.left
        await store.drains.advance(chosen.drain_id, batch.reached, len(batch.entries), NOON)
        batches.append(list(batch.entries))
        behind = batch.left
    return batches


async def test_a_drain_is_kept_and_found_by_its_account_alone(store):
    kept = drain(apps=("a", "b"), least_level=LogLevel.WARNING, header_names=("x",), signed=True, paused=True)
    assert await store.drains.add(kept)
    assert not await store.drains.add(replace(kept, drain_id="second"))
    assert await store.drains.add(replace(kept, drain_id="others", account=OTHER))
    assert await store.drains.get(LOCAL, "d") == kept
    assert await store.drains.list(LOCAL) == [kept]
    assert len(await store.drains.list(EVERY_ACCOUNT)) == 2
    assert not await store.drains.pause(LOCAL, "none", False)
    assert await store.drains.pause(LOCAL, "d", False)
    assert await store.drains.get(LOCAL, "d") == replace(kept, paused=False)
    assert (await store.drains.get(OTHER, "d")).paused
    assert await store.drains.delete(LOCAL, "d")
    assert not await store.drains.delete(LOCAL, "d")
    assert len(await store.drains.list(EVERY_ACCOUNT)) == 1


async def test_what_became_of_deliveries_is_kept(store):
    await store.drains.add(drain())
    await store.drains.fail("id of d", "the receiver answered 500", NOON)
    failed = await store.drains.get(LOCAL, "d")
    assert (failed.last_error, failed.last_error_at) == ("the receiver answered 500", NOON)
    await store.drains.advance("id of d", {"r1": 3}, 2, NOON + SECOND)
    sent = await store.drains.get(LOCAL, "d")
    assert (sent.sent_lines, sent.last_sent_at, sent.last_error, sent.last_error_at) == (2, NOON + SECOND, None, None)
    await store.drains.advance("id of d", {"r1": 5}, 0, None)
    assert await store.drains.get(LOCAL, "d") == sent
    await store.drains.advance("gone", {"r1": 5}, 1, NOON)
    await store.drains.fail("gone", "error", NOON)


async def test_the_cursor_is_of_one_drain(store):
    first, second = drain("first"), drain("second", apps=("b",))
    await store.drains.add(first)
    await store.drains.add(second)
    await store.logs.append([line(1), line(2), line(1, "r2", app="b"), line(1, "r3", account=OTHER)])
    assert await store.drains.behind(first) == {"r1", "r2"}
    assert await store.drains.behind(second) == {"r2"}
    await store.drains.advance(first.drain_id, {"r1": 2, "r2": 1}, 3, NOON)
    assert await store.drains.behind(first) == frozenset()
    assert await store.drains.behind(second) == {"r2"}
    await store.logs.append([line(3)])
    assert await store.drains.behind(first) == {"r1"}
    assert [entry.sequence for [entry] in await read_all(store, first)] == [3]


async def test_a_drain_begins_at_its_time(store):
    chosen = drain()
    await store.drains.add(chosen)
    await store.logs.append([line(1, after=-2), line(2, after=-1), line(3, after=1)])
    assert [[entry.sequence for entry in batch] for batch in await read_all(store, chosen)] == [[3]]


async def test_the_level_chooses_and_the_cursor_passes_the_rest(store):
    chosen = drain(least_level=LogLevel.WARNING)
    await store.drains.add(chosen)
    levels = [LogLevel.INFO, LogLevel.WARNING, LogLevel.DEBUG, LogLevel.ERROR, LogLevel.INFO]
    await store.logs.append([line(n, level=level) for n, level in enumerate(levels, 1)])
    assert await store.drains.unsent(chosen, {"r1"}) == Unsent(lines=2, oldest_at=NOON)
    [batch] = await read_all(store, chosen)
    assert [entry.sequence for entry in batch] == [2, 4]
    assert await store.drains.behind(chosen) == frozenset()
    assert await store.drains.unsent(chosen, {"r1"}) == Unsent()


async def test_a_batch_is_bounded_by_bytes(store):
    chosen = drain()
    await store.drains.add(chosen)
    await store.logs.append([line(n, message="x" * 400) for n in range(1, 6)])
    batches = await read_all(store, chosen, most_bytes=1000)
    assert [[entry.sequence for entry in batch] for batch in batches] == [[1, 2], [3, 4], [5]]
    await store.logs.append([line(6, message="x" * 5000)])
    assert [[entry.sequence for entry in batch] for batch in await read_all(store, chosen, most_bytes=1000)] == [[6]]


times = st.lists(st.integers(0, 20), max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runners=st.dictionaries(st.sampled_from(["r1", "r2", "r3"]), times), most=st.integers(1, 20))
async def test_every_line_comes_once_in_the_order_of_its_runner(runners, most):
    store = await open_store(None, AesVault(bytes(range(32))))
    try:
        chosen = drain()
        await store.drains.add(chosen)
        lines = [line(n, runner, at) for runner, ats in runners.items() for n, at in enumerate(ats, 1)]
        await store.logs.append(lines)
        sent = [entry for batch in await read_all(store, chosen, most) for entry in batch]
        assert len(sent) == len(lines)
        for runner, ats in runners.items():
            assert [entry.sequence for entry in sent if entry.runner_id == runner] == list(range(1, len(ats) + 1))
        if all(ats == sorted(ats) for ats in runners.values()):
            assert [entry.timestamp for entry in sent] == sorted(entry.timestamp for entry in lines)
    finally:
        await store.close()


@pytest.mark.parametrize("by_age", [True, False])
async def test_lines_that_are_deleted_unsent_are_counted(store, by_age):
    every, errors, others = drain("every"), drain("errors", least_level=LogLevel.ERROR), drain("others", account=OTHER)
    late, of_b = drain("late", since=NOON + 100 * SECOND), drain("of-b", apps=("b",))
    for one in (every, errors, others, late, of_b):
        await store.drains.add(one)
    levels = [LogLevel.INFO, LogLevel.ERROR, LogLevel.INFO, LogLevel.ERROR]
    await store.logs.append([line(n, after=n, level=level) for n, level in enumerate(levels, 1)])
    await store.drains.advance(every.drain_id, {"r1": 1}, 1, NOON)
    if by_age:
        assert await store.logs.forget(NOON + 4 * SECOND) == 3
    else:
        assert await store.logs.shrink(404 * 2, 404) == 3
    lost = {one.name: one.lost_lines for one in await store.drains.list(EVERY_ACCOUNT)}
    assert lost == {"every": 2, "errors": 1, "others": 0, "late": 0, "of-b": 0}
    assert await store.drains.unsent(every, {"r1"}) == Unsent(lines=1, oldest_at=NOON + 4 * SECOND)


async def test_the_cursor_of_a_runner_without_lines_is_forgotten(store):
    chosen = drain()
    await store.drains.add(chosen)
    await store.logs.append([line(1), line(2), line(1, "r2", after=10)])
    await read_all(store, chosen)
    assert await store.logs.forget(NOON + SECOND) == 2

    async def positions(connection):
        from sqlalchemy import select

        from fal_server.store.sql.tables import DRAIN_POSITIONS

        return set((await connection.execute(select(DRAIN_POSITIONS.c.runner_id))).scalars())

    assert await store.accounts._database.read(positions) == {"r2"}
    await store.logs.append([line(3, after=11)])
    assert [[entry.sequence for entry in batch] for batch in await read_all(store, chosen)] == [[3]]
