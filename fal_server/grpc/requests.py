"""Handlers for the request history."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from fal_grpc.v1 import request_pb2 as pb
from fal_server.core import names
from fal_server.core.requests import RequestQuery, RequestRecord, RequestStatus
from fal_server.core.sketch import DurationSketch
from fal_server.grpc.caller import Caller
from fal_server.grpc.convert import named, optional_time, timestamp
from fal_server.grpc.lists import serialized
from fal_server.services.requests import Requests, StatsOfSpan

_STATUS_NUMBERS: dict[RequestStatus, pb.RequestStatus.ValueType] = {
    RequestStatus.SUCCESS: pb.REQUEST_STATUS_SUCCESS,
    RequestStatus.USER_ERROR: pb.REQUEST_STATUS_USER_ERROR,
    RequestStatus.ERROR: pb.REQUEST_STATUS_ERROR,
    RequestStatus.LEFT: pb.REQUEST_STATUS_LEFT,
}
_STATUSES: dict[int, RequestStatus] = {number: status for status, number in _STATUS_NUMBERS.items()}
_SHARES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}


class RequestHandlers:
    """fal.v1.Requests."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def list_requests(self, request: pb.ListRequestsRequest, caller: Caller) -> bytes:
        query = RequestQuery(
            app_name=_app_name(request),
            endpoint=request.endpoint or None,
            status=named(request.status, _STATUSES, "status") if request.status else None,
            since=optional_time(request, "since"),
            until=optional_time(request, "until"),
            runner_id=names.identifier(request.runner_id, "runner_id") if request.runner_id else None,
            key_id=names.identifier(request.key_id, "key_id") if request.key_id else None,
            oldest_first=request.oldest_first,
            after=request.page_token or None,
            limit=request.page_size,
        )
        page = await self._requests.page(caller.scope, query)
        behind = pb.ListRequestsResponse(next_page_token=page.cursor if page.more else "", cursor=page.cursor)
        records = await serialized(page.records, _record, lambda some: pb.ListRequestsResponse(requests=some))
        return records + behind.SerializeToString()

    async def get_request(self, request: pb.GetRequestRequest, caller: Caller) -> pb.GetRequestResponse:
        request_id = names.identifier(request.request_id, "request_id")
        return pb.GetRequestResponse(request=_record(await self._requests.get(caller.scope, request_id)))

    async def get_request_stats(self, request: pb.GetRequestStatsRequest, caller: Caller) -> pb.GetRequestStatsResponse:
        found = await self._requests.stats(
            caller.scope,
            _app_name(request),
            since=optional_time(request, "since"),
            until=optional_time(request, "until"),
            step=timedelta(seconds=request.step_seconds) if request.step_seconds else None,
            by_endpoint=request.by_endpoint,
        )
        return pb.GetRequestStatsResponse(stats=[_stats(each) for each in found])


def _app_name(request: pb.ListRequestsRequest | pb.GetRequestStatsRequest) -> str | None:
    environment = names.environment_name(request.environment_name)
    return names.app_name(request.application_name, environment) if request.application_name else None


def _record(record: RequestRecord) -> pb.RequestRecord:
    return pb.RequestRecord(
        request_id=record.request_id,
        app=record.app_name,
        revision_id=record.revision_id,
        runner_id=record.runner_id or "",
        endpoint=record.endpoint,
        method=record.method,
        key_id=record.key_id or "",
        queued=record.queued,
        received_at=timestamp(record.received_at),
        started_at=None if record.started_at is None else timestamp(record.started_at),
        ended_at=timestamp(record.ended_at),
        status_code=record.code,
        status=_STATUS_NUMBERS[record.status],
        error_type=record.error_type or "",
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        attempt=record.attempt,
        cold_start=record.cold_start,
    )


def _stats(found: StatsOfSpan) -> pb.RequestStats:
    stats = found.stats
    return pb.RequestStats(
        app=found.app_name,
        endpoint=found.endpoint or "",
        since=timestamp(found.since),
        until=timestamp(found.until),
        count=stats.count,
        status_codes=stats.codes,
        error_types=stats.errors,
        cold_starts=stats.cold.count,
        bytes_in=stats.bytes_in,
        bytes_out=stats.bytes_out,
        total=_quantiles(stats.total),
        wait=_quantiles(stats.wait),
        run=_quantiles(stats.run),
        cold=_quantiles(stats.cold),
    )


def _quantiles(sketch: DurationSketch) -> pb.DurationQuantiles:
    found = pb.DurationQuantiles()
    for name, share in _SHARES.items():
        if (seconds := sketch.quantile(share)) is not None:
            getattr(found, name).CopyFrom(_duration(seconds))
    if sketch.counts:
        found.sum.CopyFrom(_duration(sketch.seconds))
    return found


def _duration(seconds: float) -> Duration:
    made = Duration()
    made.FromTimedelta(timedelta(seconds=seconds))
    return made
