"""The promises of the LogStore port, method by method."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogQuery, LogSource
from tests.store import strategies as some


async def messages(store, **query):
    return [entry.message for entry in (await store.logs.page(LOCAL, LogQuery(**query))).entries]


async def walk(store, **query):
    """Return all pages of a query."""
    found, after = [], None
    while True:
        page = await store.logs.page(LOCAL, LogQuery(after=after, **query))
        found += page.entries
        after = page.cursor
        if not page.more:
            return found


async def test_a_line_is_kept_once(store):
    await store.logs.append([])
    await store.logs.append([some.line(1), some.line(2)])
    await store.logs.append([some.line(2, "other words"), some.line(3), some.line(3, "twice in a batch")])
    assert await messages(store, runner_id="a") == ["line 1", "line 2", "line 3"]


async def test_last_sequence(store):
    assert await store.logs.last_sequence(LOCAL, "a") == 0
    await store.logs.append([some.line(7), some.line(3), some.line(9, runner_id="b")])
    assert await store.logs.last_sequence(LOCAL, "a") == 7


async def test_lines_above_a_sequence(store):
    await store.logs.append([some.line(n) for n in range(1, 6)])
    assert await messages(store, runner_id="a", above=3) == ["line 4", "line 5"]
    assert await messages(store, runner_id="a", above=3, newest_first=True, limit=1) == ["line 5"]


async def test_the_oldest_line_that_is_not_known(store):
    assert await store.logs.first_unsent(LOCAL, "hello", {}, None) is None
    await store.logs.append([some.line(n, runner_id=name, at=at + n) for at, name in enumerate("abc") for n in (1, 2)])
    await store.logs.append([some.line(1, runner_id="other", at=0, app_name="other")])
    assert await store.logs.first_unsent(LOCAL, "hello", {}, None) == some.later(1)
    assert await store.logs.first_unsent(LOCAL, "hello", {}, some.later(2)) == some.later(2)
    assert await store.logs.first_unsent(LOCAL, "hello", {"a": 2}, None) == some.later(2)
    # For a runner in the cursor its position counts; for others the time does.
    assert await store.logs.first_unsent(LOCAL, "hello", {"a": 1}, some.later(50)) == some.later(2)
    assert await store.logs.first_unsent(LOCAL, "hello", {"a": 2, "b": 2, "c": 1}, None) == some.later(4)
    assert await store.logs.first_unsent(LOCAL, "hello", {"a": 2, "b": 2, "c": 2}, None) is None
    assert await store.logs.first_unsent(LOCAL, "hello", {"a": 2, "b": 2}, some.later(5)) is None


async def test_a_runner_is_ordered_by_sequence_an_app_by_time(store):
    await store.logs.append(
        [some.line(1, "a1", at=5), some.line(2, "a2", at=4), some.line(1, "b1", runner_id="b", at=4)]
    )
    assert await messages(store, runner_id="a") == ["a1", "a2"]
    assert await messages(store, runner_id="a", newest_first=True) == ["a2", "a1"]
    assert await messages(store, app_name="hello") == ["a2", "b1", "a1"]
    assert await messages(store, app_name="hello", newest_first=True) == ["a1", "b1", "a2"]
    assert await messages(store) == ["a2", "b1", "a1"]


async def test_restrictions(store):
    await store.logs.append(
        [
            some.line(1, "first"),
            some.line(2, "second", source=LogSource.STDERR, request_id="q"),
            some.line(3, "third", source=LogSource.SYSTEM),
            some.line(4, "other app", app_name="bye"),
        ]
    )
    assert await messages(store, since=some.later(2)) == ["second", "third", "other app"]
    assert await messages(store, until=some.later(2)) == ["first"]
    assert await messages(store, since=some.later(2), until=some.later(3), runner_id="a") == ["second"]
    assert await messages(store, sources=(LogSource.STDERR, LogSource.SYSTEM)) == ["second", "third"]
    assert await messages(store, request_id="q") == ["second"]
    assert await messages(store, app_name="bye") == ["other app"]
    assert await messages(store, runner_id="a", app_name="bye") == ["other app"]
    assert await messages(store, app_name="none") == []


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("50%", ["50% DONE"]),
        ("_x", ["a_x"]),
        ("done", ["50% DONE"]),
        ("STRAßE", ["Straße"]),
        ("ÉTÉ", ["été"]),
        ("\\", ["back\\slash"]),
        ("%", ["50% DONE"]),
        ("", ["50% DONE", "a_x", "Straße", "été", "back\\slash", "axx", "500 done!"[:3]]),
        ("a" * 100_000, []),
    ],
)
async def test_search_is_a_plain_substring(store, search, found):
    lines = ["50% DONE", "a_x", "Straße", "été", "back\\slash", "axx", "500"]
    await store.logs.append([some.line(number, text) for number, text in enumerate(lines, 1)])
    assert await messages(store, runner_id="a", search=search) == found


async def test_a_nul_comes_back_and_is_found(store):
    lines = ["a\0b", "\0", "\ufdd0", "\ufdd00", "\0\ufdd0\ufdd01"]
    await store.logs.append([some.line(number, text) for number, text in enumerate(lines, 1)])
    assert await messages(store, runner_id="a") == lines
    assert await messages(store, runner_id="a", search="A\0b") == ["a\0b"]
    assert await messages(store, runner_id="a", search="\ufdd0") == lines[2:]


async def test_half_a_surrogate_pair_does_not_cost_the_batch(store):
    await store.logs.append([some.line(1, "bad \udcff byte"), some.line(2)])
    assert await messages(store, runner_id="a") == ["bad ? byte", "line 2"]


async def test_pages_end(store):
    empty = await store.logs.page(LOCAL, LogQuery(runner_id="a"))
    assert (empty.entries, empty.more) == ((), False)
    await store.logs.append([some.line(n) for n in range(1, 4)])
    page = await store.logs.page(LOCAL, LogQuery(runner_id="a", limit=3, after=empty.cursor))
    assert (len(page.entries), page.more) == (3, False)
    end = await store.logs.page(LOCAL, LogQuery(runner_id="a", after=page.cursor))
    assert (end.entries, end.cursor, end.more) == ((), page.cursor, False)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    times=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=25),
    limit=st.integers(1, 7),
    newest_first=st.booleans(),
    by_app=st.booleans(),
)
async def test_pages_are_the_whole_once(store, times, limit, newest_first, by_app):
    name = uuid4().hex
    lines = [
        some.line(number, runner_id=f"{name}-{runner}", at=at, app_name=name)
        for number, (runner, at) in enumerate(times, 1)
    ]
    await store.logs.append(lines)
    if by_app:
        chosen = {"app_name": name}
        expected = sorted(lines, key=lambda e: (e.timestamp, e.runner_id, e.sequence), reverse=newest_first)
    else:
        chosen = {"runner_id": f"{name}-a"}
        mine = [entry for entry in lines if entry.runner_id == f"{name}-a"]
        expected = sorted(mine, key=lambda e: e.sequence, reverse=newest_first)
    assert await walk(store, limit=limit, newest_first=newest_first, **chosen) == expected


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.booleans()), max_size=25),
    limit=st.integers(1, 7),
    reads=st.integers(1, 9),
    newest_first=st.booleans(),
    by_app=st.booleans(),
)
async def test_a_search_in_steps_finds_the_same(store, lines, limit, reads, newest_first, by_app):
    name = uuid4().hex
    await store.logs.append(
        [
            some.line(number, runner_id=f"{name}-{runner}", at=at, app_name=name, message="needle" if hit else "hay")
            for number, (runner, at, hit) in enumerate(lines, 1)
        ]
    )
    chosen = {"app_name": name} if by_app else {"runner_id": f"{name}-a"}
    chosen |= {"search": "needle", "newest_first": newest_first}
    assert await walk(store, limit=limit, reads=reads, **chosen) == await walk(store, limit=100, **chosen)


async def test_a_step_of_a_search_reads_so_many_lines(store):
    await store.logs.append([some.line(n, message="hay") for n in range(1, 11)])
    first = await store.logs.page(LOCAL, LogQuery(app_name="hello", search="needle", newest_first=True, reads=4))
    assert (first.entries, first.more, first.reached) == ((), True, some.line(7).timestamp)
    rest = LogQuery(app_name="hello", search="needle", newest_first=True, reads=6, after=first.cursor)
    assert (await store.logs.page(LOCAL, replace(rest, reads=7))).more is False


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("chosen", [{"app_name": "hello"}, {"runner_id": "a"}])
@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_pages_keep_within_their_times(store, newest_first, chosen, limit):
    await store.logs.append([some.line(n, at=n // 3) for n in range(1, 16)])
    for since, until in ((1, 4), (None, 3), (2, None), (3, 3), (-9, 99), (50, 60), (-9, -5)):
        times = {"since": since and some.later(since), "until": until and some.later(until)}
        expected = [n for n in range(1, 16) if (since or -99) <= n // 3 < (until or 99)]
        found = await walk(store, limit=limit, newest_first=newest_first, **chosen, **times)
        assert [entry.sequence for entry in found] == (expected[::-1] if newest_first else expected)


async def test_cursors_stand_while_lines_come_and_go(store):
    await store.logs.append([some.line(n) for n in range(1, 6)])
    first = await store.logs.page(LOCAL, LogQuery(app_name="hello", limit=3))
    await store.logs.append([some.line(6), some.line(7, runner_id="b", at=2)])
    assert await store.logs.forget(some.later(4)) == 4
    rest = await store.logs.page(LOCAL, LogQuery(app_name="hello", after=first.cursor))
    assert [entry.sequence for entry in rest.entries] == [4, 5, 6]


@pytest.mark.parametrize(
    "cursor", ["x", "é", "bm90aGluZw", "W10", "WzEsMiwzXQ", "=", "W" * 50_000, "WzFlOTk5LCJhIiwxXQ"]
)
async def test_a_foreign_cursor_is_refused(store, cursor):
    with pytest.raises(InvalidArgument, match="not given out") as caught:
        await store.logs.page(LOCAL, LogQuery(runner_id="a", after=cursor))
    assert caught.value.field == "cursor"


@pytest.mark.parametrize("count", [1, 5, 300, 1000])
async def test_batches_of_any_size_are_kept_whole(store, count):
    lines = [some.line(n, f"nul \0 and \u2603 {n}") for n in range(1, count + 1)]
    await store.logs.append(lines[: count // 2])
    await store.logs.append(lines)
    assert await walk(store, runner_id="a") == lines


async def test_forget_more_than_a_batch(store):
    await store.logs.append([some.line(n, at=0) for n in range(1, 12_001)])
    await store.logs.append([some.line(12_001, at=1)])
    assert await store.logs.forget(some.later(0)) == 0
    assert await store.logs.forget(some.later(1)) == 12_000
    assert await messages(store) == ["line 12001"]


async def test_the_oldest_lines_go_when_the_logs_are_too_large(store):
    await store.logs.append([some.line(n, "x" * 600, at=n) for n in range(1, 12_001)])  # 1000 bytes each
    assert await store.logs.shrink(12_000_000) == 0
    assert await store.logs.shrink(11_999_500) == 1
    assert await store.logs.shrink(9_000) == 11_990
    page = await store.logs.page(LOCAL, LogQuery())
    assert [entry.sequence for entry in page.entries] == list(range(11_992, 12_001))
    assert await store.logs.shrink(0) == 9
    assert await store.logs.shrink(0) == 0


async def test_lines_that_pass_a_bound_are_told(store):
    told = []
    await store.logs.append([some.line(n, "x" * 600, at=n) for n in range(1, 6)])  # 1000 bytes each
    store.logs.bound(8_000, lambda: told.append(True))
    assert await store.logs.shrink(8_000, 1_000) == 0
    await store.logs.append([some.line(n, "x" * 600, at=n) for n in range(6, 9)])
    assert told == []
    await store.logs.append([some.line(9, "x" * 600, at=9)])
    assert told == [True]
    assert await store.logs.shrink(8_000, 1_000) == 2
    await store.logs.append([some.line(10, "x" * 600, at=10)])
    assert told == [True]
    assert await store.logs.forget(some.later(9)) == 6
    assert await store.logs.shrink(8_000, 1_000) == 0, "the lines that were too old count no more"
    assert len(await messages(store)) == 2


async def test_appending_while_reading_and_forgetting(store):
    async def write(runner_id):
        for start in range(1, 201, 20):
            await store.logs.append([some.line(n, runner_id=runner_id) for n in range(start, start + 20)])

    async def read():
        return [await messages(store, app_name="hello", limit=50) for _ in range(10)]

    await asyncio.gather(*(write(name) for name in "abcd"), read(), store.logs.forget(some.START))
    for name in "abcd":
        assert len(await walk(store, runner_id=name, limit=64)) == 200


WORDS = ["Error", "ready", "50%", "straße", "İD", "a_b"]


def many(count, *, first=1, runners="abc", **more):
    """Return lines of some runners, three of each time. Most have a word of their own."""
    return [
        some.line(
            number // len(runners) + 1,
            f"{WORDS[number % 6]} {number:05} of {number % 97}",
            runner_id=runners[number % len(runners)],
            at=number // 3,
            **more,
        )
        for number in range(first, first + count)
    ]


async def sealed(store, at=1_000_000):
    return await store.logs.seal(some.later(at), 1000)


@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_search_finds_the_same_in_sealed_lines(store, newest_first):
    await store.logs.append(many(5000))
    await store.logs.append(many(200, runners="x", app_name="other"))
    queries = [
        {"search": search, "app_name": "hello", "newest_first": newest_first, "limit": limit, **more}
        for search in ("error", "00042", "STRASSE", "straße", "İd", "of 96", "5", "nowhere", "nowhere at all")
        for limit, more in (
            (1000, {}),
            (7, {}),
            (50, {"reads": 700}),
            (40, {"since": some.later(300), "until": some.later(1200)}),
        )
        if limit != 7 or search in {"00042", "of 96"}
    ]
    before = [await walk(store, **query) for query in queries]
    assert await sealed(store) == 4
    assert [await walk(store, **query) for query in queries] == before


async def test_late_lines_are_found_and_their_range_is_sealed_again(store):
    await store.logs.append(many(3000))
    assert await sealed(store) == 2
    late = some.line(1, "the late needle", runner_id="z", at=500)
    await store.logs.append([late])
    await store.logs.append([late])
    assert await messages(store, app_name="hello", search="needle") == ["the late needle"]
    assert await sealed(store) == 1
    assert await sealed(store) == 0
    assert await messages(store, app_name="hello", search="needle") == ["the late needle"]
    assert len(await walk(store, app_name="hello", search="of ", limit=999)) == 3000


async def test_later_lines_are_sealed_later(store):
    await store.logs.append(many(3000))
    assert await sealed(store, at=400) == 1
    assert await sealed(store) == 1
    assert await sealed(store) == 0
    await store.logs.append(many(1000, first=3001))
    assert await sealed(store) == 1


async def test_sealed_lines_of_one_time_stay_together(store):
    await store.logs.append([some.line(number, f"line {number}", at=1) for number in range(1, 3001)])
    assert await sealed(store) == 0
    await store.logs.append([some.line(3001, "needle", at=2)])
    assert await sealed(store) == 1
    assert await messages(store, app_name="hello", search="LINE 2999") == ["line 2999"]


async def test_a_search_finds_no_forgotten_line_in_a_sealed_range(store):
    await store.logs.append(many(3000))
    await sealed(store)
    assert await store.logs.forget(some.later(100)) == 299
    found = await walk(store, app_name="hello", search="of ", limit=500)
    assert len(found) == 2701
    assert found[0].timestamp == some.later(100)


async def test_late_lines_after_a_restart(reopen):
    first = await reopen()
    await first.logs.append(many(3000))
    await sealed(first)
    await first.close()
    second = await reopen()
    await second.logs.append([some.line(1, "the late needle", runner_id="z", at=10)])
    assert await messages(second, app_name="hello", search="needle") == ["the late needle"]
    assert await sealed(second) == 1
    assert await messages(second, app_name="hello", search="needle") == ["the late needle"]
