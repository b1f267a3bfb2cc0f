"""Statistics of requests and of runners' time, by intervals of a span."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from fal_server.aio.slices import in_slices
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AppId, Scope
from fal_server.core.requests import MinuteKey, RequestPage, RequestQuery, RequestRecord, RequestStats, cursor_after
from fal_server.core.runner_counts import Aggregation, RunnerCounts, Stay, counts_by_minute, stays_of, together
from fal_server.core.runners import Runner
from fal_server.core.timeframes import Timeframe, begin_of, end_of
from fal_server.live.catalog import Catalog
from fal_server.ports import Clock, Store
from fal_server.ports.requests import RequestStore
from fal_server.services.requests import Requests

_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_READ_AT_ONCE = 1000
_MOST_SORTED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An app's endpoint; None stands for all endpoints of the app."""

    app_id: AppId
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineTime:
    """The total seconds of an app's runners on machines of a type."""

    app_id: AppId
    machine_type: str
    seconds: float


class Analytics:
    """The use cases of statistics over time."""

    def __init__(self, requests: Requests, numbers: RequestStore, store: Store, catalog: Catalog, clock: Clock) -> None:
        self._requests = requests
        self._numbers = numbers
        self._store = store
        self._catalog = catalog
        self._clock = clock

    async def listed(
        self, scope: Scope, endpoints: Sequence[Endpoint], query: RequestQuery
    ) -> tuple[Sequence[RequestRecord], str | None]:
        """Return requests to some endpoints, and the next page's cursor or None. Those that ended last come first.

        Raises:
            InvalidArgument: the cursor is malformed.
            NotFound: there is no such app.
        """
        self._check(endpoints)
        found: dict[str, RequestRecord] = {}
        for endpoint in endpoints:
            for record in (await self._page(scope, endpoint, query, query.after, query.limit + 1)).records:
                found[record.request_id] = record
        newest = sorted(found.values(), key=_place, reverse=True)
        page = newest[: query.limit]
        return page, cursor_of(page[-1]) if len(newest) > query.limit else None

    async def longest(self, scope: Scope, endpoints: Sequence[Endpoint], query: RequestQuery) -> list[RequestRecord]:
        """Return all requests to some endpoints, longest first.

        Raises:
            InvalidArgument: there are too many.
            NotFound: there is no such app.
        """
        self._check(endpoints)
        found: dict[str, RequestRecord] = {}
        for endpoint in endpoints:
            after, more = None, True
            while more:
                page = await self._page(scope, endpoint, query, after, _READ_AT_ONCE)
                found |= {record.request_id: record for record in page.records}
                after, more = page.cursor, page.more
                if len(found) > _MOST_SORTED:
                    raise InvalidArgument(
                        "sort_by", f"more than {_MOST_SORTED} requests would have to be sorted: ask for a shorter time"
                    )
        return sorted(found.values(), key=lambda record: (record.seconds, *_place(record)), reverse=True)

    async def _page(
        self, scope: Scope, endpoint: Endpoint, query: RequestQuery, after: str | None, limit: int
    ) -> RequestPage:
        wanted = RequestQuery(
            app_name=str(endpoint.app_id),
            endpoint=endpoint.path,
            status=query.status,
            since=query.since,
            until=query.until,
            request_id=query.request_id,
            after=after,
            limit=min(limit, _READ_AT_ONCE),
        )
        return await self._requests.page(scope, wanted)

    async def numbers(
        self,
        scope: Scope,
        endpoints: Sequence[Endpoint],
        *,
        since: datetime,
        until: datetime,
        frame: Timeframe,
        zone: ZoneInfo,
    ) -> dict[datetime, dict[Endpoint, RequestStats]]:
        """Return the statistics of each interval and endpoint, in whole minutes. It leaves out empty ones.

        Raises:
            NotFound: there is no such app.
        """
        self._check(endpoints)
        found: dict[datetime, dict[Endpoint, RequestStats]] = {}
        whole = {endpoint.app_id for endpoint in endpoints if endpoint.path is None}
        single = set(endpoints)
        for app_id in dict.fromkeys(endpoint.app_id for endpoint in endpoints):
            async for key, stats in self._minutes(scope, app_id, since, until):
                endpoint = Endpoint(app_id=app_id, path=key.endpoint)
                if app_id in whole or endpoint in single:
                    part = found.setdefault(begin_of(key.at, frame, zone), {})
                    part.setdefault(endpoint, RequestStats()).merge(stats)
        return dict(sorted(found.items(), key=lambda part: part[0]))

    async def machine_time(
        self, scope: Scope, *, since: datetime, until: datetime, frame: Timeframe, zone: ZoneInfo
    ) -> dict[datetime, list[MachineTime]]:
        """Return the machine time of the account's runners by interval. Each counts from its start to its end."""
        now = self._clock.now()
        seconds: dict[datetime, dict[tuple[AppId, str], float]] = defaultdict(lambda: defaultdict(float))
        runners = await self._store.list_runners(scope.account, since)
        async for runner in in_slices(runners):
            begin, end = _time_of(runner, since, min(until, now))
            while begin < end:
                part = begin_of(begin, frame, zone)
                stop = min(end, end_of(part, frame))
                seconds[part][runner.app_id, runner.machine_type] += (stop - begin).total_seconds()
                begin = stop
        return {
            part: [
                MachineTime(app_id=app_id, machine_type=machine_type, seconds=total)
                for (app_id, machine_type), total in sorted(
                    of_part.items(), key=lambda each: (str(each[0][0]), each[0][1])
                )
            ]
            for part, of_part in sorted(seconds.items())
        }

    async def runner_counts(
        self,
        scope: Scope,
        app_id: AppId,
        *,
        since: datetime,
        until: datetime,
        frame: Timeframe,
        aggregation: Aggregation,
    ) -> list[tuple[datetime, RunnerCounts]]:
        """Return an app's number of runners in each state, by interval. The first interval is that of its first runner.

        Raises:
            NotFound: there is no such app.
        """
        self._catalog.require(app_id)
        until = min(until, self._clock.now())
        runners = [
            runner
            for runner in await self._store.list_runners(app_id.account, since)
            if runner.app_id == app_id and runner.created_at < until
        ]
        if not runners:
            return []
        stays = [stay for runner in runners for stay in stays_of(runner, until)]
        first = begin_of(max(since, min(stay.begin for stay in stays)), Timeframe.MINUTE)
        busy: dict[datetime, float] = defaultdict(float)
        async for key, stats in self._minutes(scope, app_id, first, until + timedelta(hours=1)):
            busy[key.at] += stats.run.seconds
        return await asyncio.to_thread(_in_parts, stays, busy, first, until, frame, aggregation)

    async def _minutes(
        self, scope: Scope, app_id: AppId, since: datetime, until: datetime
    ) -> AsyncGenerator[tuple[MinuteKey, RequestStats]]:
        """Yield an app's minutes one day at a time. Other tasks can run in between."""
        await self._requests.settle()
        begin = begin_of(since, Timeframe.MINUTE)
        while begin < until:
            end = min(begin + _DAY, until)
            for minute in await self._numbers.minutes(scope.account, str(app_id), begin, end):
                yield minute
            begin = end

    def _check(self, endpoints: Sequence[Endpoint]) -> None:
        for endpoint in endpoints:
            self._catalog.require(endpoint.app_id)


def _in_parts(
    stays: Sequence[Stay],
    busy: Mapping[datetime, float],
    since: datetime,
    until: datetime,
    frame: Timeframe,
    aggregation: Aggregation,
) -> list[tuple[datetime, RunnerCounts]]:
    minutes = counts_by_minute(stays, busy, since, until, aggregation)
    parts: dict[datetime, list[RunnerCounts]] = {}
    for number, counts in enumerate(minutes):
        parts.setdefault(begin_of(since + timedelta(minutes=number), frame), []).append(counts)
    return [(begin, together(of_part, aggregation)) for begin, of_part in parts.items()]


def _time_of(runner: Runner, since: datetime, until: datetime) -> tuple[datetime, datetime]:
    """Return the part of a span when a runner had its machine."""
    begin = runner.started_at or runner.ended_at or until
    return max(begin, since), min(runner.ended_at or until, until)


def _place(record: RequestRecord) -> tuple[datetime, str]:
    return record.ended_at, record.request_id


def cursor_of(record: RequestRecord) -> str:
    """Return the cursor directly after a request, in the request store's form."""
    return cursor_after(record, (record.ended_at - _EPOCH) // timedelta(microseconds=1))
