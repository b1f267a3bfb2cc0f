"""Statistics over time. Requests and machine time have the same sums for any division of a span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.core.requests import MinuteKey, RequestQuery, RequestRecord, RequestStats, minute_of
from fal_server.core.runner_counts import Aggregation, RunnerCounts
from fal_server.core.runners import RunnerState
from fal_server.core.timeframes import UTC_ZONE, Timeframe, begin_of
from fal_server.live.ended_requests import EndedRequests
from fal_server.services import analytics
from fal_server.services.analytics import Analytics, Endpoint
from fal_server.services.request_recording import RequestRecording
from fal_server.services.requests import Requests
from tests.fakes.domain import SCOPE, app_id, make_app, make_revision, make_runner
from tests.fakes.history import NOON, record
from tests.fakes.platform import Platform

APPS = ("a", "b")
ZONES = st.sampled_from([UTC_ZONE, ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/New_York")])
FRAMES = st.sampled_from(Timeframe)
END = NOON + timedelta(days=30)
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
async def numbers(idle: Platform) -> Analytics:
    for name in APPS:
        app = make_app(name, f"revision-{name}")
        await idle.catalog.register(make_revision(app.revision_id, name), lambda _, app=app: app)
    idle.clock.advance((END - idle.clock.now()).total_seconds())
    recording = RequestRecording(EndedRequests(1), idle.store.requests, idle.catalog, idle.clock, 1.0)
    requests = Requests(idle.store.requests, recording, idle.catalog, idle.clock)
    return Analytics(requests, idle.store.requests, idle.store, idle.catalog, idle.clock)


async def keep(idle: Platform, records: Sequence[RequestRecord]) -> None:
    """Replace the stored requests by these."""
    await idle.store.requests.forget(END + timedelta(days=1))
    minutes: dict[object, RequestStats] = {}
    for each in records:
        key = MinuteKey(each.account, each.app_name, each.endpoint, minute_of(each.ended_at))
        minutes.setdefault(key, RequestStats()).add(each)
    await idle.store.requests.add(records, minutes)  # type: ignore[arg-type]


RECORDS = st.lists(
    st.tuples(st.sampled_from(APPS), st.sampled_from(["/", "/x"]), st.integers(0, 5 * 86_400), st.integers(1, 50)),
    max_size=25,
).map(
    lambda found: [
        record(str(number), app_name=app, endpoint=path, ended=ended, took=float(took))
        for number, (app, path, ended, took) in enumerate(found)
    ]
)
ENDPOINTS = st.lists(
    st.builds(
        Endpoint, app_id=st.sampled_from([app_id(name) for name in APPS]), path=st.sampled_from([None, "/", "/x"])
    ),
    min_size=1,
    max_size=3,
    unique=True,
)


def chosen(records: Sequence[RequestRecord], endpoints: Sequence[Endpoint]) -> list[RequestRecord]:
    return [
        each
        for each in records
        if any(str(one.app_id) == each.app_name and one.path in (None, each.endpoint) for one in endpoints)
    ]


@many
@given(records=RECORDS, endpoints=ENDPOINTS, frame=FRAMES, zone=ZONES)
async def test_each_request_is_counted_in_one_part(
    idle: Platform,
    numbers: Analytics,
    records: list[RequestRecord],
    endpoints: list[Endpoint],
    frame: Timeframe,
    zone: ZoneInfo,
) -> None:
    await keep(idle, records)
    found = await numbers.numbers(SCOPE, endpoints, since=NOON, until=END, frame=frame, zone=zone)
    counts = Counter({part: sum(stats.count for stats in of_part.values()) for part, of_part in found.items()})
    assert counts == Counter(begin_of(each.ended_at, frame, zone) for each in chosen(records, endpoints))
    assert list(found) == sorted(found)


@many
@given(records=RECORDS, endpoints=ENDPOINTS, limit=st.integers(1, 6))
async def test_pages_of_any_size_are_all_requests(
    idle: Platform, numbers: Analytics, records: list[RequestRecord], endpoints: list[Endpoint], limit: int
) -> None:
    await keep(idle, records)
    wanted = sorted(chosen(records, endpoints), key=lambda each: (each.ended_at, each.request_id), reverse=True)
    found: list[RequestRecord] = []
    after: str | None = None
    while True:
        page, after = await numbers.listed(SCOPE, endpoints, RequestQuery(limit=limit, after=after))
        found += page
        if after is None:
            break
    assert found == wanted
    longest = await numbers.longest(SCOPE, endpoints, RequestQuery())
    assert [each.seconds for each in longest] == sorted((each.seconds for each in wanted), reverse=True)
    assert {each.request_id for each in longest} == {each.request_id for each in wanted}


async def test_too_many_are_not_sorted(idle: Platform, numbers: Analytics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analytics, "_MOST_SORTED", 2)
    await keep(idle, [record(str(number)) for number in range(3)])
    with pytest.raises(InvalidArgument, match="shorter time"):
        await numbers.longest(SCOPE, [Endpoint(app_id=app_id("a"))], RequestQuery())


async def test_an_unknown_app_is_not_found(numbers: Analytics) -> None:
    unknown = [Endpoint(app_id=app_id("nosuch"))]
    with pytest.raises(NotFound):
        await numbers.listed(SCOPE, unknown, RequestQuery())
    with pytest.raises(NotFound):
        await numbers.numbers(SCOPE, unknown, since=NOON, until=END, frame=Timeframe.DAY, zone=UTC_ZONE)


@many
@given(
    lives=st.lists(st.tuples(st.sampled_from(APPS), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=6),
    frame=FRAMES,
    zone=ZONES,
)
async def test_machine_time_is_that_of_the_runners(
    idle: Platform, numbers: Analytics, lives: list[tuple[str, int, int]], frame: Timeframe, zone: ZoneInfo
) -> None:
    await idle.store.forget_runners(datetime.max.replace(tzinfo=UTC))
    runners = [
        make_runner(
            str(number),
            RunnerState.TERMINATED,
            app_name=app,
            created_at=NOON,
            started_at=NOON + timedelta(seconds=begin),
            ended_at=NOON + timedelta(seconds=begin + length),
        )
        for number, (app, begin, length) in enumerate(lives)
    ]
    await idle.store.save_runners(runners)
    found = await numbers.machine_time(SCOPE, since=NOON, until=END, frame=frame, zone=zone)
    spent = Counter[str]()
    for of_part in found.values():
        for each in of_part:
            spent[str(each.app_id)] += each.seconds  # type: ignore[assignment]
    wanted = Counter[str]()
    for app, _, length in lives:
        wanted[app] += length
    assert {app: round(seconds, 3) for app, seconds in spent.items()} == {
        app: seconds for app, seconds in wanted.items() if seconds
    }
    assert list(found) == sorted(found)


async def test_runners_are_counted_by_minute(idle: Platform, numbers: Analytics) -> None:
    assert (
        await numbers.runner_counts(
            SCOPE, app_id("a"), since=NOON, until=END, frame=Timeframe.MINUTE, aggregation=Aggregation.MAX
        )
        == []
    )
    minute = timedelta(minutes=1)
    ended = make_runner(
        "x",
        RunnerState.TERMINATED,
        created_at=NOON,
        ready_at=NOON + minute,
        draining_at=NOON + 2 * minute,
        ended_at=NOON + 3 * minute,
    )
    await idle.store.save_runners([ended])
    found = await numbers.runner_counts(
        SCOPE,
        app_id("a"),
        since=NOON,
        until=NOON + 4 * minute,
        frame=Timeframe.MINUTE,
        aggregation=Aggregation.MAX,
    )
    assert [at for at, _ in found] == [NOON + number * minute for number in range(4)]
    assert found[0][1] == RunnerCounts(pending=1)
    assert found[1][1].idle == 1
    assert found[2][1].draining == 1
    assert found[3][1] == RunnerCounts()
