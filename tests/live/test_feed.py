"""A reader of a feed has the current rows. It may join, stop and resume at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument
from fal_server.live.events import ChangeNotifier
from fal_server.live.feed import MOST_GONE, Changes, Feed

Row = tuple[str, int]
MINE = "m"  # rows with this prefix belong to the reader


class Table:
    """Rows that a test changes."""

    def __init__(self) -> None:
        self.changed = ChangeNotifier()
        self.rows: dict[str, Row] = {}
        self.looks = 0

    async def look(self) -> Mapping[str, Row]:
        self.looks += 1
        return dict(self.rows)

    def feed(self) -> Feed[str, Row]:
        return Feed(self.look, lambda before, now: before == now, self.changed)


class Patient(ChangeNotifier):
    """Notices for which a test can wait until a reader waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = asyncio.Event()

    async def wait(self, seen: int, timeout_seconds: float | None = None) -> int:
        self.waited_for.set()
        return await super().wait(seen)


class Reader:
    """Merge each message, and resume from its version."""

    def __init__(self, version: str = "") -> None:
        self.version = version
        self.rows: dict[str, Row] = {}

    def take(self, changes: Changes[Row]) -> None:
        if changes.snapshot:
            self.rows.clear()
        for row in changes.rows:
            self.rows[row[0]] = row
        for row in changes.removed:
            self.rows.pop(row[0], None)
        self.version = changes.version

    async def read(self, feed: Feed[str, Row]) -> None:
        async with aclosing(feed.follow(self.version, lambda row: row[0].startswith(MINE))) as stream:
            self.take(await anext(stream))


KEYS = st.sampled_from(["m1", "m2", "m3", "o1"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 2)),
        st.tuples(st.just("drop"), KEYS),
        st.tuples(st.just("read"), st.integers(0, 2)),
        st.tuples(st.just("restart")),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_what_was_read_adds_up_to_what_there_is(steps: list[tuple[object, ...]]) -> None:
    async def play() -> None:
        table = Table()
        feed, readers = table.feed(), [Reader() for _ in range(3)]
        for step in steps:
            match step:
                case ("put", str(key), int(value)):
                    table.rows[key] = (key, value)
                case ("drop", str(key)):
                    table.rows.pop(key, None)
                case ("read", int(number)):
                    await readers[number].read(feed)
                case _:
                    feed = table.feed()
        for reader in readers:
            await reader.read(feed)
            assert reader.rows == {key: row for key, row in table.rows.items() if key.startswith(MINE)}

    asyncio.run(play())


async def test_who_is_too_far_behind_gets_a_snapshot() -> None:
    table = Table()
    feed, reader = table.feed(), Reader()
    table.rows["m1"] = ("m1", 1)
    await reader.read(feed)
    for number in range(MOST_GONE + 2):
        table.rows = {"m1": ("m1", 1), f"m-{number}": (f"m-{number}", 0)}
        await Reader().read(feed)
    async with aclosing(feed.follow(reader.version, lambda row: True)) as stream:
        assert (await anext(stream)).snapshot


async def test_a_new_reader_does_not_wait_for_those_that_wait() -> None:
    """Nothing changes here. A waiting reader that blocked a look would block it for long."""
    table = Table()
    table.changed = notices = Patient()
    feed = table.feed()
    async with aclosing(feed.follow("", lambda row: True)) as first, asyncio.timeout(20):
        await anext(first)
        waiting = asyncio.ensure_future(anext(first))
        await notices.waited_for.wait()
        looks = table.looks
        async with aclosing(feed.follow("", lambda row: True)) as second:
            assert (await anext(second)).snapshot
        assert table.looks == looks + 1
        assert not waiting.done()
        table.rows["m1"] = ("m1", 1)
        table.changed.notify()
        assert (await waiting).rows == [("m1", 1)]


async def test_a_stream_gets_each_change_and_many_readers_cost_one_look() -> None:
    table = Table()
    feed = table.feed()
    async with asyncio.timeout(20):
        streams = [feed.follow("", lambda row: True) for _ in range(5)]
        for stream in streams:
            assert (await anext(stream)).snapshot
        looks = table.looks
        table.rows["m1"] = ("m1", 1)
        table.changed.notify()
        found = await asyncio.gather(*(anext(stream) for stream in streams))
        assert [(changes.snapshot, list(changes.rows)) for changes in found] == [(False, [("m1", 1)])] * 5
        assert table.looks <= looks + 2
        for stream in streams:
            await stream.aclose()


async def test_without_a_change_there_is_a_heartbeat() -> None:
    table = Table()
    async with asyncio.timeout(20), aclosing(table.feed().follow("", lambda row: True)) as stream:
        first = await anext(stream)
        second = await anext(stream)
    assert (list(second.rows), list(second.removed), second.snapshot) == ([], [], False)
    assert second.version == first.version


@pytest.mark.parametrize("version", ["????", "W10", "WzEsMl0x", "é"])
async def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(InvalidArgument):
        await Reader(version).read(Table().feed())
