"""Following logs gives every line once. Faults between store and stream change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument, NotFound, ResourceExhausted
from fal_server.core.identity import LOCAL, AccountId, Accounts
from fal_server.core.logs import LogEntry, LogLevel, LogPage, LogQuery, LogSource
from fal_server.core.runners import Runner, RunnerState
from fal_server.ports import LogStore
from fal_server.services import following
from fal_server.services.logs import LogBatch, Logs
from fal_server.store import AesVault, SqlStore, open_store
from tests.fakes.domain import SCOPE

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL = LogQuery(app_name="hello")


class Clock:
    def now(self) -> datetime:
        return NOON

    def wall(self) -> datetime:
        return self.now()


def line(runner_id: str, sequence: int, after: float | None = None, message: str = "") -> LogEntry:
    """Return a line, `after` seconds after noon."""
    return LogEntry(
        account=LOCAL,
        runner_id=runner_id,
        sequence=sequence,
        timestamp=NOON + timedelta(seconds=sequence if after is None else after),
        level=LogLevel.INFO,
        source=LogSource.STDOUT,
        message=message or f"{runner_id} {sequence}",
        app_name="hello",
        revision_id="rev",
    )


def runner(state: RunnerState = RunnerState.IDLE) -> Runner:
    return Runner(
        account=LOCAL,
        runner_id="a",
        app_name="hello",
        environment="main",
        revision_id="rev",
        machine_type="XS",
        token="t",
        created_at=NOON,
        state=state,
    )


@pytest.fixture
async def store() -> AsyncIterator[SqlStore]:
    store = await open_store(None, AesVault(bytes(32)))
    yield store
    await store.close()


@pytest.fixture
def logs(store: SqlStore) -> Logs:
    return Logs(store.logs, store, Clock())


async def collected(logs: Logs, count: int, query: LogQuery = ALL, cursor: str | None = None) -> list[LogEntry]:
    """Return the first lines of a stream."""
    found: list[LogEntry] = []
    async with asyncio.timeout(30), aclosing(logs.follow(SCOPE, query, cursor)) as batches:
        if count == 0:
            return found
        async for batch in batches:
            found += batch.entries
            if len(found) >= count:
                break
    return found


def keys(entries: Sequence[LogEntry]) -> list[tuple[str, int]]:
    return [(entry.runner_id, entry.sequence) for entry in entries]


class Interrupted:
    """A log store that calls the test at each read and write."""

    def __init__(self, inner: LogStore, *, before_page=None, after_page=None, before_append=None) -> None:
        self._inner = inner
        self._before_page, self._after_page, self._before_append = before_page, after_page, before_append

    async def append(self, entries: Sequence[LogEntry]) -> None:
        if self._before_append is not None:
            await self._before_append()
        await self._inner.append(entries)

    async def page(self, account: AccountId, query: LogQuery) -> LogPage:
        if self._before_page is not None:
            await self._before_page()
        page = await self._inner.page(account, query)
        if self._after_page is not None:
            await self._after_page()
        return page

    async def last_sequence(self, account: Accounts, runner_id: str) -> int:
        return await self._inner.last_sequence(account, runner_id)

    async def first_unsent(
        self, account: AccountId, app_name: str, sent: Mapping[str, int], since: datetime | None
    ) -> datetime | None:
        return await self._inner.first_unsent(account, app_name, sent, since)

    async def forget(self, before: datetime) -> int:
        return await self._inner.forget(before)

    async def seal(self, before: datetime, most: int) -> int:
        return await self._inner.seal(before, most)

    def bound(self, most_bytes: int, passed: Callable[[], None]) -> None:
        self._inner.bound(most_bytes, passed)

    async def shrink(self, most_bytes: int, room_bytes: int = 0) -> int:
        return await self._inner.shrink(most_bytes, room_bytes)


async def test_stored_and_new_lines(logs: Logs) -> None:
    await logs.ingest([line("a", 1), line("a", 2)])
    reading = asyncio.create_task(collected(logs, 4))
    await logs.ingest([line("a", 3)])
    await logs.ingest([line("a", 4)])
    assert keys(await reading) == [("a", n) for n in (1, 2, 3, 4)]


async def test_a_repeated_batch_arrives_once(logs: Logs) -> None:
    await logs.ingest([line("a", 1)])
    async with asyncio.timeout(30), aclosing(logs.follow(SCOPE, ALL)) as batches:
        assert keys((await anext(batches)).entries) == [("a", 1)]
        await logs.ingest([line("a", 1), line("a", 2)])
        await logs.ingest([line("a", 1), line("a", 2), line("a", 3)])
        assert keys((await anext(batches)).entries) == [("a", 2), ("a", 3)]


async def test_many_followers_get_each_line_and_calls_run_in_between(logs: Logs) -> None:
    """Nobody waits until all followers of a line have had their turn."""
    await logs.ingest([line("a", 1)])
    told, done = [asyncio.Event() for _ in range(101)], 0

    async def follow(opened: asyncio.Event) -> list[tuple[str, int]]:
        nonlocal done
        found: list[LogEntry] = []
        async with aclosing(logs.follow(SCOPE, ALL)) as batches:
            async for batch in batches:
                found += batch.entries
                opened.set()
                if len(found) == 3:
                    done += 1
                    break
        return keys(found)

    following_all = [asyncio.create_task(follow(opened)) for opened in told]
    for opened in told:
        await opened.wait()
    await logs.ingest([line("a", 2)])
    storing = asyncio.create_task(logs.ingest([line("a", 3)]))
    seen: set[int] = set()
    while not storing.done():
        await asyncio.sleep(0)
        seen.add(done)
    assert await asyncio.gather(*following_all) == [[("a", n) for n in (1, 2, 3)]] * 101
    assert len(seen) > 2


async def test_deleted_lines_cause_no_gap_and_no_repetition(logs: Logs, store: SqlStore) -> None:
    """Retention deletes lines while a log is followed, and between two streams."""
    await logs.ingest([line("a", 1), line("a", 2)])
    async with asyncio.timeout(30), aclosing(logs.follow(SCOPE, ALL)) as batches:
        first = await anext(batches)
        assert await store.logs.forget(NOON + timedelta(days=1)) == 2
        await logs.ingest([line("a", 3)])
        assert keys((await anext(batches)).entries) == [("a", 3)]
    assert await store.logs.forget(NOON + timedelta(days=1)) == 1
    await logs.ingest([line("a", 4)])
    assert keys(await collected(logs, 1, cursor=first.cursor)) == [("a", 4)]


async def test_a_late_line_arrives_too(logs: Logs) -> None:
    """Runners send independently. An older line of one may arrive after a newer one of another."""
    await logs.ingest([line("a", 1, after=10)])
    async with asyncio.timeout(30), aclosing(logs.follow(SCOPE, ALL)) as batches:
        assert keys((await anext(batches)).entries) == [("a", 1)]
        await logs.ingest([line("b", 1, after=5)])
        late = await anext(batches)
        assert keys(late.entries) == [("b", 1)]
    # Also if the stream is cut off and lines arrive in between.
    await logs.ingest([line("c", 1, after=2), line("a", 2, after=11)])
    assert keys(await collected(logs, 2, cursor=late.cursor)) == [("c", 1), ("a", 2)]


@pytest.mark.parametrize("when", ["before_page", "after_page"])
async def test_a_line_that_arrives_while_history_is_read(store: SqlStore, when: str) -> None:
    arrived = False

    async def arrive() -> None:
        nonlocal arrived
        if not arrived:
            arrived = True
            await logs.ingest([line("b", 1, after=0.5), line("a", 3)])

    interrupted = Interrupted(store.logs, **{when: arrive})
    logs = Logs(interrupted, store, Clock())
    await store.logs.append([line("a", 1), line("a", 2)])
    await store.save_runners([runner()])
    # Apps and runners are looked up separately, so the app must already exist.
    found = await collected(logs, 3, LogQuery(runner_id="a"))
    assert keys(found) == [("a", 1), ("a", 2), ("a", 3)]


async def test_a_follower_that_joins_while_a_batch_is_stored(store: SqlStore) -> None:
    storing, go_on = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        storing.set()
        await go_on.wait()

    await store.save_runners([runner()])
    logs = Logs(Interrupted(store.logs, before_append=pause), store, Clock())
    ingest = asyncio.create_task(logs.ingest([line("a", 1)]))
    await storing.wait()
    reading = asyncio.create_task(collected(logs, 1, LogQuery(runner_id="a")))
    await asyncio.sleep(0)
    go_on.set()
    await ingest
    assert keys(await reading) == [("a", 1)]


async def test_too_many_waiting_lines_are_read_from_the_store(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_MOST_WAITING", 5)
    await logs.ingest([line("a", 1)])
    async with asyncio.timeout(30), aclosing(logs.follow(SCOPE, ALL)) as batches:
        found = list((await anext(batches)).entries)
        for first in range(2, 40, 3):
            await logs.ingest([line("a", n) for n in range(first, first + 3)])
        while len(found) < 40:
            found += (await anext(batches)).entries
    assert keys(found) == [("a", n) for n in range(1, 41)]


async def test_a_write_with_an_unknown_result(store: SqlStore) -> None:
    """The lines are stored and then the call fails. It is as if it were cancelled in between."""

    class Broken(Interrupted):
        async def append(self, entries: Sequence[LogEntry]) -> None:
            await super().append(entries)
            if entries[0].sequence == 2:
                raise OSError("cut off")

    logs = Logs(Broken(store.logs), store, Clock())
    await logs.ingest([line("a", 1)])
    async with asyncio.timeout(30), aclosing(logs.follow(SCOPE, ALL)) as batches:
        assert keys((await anext(batches)).entries) == [("a", 1)]
        with pytest.raises(OSError, match="cut off"):
            await logs.ingest([line("a", 2)])
        await logs.ingest([line("a", 3)])
        found: list[LogEntry] = []
        while len(found) < 2:
            found += (await anext(batches)).entries
    assert sorted(keys(found)) == [("a", 2), ("a", 3)]


async def test_the_stream_of_an_ended_runner_ends(logs: Logs, store: SqlStore) -> None:
    await store.save_runners([runner(RunnerState.TERMINATED)])
    await logs.ingest([line("a", 1)])
    batches = [batch async for batch in logs.follow(SCOPE, LogQuery(runner_id="a"))]
    assert [keys(batch.entries) for batch in batches] == [[("a", 1)], []]
    assert [batch.last for batch in batches] == [False, True]
    assert batches[-1].runner == runner(RunnerState.TERMINATED)


async def test_the_stream_ends_after_the_last_line(logs: Logs, store: SqlStore) -> None:
    await store.save_runners([runner()])
    found: list[LogBatch] = []

    async def follow() -> None:
        found.extend([batch async for batch in logs.follow(SCOPE, LogQuery(runner_id="a"))])

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(follow())
        for number in range(1, 6):
            await logs.ingest([line("a", number)])
        await store.save_runners([runner(RunnerState.TERMINATED)])
        logs.runner_ended(runner(RunnerState.TERMINATED))
    assert keys([entry for batch in found for entry in batch.entries]) == [("a", n) for n in range(1, 6)]
    assert found[-1].last


async def test_a_runner_with_only_lines_left(logs: Logs) -> None:
    await logs.ingest([line("a", 1)])
    batches = [batch async for batch in logs.follow(SCOPE, LogQuery(runner_id="a"))]
    assert (batches[-1].last, batches[-1].runner) == (True, None)


async def test_a_silent_stream_gives_signs_of_life_and_sees_what_others_stored(store: SqlStore) -> None:
    await store.logs.append([line("a", 1)])
    logs = Logs(store.logs, store, Clock(), sign_of_life_seconds=0.01)
    async with asyncio.timeout(30), aclosing(logs.follow(SCOPE, ALL)) as batches:
        assert keys((await anext(batches)).entries) == [("a", 1)]
        assert (await anext(batches)).entries == ()
        await store.logs.append([line("a", 2)])  # another controller
        found: list[LogEntry] = []
        while not found:
            found += (await anext(batches)).entries
    assert keys(found) == [("a", 2)]


async def test_only_requested_lines_are_followed(logs: Logs) -> None:
    await logs.ingest([line("a", 1, message="One Apple")])
    query = replace(ALL, search="apple", since=NOON + timedelta(seconds=1))
    async with asyncio.timeout(30), aclosing(logs.follow(SCOPE, query)) as batches:
        assert keys((await anext(batches)).entries) == [("a", 1)]
        await logs.ingest([line("a", 2, message="pear")])
        await logs.ingest([line("a", 3, after=0, message="apple, too old")])
        await logs.ingest([replace(line("x", 1, message="apple"), app_name="other")])
        await logs.ingest([line("a", 4, message="APPLE")])
        assert keys((await anext(batches)).entries) == [("a", 4)]


async def test_missing_runners_and_apps_cannot_be_followed(logs: Logs) -> None:
    for query, fault in (
        (LogQuery(runner_id="nobody"), NotFound),
        (LogQuery(app_name="nothing"), NotFound),
        (LogQuery(), InvalidArgument),
        (LogQuery(runner_id="no body"), InvalidArgument),
    ):
        with pytest.raises(fault):
            await anext(logs.follow(SCOPE, query))
        with pytest.raises(fault):
            await logs.page(SCOPE, query)


@pytest.mark.parametrize(
    "query", [LogQuery(runner_id="a", limit=0), LogQuery(runner_id="a", since=NOON, until=NOON - timedelta(seconds=1))]
)
async def test_invalid_limits(logs: Logs, query: LogQuery) -> None:
    await logs.ingest([line("a", 1)])
    with pytest.raises(InvalidArgument):
        await logs.page(SCOPE, query)


async def test_the_number_of_streams_is_limited(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fal_server.services.logs.MOST_FOLLOWERS", 1)
    await logs.ingest([line("a", 1)])
    async with aclosing(logs.follow(SCOPE, ALL)) as first:
        await anext(first)
        with pytest.raises(ResourceExhausted):
            await anext(logs.follow(SCOPE, ALL))
    assert keys(await collected(logs, 1)) == [("a", 1)]


async def test_a_cursor_keeps_the_runners_that_wrote_last(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_MOST_RUNNERS", 2)
    await logs.ingest([line(name, 1, after=at) for at, name in enumerate("abc")])
    async with asyncio.timeout(30), aclosing(logs.follow(SCOPE, ALL)) as batches:
        cursor = (await anext(batches)).cursor
    await logs.ingest([line("c", 2, after=-1000), line("new", 1, after=1), line("a", 2, after=3)])
    assert keys(await collected(logs, 3, cursor=cursor)) == [("c", 2), ("new", 1), ("a", 2)]


@settings(max_examples=60, deadline=None)
@example(arrivals=[("a", 1, 0), ("a", 1, 0), ("a", 1, 0), ("b", 4, 0)], batch=1, cuts=[3], before=0)
@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.integers(-20, 20)), min_size=1, max_size=12
    ),
    batch=st.integers(1, 7),
    cuts=st.lists(st.integers(1, 10), max_size=4),
    before=st.integers(0, 12),
)
async def test_every_line_arrives_once_through_any_cuts(
    arrivals: list[tuple[str, int, int]], batch: int, cuts: list[int], before: int
) -> None:
    """Two runners send batches, some late. A follower reads, is cut off, and resumes from its cursor."""
    store = await open_store(None, AesVault(bytes(32)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fal_server.services.logs._BATCH", batch)
        logs = Logs(store.logs, store, Clock())
        counts, latest = {"a": 0, "b": 0}, {"a": -1e9, "b": -1e9}
        pushes: list[list[LogEntry]] = []
        for turn, (runner_id, size, lateness) in enumerate(arrivals):
            numbers = range(counts[runner_id] + 1, counts[runner_id] + size + 1)
            # Times grow with numbers, but a batch may be minutes older than the other runner's last one.
            latest[runner_id] = max(latest[runner_id], counts[runner_id] + (lateness * 10 if turn % 2 else 0))
            pushes.append([line(runner_id, n, after=latest[runner_id] + n / 1000) for n in numbers])
            counts[runner_id] += size
        total = sum(counts.values())

        async def push(some: list[list[LogEntry]]) -> None:
            for entries in some:
                await logs.ingest(entries)
                await asyncio.sleep(0)

        await push(pushes[: max(1, before)])
        found: list[LogEntry] = []
        cursor: str | None = None
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(push(pushes[max(1, before) :]))
            for cut in [*cuts, 10_000]:
                stream = 0
                if len(found) >= total:
                    break
                async with aclosing(logs.follow(SCOPE, ALL, cursor)) as batches:
                    async for each in batches:
                        found += each.entries
                        cursor = each.cursor
                        stream += 1
                        if stream >= cut or len(found) >= total:
                            break
        for runner_id, count in counts.items():
            assert [n for runner, n in keys(found) if runner == runner_id] == list(range(1, count + 1))
    await store.close()
