"""Requests in the platform API, and statistics of them and runners. They are analytics, usage and counts of runners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.access.permissions import CALL_APPS, require
from fal_server.core.accounts import KnownAccounts
from fal_server.core.faults import InvalidArgument
from fal_server.core.identity import AppId, Principal
from fal_server.core.json_reader import read_json
from fal_server.core.payloads import MOST_BYTES
from fal_server.core.requests import RequestQuery, RequestRecord, RequestStats, RequestStatus
from fal_server.core.runner_counts import Aggregation
from fal_server.core.sketch import DurationSketch
from fal_server.core.timeframes import Timeframe, begin_of, end_of, usual_timeframe
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.parameters import number, one_of
from fal_server.http.routes.platform.queries import (
    bad_cursor,
    endpoint_id,
    expanded,
    iso,
    listed,
    micros_of,
    named_app,
    own_app,
    paging,
    position,
    span,
    time_of,
    zone_of,
)
from fal_server.ports import Clock
from fal_server.services.analytics import Analytics, Endpoint, MachineTime
from fal_server.services.queue import Queue
from fal_server.services.request_payloads import RequestPayloads

T = TypeVar("T")
_LONGEST = timedelta(days=90)
_MOST_BUCKETS = 1500
_STATUSES = {status.value: status for status in RequestStatus if status is not RequestStatus.LEFT}
_STARTUP = ("startup_timeout", "runner_scheduling_failure")
_CONNECTION = (
    "runner_connection_timeout",
    "runner_disconnected",
    "runner_connection_refused",
    "runner_connection_error",
    "runner_incomplete_response",
)
_RUNTIME = ("internal_error", "runner_server_error")


def _errors(*types: str) -> Callable[[RequestStats], float | None]:
    return lambda stats: sum(stats.errors[each] for each in types)


def _status(status: RequestStatus) -> Callable[[RequestStats], float | None]:
    return lambda stats: stats.count_of(status)


def _quantile(sketch: Callable[[RequestStats], DurationSketch], percent: int) -> Callable[[RequestStats], float | None]:
    return lambda stats: sketch(stats).quantile(percent / 100)


# By the published name; None is omitted from a response.
METRICS: dict[str, Callable[[RequestStats], float | None]] = {
    "request_count": lambda stats: stats.count,
    "success_count": _status(RequestStatus.SUCCESS),
    "user_error_count": _status(RequestStatus.USER_ERROR),
    "error_count": _status(RequestStatus.ERROR),
    **{f"p{each}_prepare_duration": _quantile(lambda stats: stats.wait, each) for each in (50, 75, 90, 95, 99)},
    **{f"p{each}_duration": _quantile(lambda stats: stats.run, each) for each in (25, 50, 75, 90, 95, 99)},
    "startup_error_count": _errors(*_STARTUP),
    "connection_error_count": _errors(*_CONNECTION),
    "timeout_error_count": _errors("request_timeout"),
    "runtime_error_count": _errors(*_RUNTIME),
    "cold_boot_count": lambda stats: stats.cold.count,
    **{f"p{each}_cold_boot_duration": _quantile(lambda stats: stats.cold, each) for each in (50, 75, 90)},
    "total_billable_duration": lambda stats: stats.run.seconds,
}


class PlatformRequestRoutes:
    """The routes of requests and of statistics over time."""

    def __init__(
        self,
        analytics: Analytics,
        queue: Queue,
        payloads: RequestPayloads,
        accounts: KnownAccounts,
        clock: Clock,
        guard: Guard,
    ) -> None:
        self._analytics = analytics
        self._queue = queue
        self._payloads = payloads
        self._accounts = accounts
        self._clock = clock
        self.routes = [
            guard.route("GET", "/v1/serverless/requests/by-endpoint", self._list),
            guard.route("GET", "/v1/serverless/analytics", self._numbers),
            guard.route("GET", "/v1/serverless/usage", self._usage),
            guard.route("GET", "/v1/serverless/apps/{owner}/{app}/runners/history", self._runners),
        ]

    async def _list(self, request: Request, caller: Principal) -> Response:
        request_id = request.query_params.get("request_id") or None
        since, until = span(request, self._clock.now(), usual=_LONGEST if request_id else timedelta(days=1))
        limit = number(request, "limit", usual=50, most=100)
        more = expanded(request, ("payloads", "billing"))
        if "payloads" in more:
            require(caller, CALL_APPS)  # which is what it takes to see a response in the queue
        status = one_of(request, "status", tuple(_STATUSES))
        query = RequestQuery(
            status=None if status is None else _STATUSES[status],
            since=since,
            until=until,
            request_id=request_id,
            after=request.query_params.get("cursor") or None,
            limit=limit,
        )
        endpoints = self._endpoints(request, caller)
        cursor: str | None
        if one_of(request, "sort_by", ("ended_at", "duration")) == "duration":
            whole, first = await self._analytics.longest(caller.scope, endpoints, query), _count(position(request))
            records: Sequence[RequestRecord] = whole[first : first + limit]
            behind = [first + limit] if len(whole) > first + limit else None
            pages = paging(behind)
        else:
            records, cursor = await self._analytics.listed(caller.scope, endpoints, query)
            pages = {"next_cursor": cursor, "has_more": cursor is not None}
        return JSONResponse({**pages, "items": [await self._item(record, more) for record in records]})

    async def _item(self, record: RequestRecord, more: set[str]) -> dict[str, object]:
        item: dict[str, object] = {
            "request_id": record.request_id,
            "endpoint_id": self._named(AppId.parse(record.account, record.app_name), record.endpoint),
            "started_at": iso(record.started_at or record.received_at),
            "sent_at": iso(record.received_at),
            "ended_at": iso(record.ended_at),
            "status_code": record.code,
            "duration": record.seconds,
            "runner_id": record.runner_id,
        }
        if "billing" in more:
            item["billable_units"] = None  # nothing is billed
        if "payloads" in more:
            given = zip(("json_input", "json_output"), await self._bodies(record), strict=True)
            item |= {name: value for name, content in given for value in _payload(content)}
        return item

    async def _bodies(self, record: RequestRecord) -> tuple[bytes | None, bytes | None]:
        """Return a request's input and output, as far as they are kept. The queue or the history keep them."""
        if record.queued:
            body, answer = await self._queue.payloads(AppId.parse(record.account, record.app_name), record.request_id)
            return body, None if answer is None else answer.body
        kept = await self._payloads.get(record.account, record.request_id)
        return (None, None) if kept is None else (kept.input, kept.output)

    async def _numbers(self, request: Request, caller: Principal) -> Response:
        asked = expanded(request, ("time_series", "summary", *METRICS)) or {"time_series", "request_count"}
        metrics = [name for name in METRICS if name in asked]
        if not metrics or not asked & {"time_series", "summary"}:
            raise InvalidArgument("expand", "expand names no metric, or neither time_series nor summary: name both")
        since, until, frame, zone = self._parts(request)
        found = await self._analytics.numbers(
            caller.scope, self._endpoints(request, caller), since=since, until=until, frame=frame, zone=zone
        )
        content: dict[str, object] = {}
        if "summary" in asked:
            whole: dict[Endpoint, RequestStats] = {}
            for part in found.values():
                for endpoint, stats in part.items():
                    whole.setdefault(endpoint, RequestStats()).merge(stats)
            content["summary"] = [self._row(endpoint, stats, metrics) for endpoint, stats in _sorted(whole)]
        return self._series(
            request,
            found if "time_series" in asked else None,
            lambda part: [self._row(endpoint, stats, metrics) for endpoint, stats in _sorted(part)],
            content,
        )

    def _row(self, endpoint: Endpoint, stats: RequestStats, metrics: Sequence[str]) -> dict[str, object]:
        values = {name: METRICS[name](stats) for name in metrics}
        shown = {name: value for name, value in values.items() if value is not None}
        return {"endpoint_id": self._named(endpoint.app_id, endpoint.path or ""), **shown}

    async def _usage(self, request: Request, caller: Principal) -> Response:
        asked = expanded(request, ("time_series", "summary")) or {"time_series"}
        since, until, frame, zone = self._parts(request)
        apps, search = set(listed(request, "app")), request.query_params.get("search", "").casefold()
        found = {
            part: rows
            for part, every in (
                await self._analytics.machine_time(caller.scope, since=since, until=until, frame=frame, zone=zone)
            ).items()
            if (rows := [row for row in every if (not apps or str(row.app_id) in apps) and search in str(row.app_id)])
        }
        content: dict[str, object] = {}
        if "summary" in asked:
            whole: dict[tuple[AppId, str], float] = {}
            for rows in found.values():
                for row in rows:
                    of = row.app_id, row.machine_type
                    whole[of] = whole.get(of, 0.0) + row.seconds
            content["summary"] = [
                _usage_row(MachineTime(app_id=app_id, machine_type=machine_type, seconds=seconds))
                for (app_id, machine_type), seconds in whole.items()
            ]
        return self._series(
            request,
            found if "time_series" in asked else None,
            lambda rows: [_usage_row(row) for row in rows],
            content,
        )

    def _series(
        self,
        request: Request,
        found: Mapping[datetime, T] | None,
        rows_of: Callable[[T], list[dict[str, object]]],
        content: dict[str, object],
    ) -> Response:
        """Answer with a page of intervals and every page's content."""
        limit, after = number(request, "limit", usual=_MOST_BUCKETS, most=_MOST_BUCKETS), _time(position(request))
        behind: list[object] | None = None
        if found is not None:
            parts = [part for part in found if after is None or part > after]
            page = parts[:limit]
            behind = [micros_of(page[-1])] if len(parts) > limit else None
            content["time_series"] = [{"bucket": part.isoformat(), "results": rows_of(found[part])} for part in page]
        return JSONResponse({**paging(behind), **content})

    async def _runners(self, request: Request, caller: Principal) -> Response:
        app_id = named_app(request, caller, self._accounts)
        since, until = span(request, self._clock.now(), most=_LONGEST)
        frame = _frame(request, since, until)
        aggregation = Aggregation(one_of(request, "aggregation", tuple(Aggregation)) or Aggregation.MAX)
        _check_buckets(since, until, frame)
        parts = await self._analytics.runner_counts(
            caller.scope, app_id, since=since, until=until, frame=frame, aggregation=aggregation
        )
        return JSONResponse(
            {
                "endpoint_id": endpoint_id(self._accounts, app_id),
                "timeframe": frame.value,
                "aggregation": aggregation.value,
                "history": [
                    {
                        "timestamp": iso(begin),
                        "running": counts.running,
                        "idle": counts.idle,
                        "pending": counts.pending,
                        "draining": counts.draining,
                    }
                    for begin, counts in parts
                ],
            }
        )

    def _parts(self, request: Request) -> tuple[datetime, datetime, Timeframe, ZoneInfo]:
        zone = zone_of(request)
        since, until = span(request, self._clock.now(), most=_LONGEST, zone=zone)
        frame = _frame(request, since, until)
        if one_of(request, "bound_to_timeframe", ("true", "false")) != "false":
            since = begin_of(since, frame, zone)
            last = begin_of(until, frame, zone)
            until = last if last == until and last > since else end_of(last, frame)
        _check_buckets(since, until, frame)
        return since, until, frame, zone

    def _endpoints(self, request: Request, caller: Principal) -> list[Endpoint]:
        """Return the request's endpoints, in the form `owner/name` or `owner/name/path`."""
        named = listed(request, "endpoint_id")
        if not named:
            raise InvalidArgument("endpoint_id", "endpoint_id is missing: name an endpoint as `owner/name`")
        found = [own_app("endpoint_id", text, caller, self._accounts) for text in named]
        return [Endpoint(app_id=app_id, path=f"/{path}" if path else None) for app_id, path in found]

    def _named(self, app_id: AppId, path: str) -> str:
        return endpoint_id(self._accounts, app_id) + path.rstrip("/")


def _sorted(found: Mapping[Endpoint, RequestStats]) -> list[tuple[Endpoint, RequestStats]]:
    return sorted(found.items(), key=lambda each: (str(each[0].app_id), each[0].path or ""))


def _payload(body: bytes | None) -> list[object]:
    """Return a JSON body's value if it is small enough to show. Return nothing for any other."""
    if not body or len(body) > MOST_BYTES:
        return []
    try:
        return [read_json(body)]
    except ValueError:
        return []


def _usage_row(row: MachineTime) -> dict[str, object]:
    """Return a line of usage; a controller has no prices."""
    return {
        "app": str(row.app_id),
        "environment": row.app_id.environment,
        "machine_type": row.machine_type,
        "unit": "second",
        "quantity": round(row.seconds, 6),
        "unit_price": 0,
        "percent_discount": None,
        "cost_subtotal": 0,
        "cost_discount": 0,
        "cost_total": 0,
        "cost": 0,
        "currency": "USD",
        "is_surge": False,
    }


def _frame(request: Request, since: datetime, until: datetime) -> Timeframe:
    named = one_of(request, "timeframe", tuple(Timeframe))
    return usual_timeframe(until - since) if named is None else Timeframe(named)


def _check_buckets(since: datetime, until: datetime, frame: Timeframe) -> None:
    length = {Timeframe.MINUTE: timedelta(minutes=1), Timeframe.HOUR: timedelta(hours=1)}.get(frame, timedelta(days=1))
    if (until - since) / length > _MOST_BUCKETS + 60:
        raise InvalidArgument("timeframe", f"this gives more than {_MOST_BUCKETS} buckets: ask for longer ones")


def _time(found: list[object] | None) -> datetime | None:
    match found:
        case None:
            return None
        case [int(micros)]:
            return time_of(micros)
        case _:
            raise bad_cursor()


def _count(found: list[object] | None) -> int:
    match found:
        case None:
            return 0
        case [int(count)] if 0 <= count < 2**31:
            return count
        case _:
            raise bad_cursor()
