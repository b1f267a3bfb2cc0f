"""A search finds the same in sealed lines as in their rows."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from fal_server.core.cursors import write_cursor
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import LOCAL, AccountId
from fal_server.core.logs import LogQuery, LogSource
from fal_server.store.sql import log_sealing, log_search
from fal_server.store.sql.log_pages import page_of_rows
from fal_server.store.sql.log_search import SegmentSearch
from fal_server.store.sql.tables import LOG_SEGMENTS
from tests.store import strategies as some

# Letters whose other case is longer, of another script or none; accents; what LIKE and words treat apart; NUL.
LETTERS = "aEkKsS\u017fßẞiI\u0131İ\u0307\u212aéÉe\u0301\u03c3ςΣǆǅǄﬁŉΐᾼᾳꭰ\u13a0𐐀𐐨 \t\n\r\v\x1c\x85\u2028%_\\\0\ufdd001-"
texts = st.text(LETTERS, max_size=8) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
needles = st.text(LETTERS, min_size=1, max_size=4)


async def by_rows(store, query):
    return await store.logs._database.read(lambda connection: page_of_rows(connection, LOCAL, query))


async def walk(page, **query):
    """Return all pages of a query."""
    found, after = [], None
    while True:
        got = await page(LogQuery(after=after, **query))
        found += got.entries
        after = got.cursor
        if not got.more:
            return found


async def same(store, **query):
    """Return what a search finds; it is what the rows contain."""
    found = await walk(partial(store.logs.page, LOCAL), **query)
    assert found == await walk(partial(by_rows, store), **query)
    return found


async def segments(store):
    """Return the number of lines of each segment."""

    async def read(connection):
        return list(
            (await connection.execute(select(LOG_SEGMENTS.c.lines).order_by(LOG_SEGMENTS.c.until_at))).scalars()
        )

    return await store.logs._database.read(read)


@pytest.fixture
def small(monkeypatch):
    """Let segments have four lines, and three of a runner be many."""
    monkeypatch.setattr(log_sealing, "SEGMENT_LINES", 4)
    monkeypatch.setattr(log_search, "MANY_LINES", 3)


async def sealed(store, at=1_000_000):
    return await store.logs.seal(some.later(at), 1000)


@pytest.mark.parametrize("search", ["0", "1", "0\0", "0\ufdd0", "\00", "\ufdd00", "-", "1\ufdd01"])
async def test_marks_of_nul_are_not_found(store, search):
    lines = [
        "\0",
        "0",
        "\ufdd0",
        "1",
        "0\0",
        "a0\0b",
        "1\0",
        "0\ufdd0",
        "1\ufdd01",
        "\00",
        "\ufdd00",
        "\ufdd01",
        "-0\0-",
    ]
    await store.logs.append([some.line(number, text) for number, text in enumerate(lines, 1)])
    for _ in range(2):
        assert [entry.message for entry in await same(store, app_name="hello", search=search)] == [
            line for line in lines if search in line
        ]
        await sealed(store)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(texts, min_size=6, max_size=12), searches=st.lists(needles, max_size=5), data=st.data())
async def test_the_same_lines_in_any_case(store, small, lines, searches, data):
    await store.logs.forget(some.later(100))
    await store.logs.append([some.line(number, text or "-") for number, text in enumerate(lines, 1)])
    assert await sealed(store)
    for line in data.draw(st.lists(st.sampled_from(lines), max_size=3)):
        begin = data.draw(st.integers(0, len(line)))
        searches += [line[begin:], line[begin:].upper(), line[begin:].casefold(), line[:begin].swapcase()]
    for search in searches:
        await same(store, app_name="hello", search=search)
    for line in filter(None, lines):
        assert line in [entry.message for entry in await same(store, app_name="hello", search=line)]


@pytest.mark.parametrize(
    "search", ["STRASSE", "STRAßE", "İ", "\u0131", "i", "\u212aelvin", "kelvin", "\u0307", "é", "e\u0301"]
)
@pytest.mark.parametrize("newest_first", [False, True])
async def test_letters_with_several_cases(store, small, search, newest_first):
    lines = [
        "Straße",
        "STRASSE",
        "strasse",
        "İstanbul",
        "ISPARTA",
        "\u0131rmak",
        "izmir",
        "Kelvin",
        "\u212aelvin",
        "été",
    ]
    await store.logs.append([some.line(number, text) for number, text in enumerate([*lines, "Été", "\u0307"], 1)])
    assert await sealed(store) == 2
    found = await same(store, app_name="hello", search=search, newest_first=newest_first)
    assert search != "STRAßE" or any(entry.message == "Straße" for entry in found)


steps = st.one_of(
    st.tuples(
        st.just("append"),
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.booleans()), min_size=1, max_size=9),
    ),
    st.tuples(st.just("seal"), st.integers(0, 40)),
    st.tuples(st.just("forget"), st.integers(0, 12)),
    st.tuples(st.just("shrink"), st.integers(0, 20)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(steps, max_size=12),
    limit=st.sampled_from([1, 3, 100]),
    reads=st.sampled_from([None, 1, 6]),
    newest_first=st.booleans(),
    times=st.tuples(st.none() | st.integers(0, 30), st.none() | st.integers(0, 30)),
    of_runner=st.booleans(),
)
async def test_the_same_lines_after_any_history(store, small, history, limit, reads, newest_first, times, of_runner):
    await store.logs.forget(some.later(100))
    numbers, last = {"a": 0, "b": 0}, {"a": 0, "b": 0}
    since, until = (None if at is None else some.later(at) for at in times)
    search = {"search": "needle", "newest_first": newest_first, "limit": limit, "reads": reads}
    search |= {"runner_id": "a"} if of_runner else {"app_name": "hello"}
    for what, detail in history:
        if what == "append":
            lines = []
            for runner, at, hit in sorted(detail, key=lambda each: each[1]):
                numbers[runner] += 1
                at = last[runner] = max(at, last[runner]) if of_runner else at  # a runner's times are in order
                message = "a needle" if hit else "hay"
                lines.append(some.line(numbers[runner], message, runner_id=runner, at=at))
            await store.logs.append(lines)
        elif what == "seal":
            await sealed(store, detail)
        elif what == "forget":
            await store.logs.forget(some.later(detail))
        else:
            await store.logs.shrink(detail * 405)
        await same(store, **search)
    await same(store, since=since, until=until, **search)
    await same(store, since=since, until=until, sources=(LogSource.STDERR,), **search)


async def test_accounts_that_share_an_apps_name(store, small):
    await store.logs.append([some.line(number, "mine") for number in range(1, 10)])
    other = [some.line(number, "theirs", runner_id="b") for number in range(1, 10)]
    for line in other:
        line.account = AccountId("other")
    await store.logs.append(other)
    assert await sealed(store) == 4
    assert await same(store, app_name="hello", search="theirs") == []
    assert len(await same(store, app_name="hello", search="mine")) == 9


@pytest.mark.parametrize("at", [2**62, 2**61, -(2**61), 10**17 * 3])
async def test_a_cursor_of_no_time_is_refused(store, at):
    await store.logs.append([some.line(1)])
    with pytest.raises(InvalidArgument, match="not given out"):
        await store.logs.page(LOCAL, LogQuery(app_name="hello", search="x", after=write_cursor([at, "a", 1])))


async def during_sealing(monkeypatch, store, change):
    """Seal, and change something after the first lines were read."""
    loop, seal, changes = asyncio.get_running_loop(), log_sealing.seal, [change]

    def seal_then(lines):
        if changes:
            asyncio.run_coroutine_threadsafe(changes.pop()(), loop).result(60)
        return seal(lines)

    monkeypatch.setattr(log_sealing, "seal", seal_then)
    return await sealed(store)


async def test_lines_that_come_and_go_while_they_are_sealed(store, small, monkeypatch):
    await store.logs.append([some.line(number) for number in range(1, 6)])

    async def change():
        assert await store.logs.forget(some.later(2)) == 1
        await store.logs.append([some.line(1, "a needle", runner_id="z", at=3)])

    assert await during_sealing(monkeypatch, store, change) == 0
    assert len(await same(store, app_name="hello", search="needle")) == 1
    assert await sealed(store) == 1
    assert len(await same(store, app_name="hello", search="needle")) == 1


async def test_a_segment_that_is_divided_while_it_is_searched(reopen, small, monkeypatch):
    store = await reopen()
    await store.logs.append([some.line(number, "a needle") for number in range(1, 10)])
    assert await sealed(store) == 2
    matches, changes = SegmentSearch._matches, [1]

    async def change_first(self, some_segments):
        if changes:
            changes.clear()
            await store.logs.append([some.line(1, runner_id="z", at=2)])
            assert await sealed(store) == 2
        return await matches(self, some_segments)

    monkeypatch.setattr(SegmentSearch, "_matches", change_first)
    assert len(await same(store, app_name="hello", search="needle")) == 9
    assert await segments(store) == [4, 1, 4]


async def test_a_late_line_unseals_its_own_range_only(store, small):
    await store.logs.append([some.line(number) for number in range(1, 42)])
    assert await sealed(store) == 10
    await store.logs.append([some.line(1, runner_id="z", at=2), some.line(2, runner_id="z", at=50)])
    assert len(await segments(store)) == 9


async def test_an_app_that_cannot_be_sealed_holds_up_no_other(store, small, monkeypatch):
    for app_name in "abc":
        lines = [some.line(number, app_name, runner_id=app_name, app_name=app_name) for number in range(1, 6)]
        await store.logs.append(lines)
    seal = log_sealing.seal

    def refuse(lines):
        if lines[0][2] == "a":
            raise ValueError("these are bad")
        return seal(lines)

    monkeypatch.setattr(log_sealing, "seal", refuse)
    for _ in range(3):
        with pytest.raises(ValueError, match="bad"):
            await sealed(store)
    assert await segments(store) == [4, 4]


async def test_apps_are_sealed_in_turn(store, small):
    for app_name in "ab":
        lines = [some.line(number, runner_id=app_name, app_name=app_name) for number in range(1, 50)]
        await store.logs.append(lines)
    for _ in range(2):
        assert await store.logs.seal(some.later(1000), 2) == 2
    found = await same(store, app_name="a", search="line"), await same(store, app_name="b", search="line")
    assert list(map(len, found)) == [49, 49]

    async def apps(connection):
        return set((await connection.execute(select(LOG_SEGMENTS.c.app_name))).scalars())

    assert await store.logs._database.read(apps) == {"a", "b"}


async def test_long_lines_make_small_segments(store):
    await store.logs.append([some.line(number, "x" * 500_000) for number in range(1, 30)])
    assert await sealed(store)
    assert max(await segments(store)) <= 16


async def test_too_many_lines_of_one_time_are_not_sealed(store, small):
    of_one_time = [some.line(number, at=5) for number in range(1, 200)]
    others = [some.line(number, runner_id="b", at=number) for number in range(1, 20)]
    await store.logs.append([*of_one_time, *others])
    assert await sealed(store) == 4
    assert await sealed(store) == 0
    assert sum(await segments(store)) == 16
    assert len(await same(store, app_name="hello", search="line", limit=50)) == 218
