"""Log lines of several apps. They are ordered, in pages of any size, each once, and only selected ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.services import log_search
from fal_server.services.log_search import LabelRule, LogChoice, LogSearch
from tests.fakes.domain import SCOPE, START, app_id, make_app, make_revision
from tests.fakes.platform import Platform
from tests.store import strategies as some

APPS = ("one", "two", "three")
LEVELS = (LogLevel.DEBUG, LogLevel.INFO, LogLevel.ERROR)
SOURCES = (LogSource.STDOUT, LogSource.STDERR)


def line(sequence: int, app: str, seconds: int, level: LogLevel = LogLevel.INFO, **more: object) -> LogEntry:
    """Return a line of the app's only runner."""
    entry = some.line(sequence, runner_id=f"runner-{app}", app_name=app)
    return replace(entry, timestamp=START + timedelta(seconds=seconds), level=level, **more)


@pytest.fixture
async def search(idle: Platform) -> LogSearch:
    for name in APPS:
        app = make_app(name, f"revision of {name}")
        await idle.catalog.register(make_revision(app.revision_id, name), lambda _, app=app: app)
    return LogSearch(idle.logs, idle.catalog)


async def pages(search: LogSearch, choice: LogChoice, limit: int) -> list[LogEntry]:
    found: list[LogEntry] = []
    after: str | None = None
    while True:
        entries, after = await search.page(SCOPE, choice, after=after, limit=limit)
        assert len(entries) <= limit
        found += entries
        if after is None:
            return found


def place(entry: LogEntry) -> tuple[object, str, int]:
    return entry.timestamp, entry.runner_id, entry.sequence


LINES = st.lists(
    st.tuples(st.sampled_from(APPS), st.integers(0, 5), st.sampled_from(LEVELS), st.sampled_from(SOURCES)),
    max_size=30,
)
CHOICES = st.builds(
    LogChoice,
    apps=st.lists(st.sampled_from([app_id(name) for name in APPS]), unique=True, max_size=3).map(tuple),
    least_level=st.none() | st.sampled_from(LEVELS),
    sources=st.none() | st.frozensets(st.sampled_from(SOURCES)),
    until=st.none() | st.integers(0, 6).map(lambda seconds: START + timedelta(seconds=seconds)),
    rules=st.lists(
        st.builds(
            LabelRule,
            label=st.sampled_from(["source", "fal_job_id", "fal_request_id"]),
            values=st.frozensets(st.sampled_from(["stdout", "stderr", "runner-one"]), min_size=1),
            inverted=st.booleans(),
        ),
        max_size=2,
    ).map(tuple),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, choice=CHOICES, limit=st.integers(1, 7))
async def test_pages_of_any_size_are_the_chosen_lines_in_one_order(
    idle: Platform,
    search: LogSearch,
    lines: Sequence[tuple[str, int, LogLevel, LogSource]],
    choice: LogChoice,
    limit: int,
) -> None:
    entries = [
        line(number, app, seconds, level, source=source)
        for number, (app, seconds, level, source) in enumerate(lines, 1)
    ]
    await idle.store.logs.forget(START + timedelta(days=1))
    await idle.store.logs.append(entries)
    wanted = sorted((entry for entry in entries if choice.wants(entry)), key=place)
    assert await pages(search, choice, limit) == wanted[::-1]
    past = [entry async for batch in search.past(SCOPE, choice) for entry in batch.entries]
    assert past == wanted


def test_a_label_that_a_line_lacks_is_no_value() -> None:
    rule = LabelRule(label="fal_request_id", values=frozenset({"r"}))
    without, having = line(1, "one", 0), line(2, "one", 0, request_id="r")
    assert [LogChoice(rules=(rule,)).wants(entry) for entry in (without, having)] == [False, True]
    other = replace(rule, inverted=True)
    assert [LogChoice(rules=(other,)).wants(entry) for entry in (without, having)] == [True, False]


async def test_lines_of_one_runner(idle: Platform, search: LogSearch) -> None:
    entries = [line(1, "one", 2), line(1, "two", 1), line(2, "one", 3)]
    await idle.store.logs.append(entries)
    assert await pages(search, LogChoice(runner_id="runner-one"), 1) == [entries[2], entries[0]]
    assert await pages(search, LogChoice(runner_id="runner-one", revision_id="another"), 5) == []


async def test_what_is_unknown_is_not_found(search: LogSearch) -> None:
    for choice in (LogChoice(apps=(app_id("nosuch"),)), LogChoice(runner_id="nosuch")):
        with pytest.raises(NotFound):
            await pages(search, choice, 1)
        with pytest.raises(NotFound):
            async with aclosing(search.follow(SCOPE, choice)) as batches:
                await anext(batches)


async def test_lines_of_several_apps_are_followed_together(idle: Platform, search: LogSearch) -> None:
    wanted = LogChoice(apps=(app_id("one"), app_id("two")), least_level=LogLevel.INFO)
    found: list[LogEntry] = []
    async with asyncio.timeout(30), aclosing(search.follow(SCOPE, wanted)) as batches:
        await idle.store.logs.append([line(1, "one", 0)])
        entries = [line(2, "one", 1), line(2, "two", 1), line(3, "two", 2, LogLevel.DEBUG), line(2, "three", 1)]
        await idle.logs.ingest(entries)
        async for batch in batches:
            found += batch.entries
            if len(found) >= 3:
                break
    assert sorted(found, key=place) == [line(1, "one", 0), *entries[:2]]


async def test_too_many_apps_to_follow_are_refused(search: LogSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_search, "MOST_APPS", 2)
    with pytest.raises(InvalidArgument, match="name those to follow"):
        await anext(search.follow(SCOPE, LogChoice()))
